"""The lab itself: machines are apart from each other, and the leak detector sees every leak."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.guest import Guest
from lab.leaks import snapshot, wait_same
from lab.netns import WEB_ADDRESS, WEB_BODY, CommandFailedError, Host, internet, link, wait_for

if TYPE_CHECKING:
    from lab.fixtures import HostFactory, Watch
    from lab.netns import Uplinked

LEAKS = {
    "link br0": "ip link add br0 type bridge",
    "address lo 192.0.2.1/32": "ip address add 192.0.2.1/32 dev lo",
    "route type=unicast dst=192.0.2.0/24": "ip route add 192.0.2.0/24 dev lo",
    "route type=unreachable dst=192.0.2.0/24 table=77": (
        "ip route add unreachable 192.0.2.0/24 table 77"
    ),
    "route type=unicast dst=2001:db8:1::/64": "ip -6 route add 2001:db8:1::/64 dev lo",
    "rule4 ": "ip rule add from 192.0.2.1 lookup 77",
    "rule6 ": "ip -6 rule add from 2001:db8::1 lookup 77",
    "neighbour ": "ip neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 nud permanent dev lo",
    "link lo: mtu: '65536' -> '1500'": "ip link set lo mtu 1500",
    "link lo: flags": "ip link set lo down",
    "sysctl net/ipv4/ip_forward: value: '0' -> '1'": "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "sysctl net/ipv6/conf/lo/accept_ra": "echo 2 >/proc/sys/net/ipv6/conf/lo/accept_ra",
    "nft table inet left {": "nft add table inet left",
    "nft table ip left { chain c { counter accept": (
        "nft add table ip left; nft add chain ip left c; nft add rule ip left c counter accept"
    ),
    "qdisc ": "tc qdisc add dev lo root pfifo",
    "filter ": "tc qdisc add dev lo clsact; tc filter add dev lo ingress u32 match u32 0 0",
    "file /run/left (type='file'": "echo left >/run/left",
    "file /run/left (type='folder'": "mkdir /run/left",
    "file /run/left (type='fifo'": "mkfifo /run/left",
    "file /etc/left": "echo left >/etc/left",
    "file /etc/passwd": "echo left >>/etc/passwd",
    "file /etc/group (type='device')": "rm /etc/group",
    "mount ": "mount -t tmpfs left /mnt",
}


@pytest.mark.parametrize(("expected", "leak"), LEAKS.items(), ids=LEAKS.values())
def test_detector_sees(host: Host, watch: Watch, expected: str, leak: str) -> None:
    """Every kind of leak is reported by its name."""
    before = snapshot(host)
    host.run("sh", "-euc", leak)
    lines = before.diff(snapshot(host))
    assert any(expected in line for line in lines), lines
    with pytest.raises(AssertionError, match="not as it was before"):
        wait_same(host, before, timeout=0.0)
    watch.baseline(host)


def test_detector_sees_a_process_until_it_ends(host: Host) -> None:
    """A process is a leak however it was detached; wait_same waits for its end."""
    before = snapshot(host)
    started = host.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!")
    wait_for(lambda: "sleep 600" in host.processes().values(), "the process")
    assert any("sleep 600" in line for line in before.diff(snapshot(host)))
    threading.Timer(0.3, os.kill, (int(started.stdout), signal.SIGKILL)).start()
    wait_same(host, before)


def test_detector_sees_an_interface_made_anew(host: Host, watch: Watch) -> None:
    """An interface that was removed and made again is not the same."""
    host.run("ip", "link", "add", "d0", "address", "02:00:00:00:00:01", "type", "bridge")
    watch.baseline(host)
    before = snapshot(host)
    host.run("ip", "link", "del", "d0")
    host.run("ip", "link", "add", "d0", "address", "02:00:00:00:00:01", "type", "bridge")
    assert any("link d0: ifindex" in line for line in before.diff(snapshot(host)))
    watch.baseline(host)


def test_detector_is_quiet_on_an_idle_machine(uplinked: Uplinked) -> None:
    """Nothing is seen where nothing happens, traffic and counters included."""
    before = snapshot(uplinked.host)
    for _ in range(5):
        uplinked.host.run("busybox", "wget", "-qO-", f"http://{WEB_ADDRESS}/")
        assert before.diff(snapshot(uplinked.host)) == []


def test_detector_knows_the_files_of_the_test(host: Host) -> None:
    """A file that the test wrote is no leak, what others make of it is."""
    before = snapshot(host)
    host.write("/etc/new/file", "mine\n")
    host.write("/run/new/file", "mine\n")
    assert before.diff(snapshot(host)) == []
    host.run("sh", "-c", "echo other >/etc/new/file; rm /run/new/file")
    lines = before.diff(snapshot(host))
    assert any("/etc/new/file" in line and "changed since" in line for line in lines), lines
    assert any("/run/new/file" in line and "gone" in line for line in lines), lines
    host.write("/etc/new/file", "mine\n")
    host.write("/run/new/file", "mine\n")


def test_written_files_are_private(host: Host) -> None:
    """Only the machine sees what is written, wherever it is."""
    for path in ("/etc/resolv.conf", "/usr/lib/qemu-netwrap-lab/x", "/var/run/x"):
        host.write(path, "mine\n", mode=0o755)
        assert host.read(path) == "mine\n"
        assert host.run("stat", "-c", "%a", path).stdout == "755\n"
    assert Path("/etc/resolv.conf").read_text(encoding="utf-8") != "mine\n"
    assert not Path("/usr/lib/qemu-netwrap-lab").exists()
    assert not Path("/var/run/x").exists()


@pytest.mark.parametrize("path", ["/dev/x", "/proc/x", "/x", "x", "/run/../x"])
def test_write_refuses_what_would_be_seen_outside(host: Host, path: str) -> None:
    """What cannot be private is not written at all."""
    with pytest.raises(ValueError, match=r"whole machine|absolute path"):
        host.write(path, "mine\n")


def test_run(host: Host, tmp_path: Path) -> None:
    """Commands get their input, environment and folder, and failures tell all."""
    words = 'cat; echo "$GREETING"; pwd; hostname; ls /sys/class/net; exit 3'
    done = host.run(
        *("sh", "-c", words),
        check=False,
        input="in\n",
        env={"GREETING": "hello"},
        cwd=tmp_path,
    )
    assert done.stdout == f"in\nhello\n{tmp_path}\nhost\nlo\n"
    assert done.returncode == 3
    with pytest.raises(CommandFailedError, match=r"(?s)ended with 4.*to stdout.*to stderr"):
        host.run("sh", "-c", "echo to stdout; echo to stderr >&2; exit 4")


def test_sysctls_are_private(host: Host) -> None:
    """A sysctl of the network is set in this machine alone; others are refused."""
    outside = Path("/proc/sys/net/ipv4/conf/lo/proxy_arp").read_text(encoding="ascii")
    host.set_sysctl("net.ipv4.conf.lo.proxy_arp", 1)
    assert host.sysctl("net/ipv4/conf/lo/proxy_arp") == "1"
    assert Path("/proc/sys/net/ipv4/conf/lo/proxy_arp").read_text(encoding="ascii") == outside
    host.set_sysctl("net.ipv4.conf.lo.proxy_arp", 0)
    with pytest.raises(ValueError, match="whole machine"):
        host.set_sysctl("kernel.pid_max", 1)


def test_close_kills_what_is_left(lab: None) -> None:
    """Not even a daemon survives its machine."""
    with Host("short") as short:
        short.run("sh", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
        child = short.popen("sleep", "600")
        both = ["sleep 600", "sleep 600"]
        wait_for(lambda: list(short.processes().values()) == both, "both to be there")
        left = short.processes()
    assert child.returncode == -9
    assert all(not _lives(pid) for pid in left)


def test_machine_ends_with_the_tests(lab: None) -> None:
    """A killed test run leaves no machine and no process behind."""
    script = (
        "import os\nfrom lab.netns import Host\nhost = Host('orphan')\n"
        "child = host.popen('sleep', '600')\nprint(host.pid, child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        ("/usr/bin/python3", "-c", script),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    wait_for(lambda: not any(_lives(pid) for pid in pids), "the end of both")


def test_link_joins_machines(host_factory: HostFactory, watch: Watch) -> None:
    """A cable carries traffic at once, IPv6 included."""
    a, b = host_factory("a"), host_factory("b")
    link(a, "eth0", b, "eth7")
    b.run("ip", "address", "add", "2001:db8::b/64", "dev", "eth7")
    a.run("ip", "address", "add", "2001:db8::a/64", "dev", "eth0")
    a.run("busybox", "ping", "-c1", "-W60", "2001:db8::b")
    watch.baseline(a, b)


def test_internet(uplinked: Uplinked) -> None:
    """The name server and the web server answer, and the resolver is the machine's own."""
    page = uplinked.host.run("busybox", "wget", "-qO-", "http://www.example.test/")
    assert page.stdout == WEB_BODY


