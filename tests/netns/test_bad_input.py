"""Whatever is wrong: one line that says what and where, a hint, the status, and nothing is left.

The second half holds what QEMU itself refuses against bare QEMU: the same words, the same status.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fidelity.running import keeper_of
from lab.confined import filtered
from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU, netwrap, unhurried, wait_lookout

if TYPE_CHECKING:
    from lab.fixtures import Watch
    from lab.leaks import Snapshot
    from lab.netns import Host

CONFIG = "/etc/qemu-netwrap/config.toml"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

pytestmark = pytest.mark.skipif(not shutil.which(QEMU), reason=f"there is no {QEMU}")


@dataclass(frozen=True)
class Case:
    """A launch that must fail. `setup` is shell in a mount namespace of the launch's own."""

    words: tuple[str, ...]  # QEMU's, its program and IDLE aside
    says: tuple[str, ...]  # all of it in the first line
    config: str = ""
    setup: str = ":"
    user: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    status: int = 125
    program: str = QEMU
    hint: str = ""
    prepare: str = ":"  # shell on the machine, before it is looked at
    undo: str = ":"


def nic(text: str, *says: str, **more: str) -> Case:
    return Case(("-nic", text), (f"-nic {text}: ", *says), **more)  # type: ignore[arg-type]


def toml(text: str, line: int, *says: str) -> Case:
    return Case(("-nic", "nat"), (f"{CONFIG}:{line}: ", *says), config=text)


def hidden(program: str) -> str:
    """Return shell that hides a program wherever it is found."""
    return (
        f"for each in /usr/local/sbin /usr/sbin /usr/bin /sbin /bin; do"
        f' [ ! -e "$each/{program}" ] || mount --bind /dev/null "$each/{program}"; done'
    )


# A /dev with the usual nodes and nothing else.
BARE_DEV = """
mount -t tmpfs dev /mnt
for each in null zero full random urandom tty; do
    touch "/mnt/$each"
    mount --bind "/dev/$each" "/mnt/$each"
done
mount --rbind /mnt /dev
"""
NO_TUN = "mkdir -p /dev/net; mount -t tmpfs net /dev/net"
LAN = '[networks.lan]\nmode = "nat"\n'

