"""Many runs on one simulated machine: started without waiting, looked at, ended."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab.hooked import IFDOWN, IFUP
from lab.netns import wait_for
from lab.tally import DONE
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lab.netns import Host

STATE: Final = "/run/qemu-netwrap"
ENDING: Final = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
PATIENCE: Final = 180.0
# A real program that inherits descriptors as QEMU does, without QEMU's start and its 30 MB.
_STAND_IN: Final = "#!/bin/sh\nexec sleep infinity\n"
_numbers: Final = itertools.count()
# The state of a machine's networks, as no other place tells it.
_LOOK: Final = """
ip -j -4 address show
printf '\\036'
nft -a list table inet qemu_netwrap 2>/dev/null || :
printf '\\036'
cat /proc/sys/net/ipv4/conf/eth0/forwarding
"""


class Vm:
    """One run, from the launcher's start to QEMU's end."""

    waiter = "/waiter.py"  # what its keeper becomes

    def __init__(self, fleet: Fleet, program: tuple[str, ...], net: tuple[str, ...]) -> None:
        """Start a launcher; that it has become QEMU, `is_up` tells."""
        nics = (word for each in net for word in ("-nic", each))
        self._start(fleet, net, COMMAND, "--", *program, *nics)
        # Before its keeper waits, it has its launcher's words.
        self.early_words = {COMMAND, *program}

    def _start(
        self, fleet: Fleet, net: tuple[str, ...], *argv: str, env: Mapping[str, str] | None = None
    ) -> None:
        """Start a command that has a NIC on each of NET."""
        self.bridges = tuple(BRIDGES[word] for word in net)
        self.taps: tuple[str, ...] = ()
        self._errors = fleet.folder / f"{next(_numbers)}.err"
        with self._errors.open("w", encoding="utf-8") as errors:
            self.process = fleet.host.popen(
                *argv, env=env, stdout=subprocess.DEVNULL, stderr=errors
            )
        self.pid = self.process.pid
        self._proc = Path(f"/proc/{self.pid}")

    @property
    def told(self) -> str:
        """What was said on standard error."""
        return self._errors.read_text("utf-8")

    @property
    def run(self) -> str:
        """The name of the run, as its taps have it."""
        return self.taps[0].removeprefix("qn").rpartition("-")[0]

    def is_over(self) -> bool:
        """Whether the process has ended, be it as launcher or as QEMU."""
        return self.process.poll() is not None

    def is_up(self) -> bool:
        """Whether QEMU, or who stands in for it, is in the launcher's place."""
        if not self.taps and not self.is_over():
            try:
                if (self._proc / "exe").readlink().name in ("sleep", QEMU):
                    infos = [each.read_text("ascii") for each in (self._proc / "fdinfo").iterdir()]
                    names = (each.partition("iff:\t")[2].partition("\n")[0] for each in infos)
                    self.taps = tuple(sorted(filter(None, names)))
                    assert len(self.taps) == len(self.bridges), (self.taps, self.bridges)
            except OSError:  # it dies meanwhile
                return False
        return bool(self.taps)

    def end(self, number: int) -> None:
        """Send QEMU a signal."""
        self.process.send_signal(number)


class Hooked(Vm):
    """A bare QEMU on one network, by our scripts."""

    waiter = "/tap_waiter.py"

    def __init__(self, fleet: Fleet, net: str, *, downscript: bool) -> None:
        """Start QEMU; without DOWNSCRIPT it tells nobody of its end."""
        tap = f"hook{next(_numbers)}"
        scripts = f"script={IFUP},downscript={IFDOWN if downscript else 'no'}"
        nic = ("-nic", f"tap,ifname={tap},{scripts}")
        self._start(fleet, (net,), QEMU, *IDLE, *nic, env={"QEMU_NETWRAP_NETWORK": net})
        self.early_words = set()
        self._tap = tap
        self._fleet = fleet

    @property
    def run(self) -> str:
        """The name of the run: the tap's."""
        return self._tap

    def is_up(self) -> bool:
        """Whether QEMU's script has plugged its tap in, which it does last."""
        if not self.taps and not self.is_over() and self._fleet.master(self._tap):
            self.taps = (self._tap,)
        return bool(self.taps)


BRIDGES: Final = {
    "nat": "qn-nat",
    "host-only": "qn-host-only",
    "tap,br=br-load": "br-load",
    "tap,br=br0": "br0",
}