def test_internet_knows_no_private_address(uplinked: Uplinked, watch: Watch) -> None:
    """Traffic from an address that is not masqueraded gets no answer."""
    uplinked.host.run("ip", "address", "add", "10.1.1.1/32", "dev", "lo")
    ping = ("busybox", "ping", "-c1", "-W1")
    uplinked.host.run("busybox", "ping", "-c1", "-W60", WEB_ADDRESS)
    assert uplinked.host.run(*ping, "-I", "10.1.1.1", WEB_ADDRESS, check=False).returncode
    watch.baseline(uplinked.host)


def test_internet_with_ipv6(lab: None) -> None:
    """With IPv6 the same page is there under another name."""
    with internet(ipv6=True) as both:
        page = both.host.run("busybox", "wget", "-qO-", "http://www6.example.test/")
    assert page.stdout == WEB_BODY


def test_guest_on_slirp(host: Host) -> None:
    """A bare QEMU's own user network gives a lease, and the guest tells of it."""
    job = 'await_go; report heard "$go"; dhcp eth0'
    with Guest(host, (), ("-nic", "user,model=virtio"), job, name="slirp") as guest:
        guest.wait_report("waiting")
        guest.send("hello guest")
        assert guest.wait_report("heard") == "hello guest"
        assert guest.wait_report("lease") == "eth0 10.0.2.15/24 10.0.2.2 10.0.2.3 -"
        assert guest.wait() == 0
        assert guest.reports["status"] == "0"
        assert guest.stderr == ""