CASES = {
    "unknown network": nic("tap,network=foo", "there is no network 'foo'", hint="nat"),
    "network near to another": nic(
        "tap,network=hots-only", "no network 'hots-only'", hint="did you mean host-only?"
    ),
    "TOML: key near to another": Case(
        ("-nic", "nat"), (f"{CONFIG}:3: ", "unknown key"), config=f"{LAN}subnt = '1'\n",
        hint="did you mean subnet?",
    ),
    "command near to another": Case((), ("pz",), program="pz", status=127, hint="did you mean ps?"),
    "option near to another": Case(
        (), ("--netwrok: unknown",), options=("--netwrok", "x"), hint="did you mean --network?"
    ),
    "unknown --network": Case(
        ("-nic", "tap"), ("--network foo: ", "no network 'foo'"), options=("--network", "foo")
    ),
    "TOML: unknown key": toml(f"{LAN}brdge = 'x'\n", 3, "networks.lan.brdge", "unknown key"),
    "TOML: unknown key at the top": toml(f"\ndefualt = 'lan'\n{LAN}", 2, "defualt", "unknown"),
    "TOML: unknown table": toml(f"{LAN}\n[network.x]\nmode = 'nat'\n", 4, "network", "unknown"),
    "TOML: wrong type": toml(f"{LAN}stp = 'yes'\n", 3, "networks.lan.stp", "true or false"),
    "TOML: wrong type of a name": toml(f"{LAN}bridge = 7\n", 3, "networks.lan.bridge", "string"),
    "TOML: default of a wrong type": toml(f"default = ['lan']\n{LAN}", 1, "default", "string"),
    "TOML: default is no network": toml(f"default = 'x'\n{LAN}", 1, "default", "'x'"),
    "TOML: networks is no table": toml("networks = 5\n", 1, "networks", "expected tables"),
    "TOML: unknown mode": toml("[networks.a]\nmode = 'nta'\n", 2, "networks.a.mode", "'nta'"),
    "TOML: no mode": toml("[networks.a]\nstp = true\n", 1, "networks.a.mode", "missing"),
    "TOML: syntax": toml(f"{LAN}subnet = 10.0.0.0/24\n", 3),
    "TOML: text has no end": toml("default = 'lan\n", 2),
    "TOML: ends too early": toml(f"{LAN}dns = [\n", 4),
    "TOML: key twice": toml(f"{LAN}mode = 'nat'\n", 3),
    "TOML: not UTF-8": toml("default = '\udcff'\n", 1),
    "TOML: bridge name too long": toml(
        f"{LAN}bridge = 'sixteen-bytes-xx'\n", 3, "networks.lan.bridge", "over 15 bytes"
    ),
    "TOML: a subnet too small": toml(
        f"{LAN}subnet = '10.0.0.0/30'\n", 3, "networks.lan.subnet", "too small"
    ),
    "TOML: a subnet with host bits": toml(
        f"{LAN}subnet = '10.0.0.1/24'\n", 3, "networks.lan.subnet", "10.0.0.0/24"
    ),
    "TOML: no subnet": toml(f"{LAN}subnet = '10.0.0'\n", 3, "networks.lan.subnet"),
    "TOML: one bridge twice": toml(
        f"{LAN}bridge = 'b'\n[networks.y]\nmode = 'bridge'\nbridge = 'b'\n", 6, "networks.y", "lan"
    ),
    "ifname cut inside a letter": nic(
        "nat,ifname=\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", "ifname", "character"
    ),
    "ifname that is no text": Case(("-nic", "nat,ifname=\udcff"), ("-nic nat,ifname=", "ifname")),
    "ifname with a slash": nic("nat,ifname=a/b", "ifname", "character"),
    "ifname twice": Case(
        ("-nic", "nat,ifname=t0", "-nic", "nat,ifname=t0"), ("-nic nat,ifname=t0: ", "taken")
    ),
    "br too long": nic("bridge,br=sixteen-bytes-xx", "sixteen-bytes-xx", "over 15 bytes"),
    "br too long in bytes, not letters": nic(
        "bridge,br=\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", "over 15 bytes"
    ),
    "br that is no text": Case(("-nic", "bridge,br=\udcff"), ("-nic bridge,br=", "bridge name")),
    "subnet of a host's route": Case(
        ("-nic", "tap,network=lan"),
        ("network lan", "10.5.0.0/24", "10.0.0.0/13 dev up0 table 77"),
        config=f"{LAN}subnet = '10.5.0.0/24'\n",
        prepare="ip link add up0 type bridge; ip link set up0 up;"
        " ip route add 10.0.0.0/13 dev up0 table 77",
        undo="ip link del up0",
    ),
    "dnsmasq missing": Case(
        ("-nic", "nat"), ("dnsmasq",), setup=hidden("dnsmasq"), hint="dnsmasq-base"
    ),
    "nft missing": Case(("-nic", "nat"), ("nft",), setup=hidden("nft"), hint="nftables"),
    "no privilege": Case(
        ("-nic", "bridge,br=br7,uplink=eth0"), ("root's",), user=NOBODY, hint="sudo"
    ),
    "no privilege, but a state folder": Case(
        ("-nic", "bridge,br=br7,uplink=eth0"), ("root's",), user=NOBODY, hint="sudo",
        prepare="mkdir -m 711 /run/qemu-netwrap",
        undo="rmdir /run/qemu-netwrap",
    ),
    "root without CAP_NET_ADMIN": Case(
        ("-nic", "nat"), ("a network namespace", "ermi"), hint="CAP_NET_ADMIN",
        user=(*filtered(), "setpriv", "--bounding-set=-net_admin"),
    ),
    "/dev/net/tun missing": Case(
        ("-nic", "nat"), ("/dev/net/tun", "No such file"), setup=NO_TUN, hint="modprobe tun"
    ),
    "/dev/net/tun not openable": Case(
        ("-nic", "nat"), ("/dev/net/tun", "denied"), hint="root",
        setup=f"{NO_TUN}; mknod -m 0 /dev/net/tun c 10 200; chown 1:1 /dev/net/tun",
        user=("setpriv", "--bounding-set=-dac_override,-dac_read_search"),
    ),
    "/dev/net/tun is something else": Case(
        ("-nic", "nat"), ("/dev/net/tun",), setup="mount --bind /dev/null /dev/net/tun",
    ),
    "/dev/vhost-net missing": Case(
        ("-nic", "nat,vhost=on"), ("vhost=on", "/dev/vhost-net"), hint="modprobe vhost_net",
        setup=f"{BARE_DEV}\nmkdir /dev/net; mknod /dev/net/tun c 10 200",
    ),
    "QEMU not there": Case(
        ("-nic", "nat"), ("qemu-nosuch",), program="qemu-nosuch", status=127, hint="apt install"
    ),
    "QEMU not there, by its path": Case(
        ("-nic", "nat"), ("/nowhere/qemu",), program="/nowhere/qemu", status=127
    ),
    "QEMU not executable": Case(
        ("-nic", "nat"), ("/etc/passwd",), program="/etc/passwd", status=126
    ),
    "QEMU is a folder": Case(("-nic", "nat"), ("/etc",), program="/etc", status=126),
    "QEMU is a text": Case(
        ("-nic", "nat"), ("/run/text",), program="/run/text", status=126,
        prepare="echo hello >/run/text; chmod +x /run/text", undo="rm /run/text",
    ),
    "QEMU of another interpreter": Case(
        ("-nic", "nat"), ("/run/text",), program="/run/text", status=126,
        prepare="echo '#!/nowhere/sh' >/run/text; chmod +x /run/text", undo="rm /run/text",
    ),
    "nat: unknown key": nic("nat,foo=1", "Invalid parameter 'foo'"),
    "nat: helper": nic("nat,helper=/bin/true", "helper"),
    "nat: fd": nic("nat,fd=3", "fd"),
    "nat: no number": nic("nat,queues=many", "Parameter 'queues' expects"),
    "nat: no boolean": nic("nat,vhost=perhaps", "Parameter 'vhost' expects 'on' or 'off'"),
    "nat: no id": Case(
        ("-netdev", "nat"), ("-netdev nat: ", "Parameter 'id' is missing"), hint="id="
    ),
    "nat: no such id": Case(
        ("-netdev", "nat,id=1x"), ("-netdev nat,id=1x: ", "'id' expects an identifier")
    ),
    "nat: duplicate id": Case(
        ("-netdev", "nat,id=a", "-netdev", "user,id=a"),
        ("-netdev user,id=a: ", "Duplicate ID 'a' for netdev"),
    ),
    "nat: unknown key, in JSON": Case(
        ("-netdev", '{"type":"nat","id":"a","foo":1}'), ("Invalid parameter 'foo'",)
    ),
    "network= on slirp": nic("user,network=nat", "Invalid parameter 'network'"),
    "network= beside script=": nic("tap,network=nat,script=/bin/true", "script="),
    "a wrong tap beside a nat": Case(
        ("-nic", "nat", "-nic", "tap,foo=1"), ("-nic tap,foo=1: ", "Invalid parameter 'foo'")
    ),
    "a MAC that is none": nic("nat,mac=hello", "mac"),
    "configuration missing": Case(
        ("-nic", "nat"), ("/etc/nowhere.toml", "No such file"),
        options=("--config", "/etc/nowhere.toml"),
    ),
    "configuration is a folder": Case(
        ("-nic", "nat"), ("/etc", "directory"), options=("--config", "/etc")
    ),
    "--run-as nobody known": Case(
        ("-nic", "nat"), ("--run-as nosuchuser", "no such user"), options=("--run-as", "nosuchuser")
    ),
    "--run-as nobody known, without networks": Case(
        (), ("--run-as nosuchuser", "no such user"), options=("--run-as=nosuchuser",)
    ),
    "unknown option of ours": Case((), ("--nosuch",), options=("--nosuch",), hint="--help"),
    "option without its value": Case((), ("--config",), options=("--config=",), hint="--help"),
    "nat's bridge is taken by no bridge": Case(
        ("-nic", "nat"), ("nat", "qn-nat"),
        prepare="ip link add qn-nat type veth peer name other", undo="ip link del qn-nat",
    ),
    "br= is no bridge": Case(
        ("-nic", "bridge,br=veth7"), ("veth7", "no bridge"), hint="br=br0,uplink=veth7",
        prepare="ip link add veth7 type veth peer name other", undo="ip link del veth7",
    ),
    "br= is lo": Case(("-nic", "bridge,br=lo"), ("lo", "no bridge")),
    "/run read-only": Case(
        ("-nic", "nat"), ("/run/qemu-netwrap", "ead-only"), setup="mount -o remount,bind,ro /run"
    ),
    "/run read-only later": Case(
        ("-nic", "nat"), ("/run/qemu-netwrap", "ead-only"), setup="mount -o remount,bind,ro /run",
        prepare="mkdir -m 711 /run/qemu-netwrap", undo="rmdir /run/qemu-netwrap",
    ),
}  # fmt: skip


