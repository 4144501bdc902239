"""`plan` refuses what the launch would, in the same words, and its hints go by the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from lab.confined import filtered
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.netns import Host

NO_ADMIN = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
# Without namespaces of its own, which root has networks in otherwise: test_users_containers.
NO_NETWORKS = (*filtered(), *NO_ADMIN)
NO_RAW = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
# A /dev with the usual nodes and nothing else.
NO_VHOST = "mount -t tmpfs dev /mnt; cp -a /dev/null /dev/zero /dev/random /dev/urandom /dev/tty"
NO_VHOST += " /dev/net /mnt; mount --rbind /mnt /dev"
FULL = "mount -t tmpfs -o size=4k,nr_inodes=9 run /run; dd if=/dev/zero of=/run/x bs=4k count=1"


class Refused(NamedTuple):
    """A launch that fails, on a machine of which SETUP, in a mount namespace, is the reason."""

    words: str
    says: str
    hint: str
    setup: str = ":"
    before: tuple[str, ...] = ()


CASES = {
    "taken ifname": Refused("nat,ifname=t0", "tap t0: the name is taken", "another ifname="),
    "bridge of the command": Refused(
        "tap,br=br7,ifname=br7", "ifname br7 is a bridge's name in this command", "another ifname="
    ),
    "bridge of ours": Refused("nat,ifname=qn-nat", "qn-nat is a bridge's name", "another ifname="),
    "no vhost-net": Refused(
        "nat,vhost=on", "vhost=on: /dev/vhost-net: ", "leave out vhost=on; the node is missing",
        NO_VHOST,
    ),
    "no tun": Refused(
        "nat", "taps: /dev/net/tun: No such file", "the node is missing",
        "mount -t tmpfs net /dev/net",
    ),
    "another device": Refused(
        "nat", "taps: /dev/net/tun: Inappropriate ioctl", "rm /dev/net/tun && mknod",
        "mount --bind /dev/null /dev/net/tun",
    ),
    "read-only /run": Refused(
        "nat", "/run/qemu-netwrap: Read-only file system", "/run is read-only, and state",
        "mount -t tmpfs -o ro run /run",
    ),
    "full /run": Refused(
        "nat", "No space left on device", "/run is full: make room there: df /run; df -i /run", FULL
    ),
    "read-only /proc/sys": Refused(
        "bridge,br=br7,uplink=e1", "/proc/sys/net/ipv6/conf/br7/accept_ra: Read-only file system",
        "/proc/sys is read-only: ",
        "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys",
    ),
    "port of the DHCP server": Refused(
        "nat,hostfwd=udp:127.0.0.1:67-:67", "own DHCP server needs udp port 67", "another port"
    ),
    "port of the DHCPv6 server": Refused(
        "nat,hostfwd=udp:[::]:547-:547", "own DHCP server needs udp port 547", "another port"
    ),
    "without CAP_NET_ADMIN": Refused(
        "nat", "Operation not permitted", "root without CAP_NET_ADMIN", before=NO_NETWORKS
    ),
}  # fmt: skip


def in_namespace(case: Refused, *words: str) -> tuple[str, ...]:
    script = f'{{ {case.setup}; }} >/dev/null 2>&1; exec "$@"'
    return ("unshare", "-m", "sh", "-c", script, "sh", *case.before, COMMAND, *words)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_plan_refuses_what_the_launch_refuses(host: Host, watch: Watch, case: Refused) -> None:
    host.sh("ip link add t0 type bridge; ip link add e1 type veth peer name e2")
    watch.baseline(host)
    words = (QEMU, *IDLE, "-nic", case.words)
    launched = host.run(*in_namespace(case, "-q", "--", *words), check=False)
    planned = host.run(*in_namespace(case, "plan", *words), check=False)
    for done in (launched, planned):
        said, _, hint = done.stderr.partition("\n")
        assert (done.returncode, done.stdout) == (125, "")
        assert case.says in said
        assert case.hint in hint
    host.sh("ip link del t0; ip link del e1")
    watch.baseline(host)


def test_a_privilege_that_dnsmasq_lacks_is_named(host: Host) -> None:
    words = (COMMAND, "--", QEMU, *IDLE, "-nic", "nat")
    done = host.run(*NO_RAW, *words, check=False)
    assert done.returncode == 125
    assert "hint: root without CAP_NET_RAW" in done.stderr


@pytest.mark.parametrize("before", [NO_NETWORKS, NO_RAW])
def test_doctor_and_launch_name_one_remedy(host: Host, before: tuple[str, ...]) -> None:
    doctor = host.run(*before, COMMAND, "doctor", check=False).stdout
    lines = doctor.splitlines()
    at = next(number for number, line in enumerate(lines) if "privilege" in line)
    done = host.run(*before, COMMAND, "--", QEMU, *IDLE, "-nic", "nat", check=False)
    assert lines[at + 1].removeprefix("  > ") in done.stderr
    assert "sudo" not in done.stderr