class Fleet:
    """The runs on one simulated machine."""

    def __init__(self, host: Host, folder: Path) -> None:
        """Take the machine; what launchers say is kept in FOLDER."""
        self.host = host
        self.folder = folder
        self.vms: list[Vm] = []
        self.root = Path(f"/proc/{host.pid}/root")
        self.net = self.root / "sys/class/net"
        self._stand_in = folder / "vm"
        self._stand_in.write_text(_STAND_IN, "utf-8")
        self._stand_in.chmod(0o755)

    def start(
        self, *net: str, real: bool = False, name: str = "", words: tuple[str, ...] = ()
    ) -> Vm:
        """Start a launcher with a NIC for each of NET; do not wait for it."""
        program = (QEMU, *IDLE) if real else (str(self._stand_in),)
        named = ("-name", name) if name else ()
        vm = Vm(self, (*program, *named, *words), net)
        self.vms.append(vm)
        DONE["launches"] += 1
        return vm

    def hook(self, net: str, *, downscript: bool) -> Vm:
        """Start a bare QEMU that calls our scripts, on `nat` or `host-only`; do not wait for it."""
        vm = Hooked(self, net, downscript=downscript)
        self.vms.append(vm)
        DONE["QEMUs with our scripts"] += 1
        return vm

    def wait_up(self, vms: Iterable[Vm]) -> None:
        """Return when all of VMS are up."""
        for vm in vms:
            wait_for(lambda: vm.is_up() or vm.is_over(), f"run {vm.pid} to be up", PATIENCE)  # noqa: B023
            assert vm.taps, f"run {vm.pid} failed: {vm.told}"

    def wait_gone(self, timeout: float = PATIENCE) -> None:
        """Return when nothing of ours is left; no clean-up is asked for."""
        wait_for(lambda: not (self.root / STATE[1:]).exists(), "everything to go", timeout)

    def runs(self) -> set[str]:
        """Return the runs that have left a trace."""
        return {folder.name for folder in self._state("*/runs/*")}

    def ports(self, bridge: str) -> set[str]:
        """Return the ports of a bridge."""
        return {port.name for port in (self.net / bridge / "brif").iterdir()}

    def index(self, bridge: str) -> int:
        """Return the ifindex of a bridge, 0 when it is not there."""
        try:
            return int((self.net / bridge / "ifindex").read_text("ascii"))
        except OSError:  # also when it goes while it is read
            return 0

    def dnsmasqs(self) -> dict[int, str]:
        """Return the machine's dnsmasq processes: pid and command line."""
        found = self.host.processes().items()
        return {pid: words for pid, words in found if words.startswith("dnsmasq")}

    def _state(self, pattern: str) -> list[Path]:
        """Return what of the state folder matches; looks again if a folder goes meanwhile."""
        while True:
            try:
                return [*(self.root / STATE[1:]).glob(pattern)]
            except FileNotFoundError:
                continue

    def given_macs(self) -> dict[str, str]:
        """Return the MACs written down, and for whom."""
        (folder,) = self._state("*/macs")
        return {file.name: file.read_text("ascii") for file in folder.iterdir()}

    def is_there(self, bridge: str) -> bool:
        """Whether a network's bridge or its state is there."""
        return bool(self.index(bridge) or self._state(f"*/networks/{bridge}"))

    def master(self, tap: str) -> str:
        """Return the bridge that a tap is a port of; empty if it is none, or gone."""
        try:
            return (self.net / tap / "master").readlink().name
        except OSError:
            return ""

    def server(self, bridge: str) -> int:
        """Return the process id of a network's dnsmasq, 0 when it has none."""
        for file in self._state(f"*/networks/{bridge}/dnsmasq.pid"):
            try:
                return int(file.read_text("ascii"))
            except FileNotFoundError:
                continue  # it has just gone
        return 0

    def keepers(self, vm: Vm) -> list[int]:
        """Return the keeper of a run, if it lives; of one that is not up, if it can be told."""
        mine = {f"/runs/{vm.run} ", vm.waiter} if vm.taps else vm.early_words
        found = self.host.processes().items() if mine else ()
        return [pid for pid, line in found if pid != vm.pid and all(each in line for each in mine)]

    def look(self) -> Look:
        """Look at addresses, rules and forwarding now."""
        while "interrupted" in (done := self.host.run("sh", "-c", _LOOK)).stderr:
            continue  # ip(8) says so when links came or went while it asked: some may be missing
        return Look(done.stdout)

    def gc(self) -> None:
        """Have what dead runs have left released."""
        done = self.host.run(COMMAND, "gc", check=False, timeout=120)
        assert done.returncode == 0, done.stderr


class Look:
    """What one look at a machine's networks showed."""

    def __init__(self, text: str) -> None:
        """Read the answers."""
        addresses, self.rules, forwarding = text.split("\x1e")
        found: list[dict[str, Any]] = json.loads(addresses)
        self.addresses = {
            link["ifname"]: [each["local"] for each in link["addr_info"]] for link in found if link
        }
        self.is_forwarding = forwarding.strip() == "1"

    def chains(self, bridge: str) -> list[str]:
        """Return a network's chains with the kernel's handles: made anew is not the same."""
        lines = map(str.split, self.rules.splitlines())
        found = (words for words in lines if words[:1] == ["chain"])
        return [f"{words[1]} {words[-1]}" for words in found if words[1].startswith(f"{bridge}_")]


def started(pid: int) -> str:
    """Return a process's start time, empty if it does not live."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if stat[0] in "ZX" else stat[19]