def launch(host: Host, case: Case) -> subprocess.CompletedProcess[str]:
    """Run a case's launch, in a mount namespace of its own where its setup stays."""
    script = f'set -eu\n{case.setup}\nexec "$@"'
    words = (*case.options, "--", case.program, *IDLE, *case.words)
    return host.run(
        *("unshare", "--mount", "sh", "-c", script, "sh"), *case.user, COMMAND, *words, check=False
    )


def check(done: subprocess.CompletedProcess[str], case: Case) -> None:
    assert "Traceback" not in done.stderr, done.stderr
    said = unhurried(done.stderr).splitlines()
    first, hint = [*said, "", ""][:2]
    assert (done.returncode, done.stdout) == (case.status, ""), done
    assert [word for word in case.says if word not in first] == [], done.stderr
    assert first.startswith("qemu-netwrap: "), done.stderr
    assert hint.startswith("  hint: "), done.stderr
    assert case.hint in hint.removeprefix("  hint: "), done.stderr
    assert len(said) == 2, done.stderr


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_told_in_one_line_and_nothing_left(host: Host, case: Case) -> None:
    host.run("sh", "-euc", case.prepare)
    if case.config:
        raw = case.config.encode("utf-8", "surrogateescape")
        host.write(CONFIG, "")
        host.run("sh", "-c", 'printf "$1" >"$2"', "sh", _octal(raw), CONFIG)
        host.written[CONFIG] = raw.decode("utf-8", "replace")
    before = snapshot(host)
    done = launch(host, case)
    nothing_left(host, before)
    host.run("sh", "-euc", case.undo)
    if case.config:
        host.write(CONFIG, "")
    check(done, case)


