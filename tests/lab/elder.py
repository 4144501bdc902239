"""A VM on nat, and its network, as version 927bebb left them: its files, and what they are about.

The files are that version's, recorded; what they name is made by ip(8), nft(8) and the like. The
interface's names and the processes' numbers are filled in.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host

DATA: Final = Path(__file__).parents[1] / "netns" / "data" / "927bebb"
NAME, MAC, ADDRESS = "nat1", "52:54:00:2a:ad:a1", "10.208.251.180"
_NAMESPACE: Final = "from qemu_netwrap.linux import host_facts; print(host_facts.namespace())"
# QEMU's part: it has the tap open, and the run's lock at the number by which it inherited it.
_VM: Final = r"""
import fcntl, os, struct, sys, time
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", f"qn{os.getpid()}-0".encode(), 0x5002))
print("tap", flush=True)
lock = os.open(sys.stdin.readline().strip(), os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX)
os.dup2(lock, 128)
os.close(lock)
print("locked", flush=True)
time.sleep(1e6)
"""
_NETWORK: Final = """
ip link add qn-nat address 52:54:00:31:e0:78 group 29038 type bridge
echo 0 >/proc/sys/net/ipv6/conf/qn-nat/accept_dad
ip link set qn-nat up
ip address add 10.208.251.1/24 dev qn-nat
ip address add fd82:af4f:cde8:d0fb::1/64 dev qn-nat
echo 1 >/proc/sys/net/ipv4/conf/qn-nat/forwarding
echo 1 >/proc/sys/net/ipv6/conf/qn-nat/forwarding
echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding
"""
_PORT: Final = """
ip link set @TAP@ address fe:00:00:00:00:01
ip link set @TAP@ master qn-nat up
bridge link set dev @TAP@ learning off locked on
bridge fdb replace @MAC@ dev @TAP@ master static
"""
_KEEPER: Final = """
exec 3<"$1/lock" 4>"$1/keeper"
flock 4
exec flock -F /proc/self/fd/3 "$2" -I -S "$3" "$1" 5
"""


class Elder:
    """The VM; QEMU and, with a `waiter`, its keeper are played."""

    def __init__(self, host: Host, waiter: str = "") -> None:
        """Make it; WAITER is the script that the keeper's flock(1) becomes."""
        self.host = host
        pipe = subprocess.PIPE
        self.qemu = host.popen(sys.executable, "-I", "-c", _VM, stdin=pipe, stdout=pipe)
        self.name = str(self.qemu.pid)
        self._hears("tap")
        names = host.run(sys.executable, "-I", "-c", _NAMESPACE).stdout
        self.base = f"/run/qemu-netwrap/{names.strip()}"
        self.folder = f"{self.base}/runs/{self.name}"
        self._network()
        self._run()
        assert self.qemu.stdin is not None
        self.qemu.stdin.write(f"{self.folder}/lock\n")
        self.qemu.stdin.flush()
        self._hears("locked")
        if waiter:
            words = (self.folder, sys.executable, waiter)
            host.popen("sh", "-c", _KEEPER, "keeper", *words, cwd="/")
            wait_for(lambda: f"{waiter} {self.folder}" in self._processes(), "its keeper")

    def end(self) -> None:
        """End QEMU."""
        self.qemu.kill()
        self.qemu.communicate()

    def _hears(self, word: str) -> None:
        assert self.qemu.stdout is not None
        assert self.qemu.stdout.readline() == f"{word}\n"

    def _write(self, path: str, text: str) -> None:
        """Write a file of the program's, not of the test's: the leak detector is to miss none."""
        file = Path(f"/proc/{self.host.pid}/root{path}")
        file.parent.mkdir(0o755, parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    def _processes(self) -> str:
        return "\n".join(self.host.processes().values())

    def _index(self, name: str) -> str:
        (link,) = json.loads(self.host.run("ip", "-j", "link", "show", "dev", name).stdout)
        return str(link["ifindex"])

    def _network(self) -> None:
        """Make the network, and its server, and put the tap into it."""
        folder = f"{self.base}/networks/qn-nat"
        self.host.sh(_NETWORK)
        tap = f"qn{self.name}-0"
        self.host.sh(_PORT.replace("@TAP@", tap).replace("@MAC@", MAC))
        self._put("network/dnsmasq.conf", f"{folder}/dnsmasq.conf", {})
        self._write(f"{folder}/hosts/{MAC}", f"{MAC},{ADDRESS},{NAME}\n")
        pid_file = f"{folder}/dnsmasq.pid"
        words = (f"--dhcp-hostsdir={folder}/hosts", f"--dhcp-leasefile={folder}/leases")
        conf = f"--conf-file={folder}/dnsmasq.conf"
        self.host.run("dnsmasq", conf, f"--pid-file={pid_file}", "--user=root", *words)
        pid = self.host.read(pid_file).strip()
        started = self.host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19]
        facts = {"BRIDGE": self._index("qn-nat"), "DNSMASQ": pid, "STARTED": started}
        journal = self._put("network/journal", f"{folder}/journal", facts)
        self._load_rules(journal)
        self._put("network/info", f"{folder}/info", {})
        self._write(f"{folder}/members/{self.name}", "")

    def _run(self) -> None:
        """Write down the run."""
        facts = {"TAP": self._index(f"qn{self.name}-0"), "RUN": self.name}
        journal = self._put("run/journal", f"{self.folder}/journal", facts)
        self._load_rules(journal)
        self._put("run/info", f"{self.folder}/info", facts)
        for name in ("keeper", "lock"):
            self._write(f"{self.folder}/{name}", "")
        self._write(f"{self.base}/macs/{MAC}", f"{self.name} qn-nat")
        shared = f"{self.base}/shared"
        self._write(f"{shared}/rules", f"qn-nat\nqn{self.name}-0\n")
        self._write(f"{shared}/forwarding-eth0", f"{self._index('eth0')}\nqn-nat\n")

    def _put(self, source: str, path: str, facts: dict[str, str]) -> str:
        """Write a file that was recorded, with what is not the same each time."""
        text = (DATA / source).read_text("utf-8")
        for name, value in facts.items():
            text = text.replace(f"@{name}@", value)
        self._write(path, text)
        return text

    def _load_rules(self, journal: str) -> None:
        """Have nft load the chains that a journal names."""
        for line in journal.splitlines():
            rules = line.partition("\trules=")[2].replace("\\n", "\n")
            if rules:
                self.host.run("nft", "-f", "-", input=f"table inet qemu_netwrap {{\n{rules}}}\n")