def test_guest_behind_a_bridge_made_by_hand(uplinked: Uplinked) -> None:
    """DHCP, DNS and HTTP through a tap, a bridge and masquerading, and no trace afterwards."""
    host = uplinked.host
    before = snapshot(host)
    host.run("sh", "-euc", _BRIDGE)
    dnsmasq = host.popen(*_DNSMASQ)
    host.wait_listening("udp", 67)
    job = """
        dhcp eth0
        report page "$(try 5 wget -qO- http://www.example.test/)"
        report search "$(grep search /etc/resolv.conf)"
    """
    tap = ("-nic", "tap,model=virtio,ifname=tap0,script=no,downscript=no")
    with Guest(host, (), tap, job) as guest:
        assert guest.wait_report("lease").startswith("eth0 192.168.77.")
        assert guest.wait_report("page") == WEB_BODY.strip()
        assert guest.wait_report("search") == "search lab.test"
        assert guest.wait() == 0
    dnsmasq.kill()
    dnsmasq.wait()
    host.run("sh", "-euc", _NO_BRIDGE)
    wait_same(host, before)


def test_guest_that_fails_tells_all(host: Host) -> None:
    """What the guest said and what QEMU said are in the error."""
    with (
        Guest(host, (), ("-nic", "nonsense"), "") as guest,
        pytest.raises(AssertionError, match=r"(?s)ended with 1.*nonsense"),
    ):
        guest.wait_report("booted")


def test_a_foreign_namespace_is_no_leak(lab: None, tmp_path: Path) -> None:
    bound = tmp_path / "theirs"
    bound.touch()
    subprocess.run(("mount", "--bind", "/proc/self/ns/net", bound), check=True)
    try:
        with Host("host") as machine:
            assert machine.foreign_mounts
            before = snapshot(machine)
            subprocess.run(("umount", bound), check=True)
            bound.unlink()
            wait_same(machine, before, timeout=0)
            # The machine's own count.
            machine.sh("touch /run/ours; mount --bind /proc/self/ns/net /run/ours")
            found = "\n".join(before.diff(snapshot(machine)))
            assert "mount on=/run/ours" in found
    finally:
        if bound.exists():
            subprocess.run(("umount", bound), check=True)


_BRIDGE = """
ip link add br0 type bridge forward_delay 0
ip address add 192.168.77.1/24 dev br0
ip link set br0 up
ip tuntap add tap0 mode tap
ip link set tap0 master br0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nft add table ip lab
nft 'add chain ip lab post { type nat hook postrouting priority 100; }'
nft add rule ip lab post ip saddr 192.168.77.0/24 oifname eth0 masquerade
"""
_NO_BRIDGE = """
nft delete table ip lab
echo 0 >/proc/sys/net/ipv4/ip_forward
ip link del tap0
ip link del br0
"""
_DNSMASQ = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="),
    *("--bind-interfaces", "--interface=br0", "--no-ping", "--leasefile-ro"),
    *("--dhcp-range=192.168.77.10,192.168.77.20", "--domain=lab.test"),
    *("--dhcp-option=option:domain-search,lab.test", "--dhcp-authoritative"),
)


def _lives(pid: int) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