def _octal(raw: bytes) -> str:
    """Return bytes as printf(1) takes them, whatever they are."""
    return "".join(f"\\{byte:03o}" for byte in raw)


@pytest.mark.parametrize("words", ["reboot web", "rm web", "-q kill web", "plann qemu"])
def test_a_slip_is_not_executed(host: Host, words: str) -> None:
    """A first word that is no command must not start the program that happens to be called so."""
    names = [word for word in words.split() if not word.startswith("-")]
    for name in names:
        host.write(f"/run/bin/{name}", "#!/bin/sh\necho executed\n", mode=0o755)
    path = f"PATH=/run/bin:{os.environ['PATH']}"
    done = host.run("env", path, COMMAND, *words.split(), check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"{names[0]}: unknown command" in done.stderr
    assert "executed" in host.run("env", path, COMMAND, "--", names[0]).stdout
    assert "executed" in host.run(COMMAND, f"/run/bin/{names[0]}").stdout


def test_tap_of_a_living_run(host: Host) -> None:
    """Who has the name is named, and keeps it."""
    mine = host.popen(
        *(COMMAND, "--", QEMU, *IDLE, "-nic", "nat,ifname=mytap"), stderr=subprocess.DEVNULL
    )
    wait_for(lambda: "qemu-system" in host.processes().get(mine.pid, "").partition(" ")[0], "QEMU")
    keeper_of(host, mine.pid)  # what it does until it sleeps would be seen
    wait_lookout(host)
    before = snapshot(host)
    case = nic("nat,ifname=mytap")
    done = launch(host, case)
    wait_same(host, before)
    mine.kill()
    mine.wait()
    check(done, Case((), ("mytap", "taken", f"(pid {mine.pid})")))


# QEMU refuses it, but only after the network is up.
ENDS = Case(("-nic", "nat", "-device", "nosuch"), ())


@pytest.mark.parametrize("size", ["4k", "8k", "12k", "16k", "20k", "24k", "28k", "32k", "64k"])
def test_run_is_full(host: Host, watch: Watch, size: str) -> None:
    """At whatever point it gets full: what had been made by then is gone."""
    host.run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "small", "/run")
    check_full(host, watch, room=size == "64k")


