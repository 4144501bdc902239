"""What QEMU stumbles over in the user's own taps and helpers is said before; QEMU says its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lab import qemus
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap

if TYPE_CHECKING:
    import subprocess

    from lab.fixtures import Watch
    from lab.netns import Host

# QEMU 7 is killed by the filter (SIGSYS); QEMU 10 is told by fork that it may not.
REFUSED_SPAWN = -31 if qemus.installed() < 10 else 1
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
HELPER = "/usr/lib/qemu/qemu-bridge-helper"
ACL = "/etc/qemu/bridge.conf"


@dataclass(frozen=True)
class Case:
    """Words with which QEMU fails, and what is said before it does."""

    words: tuple[str, ...]
    says: str
    setup: str = ":"
    undo: str = ":"
    acl: str = ""
    user: tuple[str, ...] = ()
    status: int = 1


TAP = ("-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no")
BRIDGE = "ip link add br0 type bridge"
NO_BRIDGE = "ip link del br0"
GONE = "ip link del tap0"
PERSISTENT = "ip tuntap add tap0 mode tap"
NODE = "mknod -m 666 /run/tun c 10 200"
HELPED = ("-netdev", f"bridge,id=n,helper={HELPER}")

CASES = {
    "no tap": Case(TAP, "tap0 is there, and is no tap", "ip link add tap0 type bridge", GONE),
    "a tun": Case(
        TAP, "tap0 is there, and is no tap", "ip tuntap add tap0 mode tun", GONE
    ),
    "multi_queue": Case(
        TAP, "tap0 was made with multi_queue: give it queues=2 or more",
        "ip tuntap add tap0 mode tap multi_queue", GONE,
    ),
    "no multi_queue": Case(
        ("-netdev", f"{TAP[1]},queues=2"), "tap0 was made without multi_queue",
        "ip tuntap add tap0 mode tap", GONE,
    ),
    "somebody else's tap": Case(
        TAP, "tap0 is of user 1: make it for this one: sudo ip tuntap add tap0 mode tap user 65534",
        f"ip tuntap add tap0 mode tap user 1; {NODE}; mount --bind /run/tun /dev/net/tun",
        f"umount /dev/net/tun; rm /run/tun; {GONE}", user=NOBODY,
    ),
    "no acl file": Case(
        HELPED, f"{ACL} is missing: echo 'allow br0' | sudo tee -a {ACL}", BRIDGE, NO_BRIDGE
    ),
    "bridge not allowed": Case(
        HELPED, f"{ACL} does not allow br0: echo 'allow br0' | sudo tee -a {ACL}",
        BRIDGE, NO_BRIDGE, acl="allow br1\n",
    ),
    "bridge denied": Case(
        HELPED, f"{ACL} denies br0", BRIDGE, NO_BRIDGE, acl="deny br0\nallow all\n"
    ),
    "bridge denied by a file that is included": Case(
        HELPED, f"{ACL} denies br0", BRIDGE, NO_BRIDGE,
        acl=f"allow all\ninclude {ACL}.more\n",
    ),
    "no bridge for the helper": Case(HELPED, "bridge br0 is not there", acl="allow br0\n"),
    "helper without privilege": Case(
        HELPED, f"{HELPER} is not setuid, so it cannot make a tap: sudo chmod u+s {HELPER}",
        BRIDGE, NO_BRIDGE, acl="allow br0\n", user=NOBODY,
    ),
    "helper that gains nothing": Case(
        HELPED, f"{HELPER} gets no privilege here, setuid or not (no_new_privs",
        BRIDGE, NO_BRIDGE, acl="allow br0\n", user=("setpriv", "--no-new-privs", *NOBODY[1:]),
    ),
    "no script": Case(
        ("-netdev", "tap,id=n,script=/nosuch/ifup,downscript=no"),
        "script /nosuch/ifup is not there",
    ),
    "no tun for a tap with a script": Case(
        ("-netdev", "tap,id=n,script=/bin/true,downscript=no"),
        "/dev/net/tun: the node is missing", "mount -t tmpfs net /dev/net", "umount /dev/net",
    ),
    "no root for a tap with a script": Case(
        ("-netdev", "tap,id=n,script=/bin/true,downscript=no"),
        "only root makes a tap: sudo ip tuntap add tap0 mode tap user 65534",
        f"{NODE}; mount --bind /run/tun /dev/net/tun", "umount /dev/net/tun; rm /run/tun",
        user=NOBODY,
    ),
    "no default script": Case(
        ("-netdev", "tap,id=n,ifname=tap0,downscript=no"),
        "script /etc/qemu-ifup is not there", f"rm -f /etc/qemu-ifup; {PERSISTENT}", GONE,
    ),
    "sandbox and script": Case(
        ("-sandbox", "on,spawn=deny", "-netdev", "tap,id=n,script=/bin/true,downscript=no"),
        "-sandbox spawn=deny forbids scripts and helpers", status=REFUSED_SPAWN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_foretold(host: Host, watch: Watch, case: Case) -> None:
    host.write(f"{ACL}.more", "deny br0\n", mode=0o644)
    if case.acl:
        host.write(ACL, case.acl, mode=0o644)
    host.run("sh", "-euc", case.setup)
    watch.baseline(host)
    words = (QEMU, *IDLE, *case.words)
    done = host.run(*case.user, COMMAND, "--", *words, check=False, cwd="/")
    bare = host.run(*case.user, *words, check=False, cwd="/")
    assert done.returncode == bare.returncode == case.status
    first, _, rest = done.stderr.partition("\n")
    assert first.startswith(f"qemu-netwrap: {case.words[-2]} {case.words[-1]}: {case.says}")
    assert rest == bare.stderr
    host.run("sh", "-euc", case.undo)
    watch.baseline(host)


def test_a_descriptor_with_vhost(host: Host, watch: Watch) -> None:
    """QEMU 7 aborts where it cannot open /dev/vhost-net for a tap that it gets by descriptor."""
    host.sh(f"{PERSISTENT}; mount -t tmpfs dev /mnt; cp -a /dev/null /dev/zero /dev/urandom /mnt")
    watch.baseline(host)
    attach = "import fcntl,os,struct,sys;f=os.open('/dev/net/tun',2);os.set_inheritable(f,True);"
    attach += "fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'tap0',0x1002));os.dup2(f,9);"
    attach += "os.set_inheritable(9,True);os.execvp(sys.argv[1],sys.argv[1:])"
    hidden = 'mount --rbind /mnt /dev; exec "$@"'
    words = (QEMU, *IDLE, "-netdev", "tap,id=n,fd=9,vhost=on")
    done = host.run(
        *("python3", "-c", attach, "unshare", "-m", "sh", "-c", hidden, "sh", COMMAND, "--"),
        *words, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith(
        "qemu-netwrap: -netdev tap,id=n,fd=9,vhost=on: vhost=on: /dev/vhost-net cannot be opened:"
    )
    host.sh(f"umount /mnt; {GONE}")
    watch.baseline(host)


def test_br_beside_a_tap_that_is_there(host: Host, watch: Watch) -> None:
    host.sh(PERSISTENT)
    watch.baseline(host)
    words = ("-netdev", f"{TAP[1]},br=br0,queues=2")
    done = netwrap(host, "--", QEMU, *IDLE, *words)
    assert "QEMU ignores br= without helper=" in done.stderr
    assert "(ip link set tap0 master br0)" in done.stderr
    host.sh(GONE)
    watch.baseline(host)


def test_a_macvtap_by_its_name(host: Host, watch: Watch) -> None:
    host.sh("ip link add e1 type veth peer name e2; ip link add link e1 name tap0 type macvtap")
    watch.baseline(host)
    program = QEMU if qemus.installed() < 10 else str(qemus.recent())
    done = host.run("timeout", "20", COMMAND, "--", program, *IDLE, *TAP, check=False)
    told = "tap0 is a macvtap, which QEMU opens by its name since 10.0" in done.stderr
    assert told == (qemus.installed() < 10)
    host.sh("ip link del e1")
    watch.baseline(host)


def running(host: Host, *words: str) -> subprocess.Popen[str]:
    """Start something that becomes QEMU; return when it has its tap."""
    child = host.popen(*words)
    wait_for(
        lambda: (
            host.run("cat", "/sys/class/net/tap0/carrier", check=False).stdout == "1\n"
            or child.poll() is not None
        ),
        "QEMU on tap0",
        60,
    )
    return child


def test_who_has_the_tap_is_named(host: Host, watch: Watch) -> None:
    host.run("sh", "-euc", "ip tuntap add tap0 mode tap; ip link set tap0 up")
    watch.baseline(host)
    child = running(host, QEMU, *IDLE, *TAP)
    done = netwrap(host, "--", QEMU, *IDLE, *TAP)
    assert done.returncode == 1
    assert f"tap0 is in use by qemu-system-x86 (pid {child.pid})" in done.stderr
    assert "Device or resource busy" in done.stderr
    assert "qemu-netwrap" not in netwrap(host, "-q", "--", QEMU, *IDLE, *TAP).stderr
    child.kill()
    child.wait()
    host.run("ip", "link", "del", "tap0")
    watch.baseline(host)


def test_nothing_is_said_of_what_works(host: Host, watch: Watch) -> None:
    setup = "ip tuntap add tap0 mode tap; ip link set tap0 up; ip link add br0 type bridge"
    host.write(ACL, "allow br0\n", mode=0o644)
    host.run("sh", "-euc", setup)
    watch.baseline(host)
    child = running(host, COMMAND, "--", QEMU, *IDLE, *TAP, "-nic", f"bridge,helper={HELPER}")
    assert child.poll() is None
    child.kill()
    child.wait()
    printed = netwrap(host, "--", "/bin/echo", *TAP, "-netdev", f"bridge,id=m,helper={HELPER}")
    assert printed.stderr == ""
    host.run("sh", "-euc", "ip link del tap0; ip link del br0")
    watch.baseline(host)