@pytest.mark.parametrize("free", [*range(2, 30), 64])
def test_run_has_no_room_for_names(host: Host, watch: Watch, free: int) -> None:
    """The same, by inodes instead of pages: at every file in turn."""
    host.run("mount", "-t", "tmpfs", "-o", f"nr_inodes={free},mode=755", "small", "/run")
    check_full(host, watch, room=free == 64)


def check_full(host: Host, watch: Watch, *, room: bool) -> None:
    """See that the lack of space was told, or that there was room and QEMU was reached."""
    watch.baseline(host)
    before = snapshot(host)
    done = launch(host, ENDS)
    nothing_left(host, before)
    if "nosuch" in done.stderr:
        assert done.returncode == 1
    else:
        assert not room, done
        check(done, Case((), ("No space left",)))


def nothing_left(host: Host, before: Snapshot) -> None:
    """Wait until nothing is left; if something is, say so, and remove our state by hand."""
    try:
        wait_same(host, before)
    except AssertionError:
        host.run("rm", "-rf", "/run/qemu-netwrap")
        raise


def test_no_privilege_while_a_run_lives(host: Host) -> None:
    """An ordinary user is not let into a network that root has up."""
    segment = ("-nic", "tap,br=br7")
    mine = host.popen(*(COMMAND, "--", QEMU, *IDLE, *segment), stderr=subprocess.DEVNULL)
    wait_for(lambda: "qemu-system" in host.processes().get(mine.pid, "").partition(" ")[0], "QEMU")
    done = launch(host, Case(segment, (), user=NOBODY))
    mine.kill()
    mine.wait()
    check(done, Case((), ("bridge br7 is the host's",), hint="sudo"))


# What QEMU refuses, or answers and ends: nothing of it is ours, and nothing needs a privilege.
REFUSED = [
    ("-nosuchoption",),
    ("-nosuchoption", "-nic", "nat"),
    ("-nic", "tap", "-nosuchoption"),
    ("-nic", "nat", "-m"),
    ("-nic",),
    ("-nic", "tap", "-netdev"),
    ("-netdev", "tap"),
    ("-netdev", "tap,id=1x"),
    ("-netdev", "bridge"),
    ("-netdev", "tap,id=a", "-netdev", "tap,id=a"),
    ("-netdev", "tap,id=a", "-netdev", "user,id=a"),
    ("-nic", "tap,foo=1"),
    ("-nic", "bridge,ifname=x"),
    ("-nic", "tap,vhost=perhaps"),
    ("-nic", "tap,queues=many"),
    ("-nic", "nosuchtype"),
    ("-netdev", "nosuchtype,id=a"),
    ("-netdev", '{"type":"tap"'),
    ("-netdev", '{"type":"tap","id":"a","foo":1}'),
    ("-netdev", '{"type":"tap","id":"a","id":"b"}'),
    ("-net", "tap,fds=3:4"),
    ("-nic", "user,foo=1"),
    ("-nic", "tap,mac=hello"),
    ("-net", "nic,mac=52:54:00:00:00:01", "-net", "tap"),
    ("-nic", "tap", "-redir", "tcp:5022::22"),  # words that QEMU has had
    ("-nic", "nat", "-tftp", "/srv"),
    ("-nic", "tap", "-show-cursor"),
    ("-nic", "tap", "-audio-help"),
    ("-nic", "tap", "-device", "help"),
    ("-nic", "tap", "-version"),
    ("-nic", "tap", "-machine", "help"),
    ("-nic", "tap,model=help"),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_qemu_refuses_reaches_it_unchanged(host: Host, words: tuple[str, ...]) -> None:
    """As a user without privilege, who could not provision anything: a try would be seen."""
    bare = host.run(*NOBODY, QEMU, *IDLE, *words, check=False)
    wrapped = host.run(*NOBODY, COMMAND, "--", QEMU, *IDLE, *words, check=False)
    same = ("returncode", "stdout", "stderr")
    assert [getattr(wrapped, each) for each in same] == [getattr(bare, each) for each in same]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_plan_of_what_qemu_refuses(host: Host, words: tuple[str, ...]) -> None:
    """`plan` sees nothing to do either."""
    done = netwrap(host, "plan", "--json", QEMU, *words)
    assert '"steps": []' in done.stdout, done
