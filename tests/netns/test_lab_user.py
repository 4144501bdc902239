"""Ordinary users of the lab: what they have, what they may, and that their leaks are seen."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest.shell import Shell
from lab.confined import filtered, limited, read_only
from lab.leaks import snapshot, wait_same
from lab.netns import WEB_ADDRESS, WEB_BODY, CommandFailedError, Host, wait_for
from lab.tool import netwrap
from lab.user import User

if TYPE_CHECKING:
    from lab.fixtures import Watch

# The way out is ready a moment after it has started.
GET = (
    f"for each in $(seq 100); do busybox wget -qO- http://{WEB_ADDRESS}/ && break; sleep 0.2; done"
)
OPEN_TUN = "import os; os.open('/dev/net/tun', os.O_RDWR)"
LEAKS = {
    "process": "sleep 600",
    "process in its own network": "unshare -Urn sleep 600",
    "process that left everything": "unshare -UrnmuiC sleep 600",
}


def test_a_login(user: User) -> None:
    """Alice is who the accounts say, with nothing of root's."""
    assert user.sh("id -un; id -gn; id -G; umask").split() == ["alice", "alice", "1000", "0022"]
    assert user.sh("pwd; getent passwd alice").split() == [
        *("/home/alice", "alice:x:1000:1000::/home/alice:/bin/sh"),
    ]
    assert dict(line.split("=", 1) for line in user.run("env").stdout.splitlines()) == user.env
    assert user.run("stat", "-c", "%a %U %F", user.runtime_folder).stdout == "700 alice directory\n"


def test_no_capability(user: User) -> None:
    """All sets but the bounding one are empty, which stays as it is for setuid programs."""
    sets = dict(line.split() for line in user.sh("grep ^Cap /proc/self/status").splitlines())
    bounding = user.host.sh("grep ^CapBnd /proc/self/status").split()[1]
    empty = "0" * 16
    assert sets == {
        **dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapAmb:"), empty),
        "CapBnd:": bounding,
    }
    with pytest.raises(CommandFailedError, match="Operation not permitted"):
        user.run("ip", "link", "add", "br0", "type", "bridge")


def test_a_network_of_their_own(user: User) -> None:
    """In a user namespace alice makes links, taps too."""
    user.run("unshare", "-Urn", "ip", "link", "add", "br0", "type", "bridge")
    user.run("unshare", "-Urn", "ip", "tuntap", "add", "tap0", "mode", "tap")
    user.run("unshare", "-Urn", "python3", "-c", OPEN_TUN)


@pytest.mark.parametrize(
    ("mode", "error"), [(0o600, "PermissionError"), (None, "FileNotFoundError")]
)
def test_without_tun(host: Host, watch: Watch, mode: int | None, error: str) -> None:
    """The machine's /dev/net/tun may be root's alone, or missing."""
    user = User(host, tun=mode)
    watch.baseline(host)
    assert error in user.run("python3", "-c", OPEN_TUN, check=False).stderr


def test_without_a_runtime_folder(host: Host, watch: Watch) -> None:
    """XDG_RUNTIME_DIR may not be there."""
    user = User(host, runtime=False)
    watch.baseline(host)
    assert user.sh('echo "${XDG_RUNTIME_DIR-none}"; test ! -e /run/user') == "none\n"


def test_a_way_out_by_pasta(user: User) -> None:
    """Debian's pasta carries TCP from a namespace of alice's to the internet."""
    assert user.run("pasta", "--config-net", "--", "sh", "-c", GET).stdout == WEB_BODY


def test_a_way_out_by_pasta_over_ipv6(user6: User) -> None:
    """The same by IPv6."""
    get = GET.replace(WEB_ADDRESS, "[2001:db8:80::80]")
    assert user6.run("pasta", "--config-net", "--", "sh", "-c", get).stdout == WEB_BODY


def test_a_way_out_by_slirp4netns(user: User) -> None:
    """Debian's slirp4netns carries TCP from a namespace of alice's to the internet."""
    inside = user.popen("unshare", "-Urn", "sh", "-c", "echo made; exec sleep 600", stdout=-1)
    assert inside.stdout
    assert inside.stdout.readline() == "made\n"
    way_out = user.popen("slirp4netns", "--configure", str(inside.pid), "tap0")
    enter = ("nsenter", "-t", str(inside.pid), "-U", "-n", "--preserve-credentials")
    wait_for(
        lambda: "tap0" in user.run(*enter, "ip", "route", "show", "default").stdout,
        "the way out",
    )
    assert user.run(*enter, "sh", "-c", GET).stdout == WEB_BODY
    for each in (way_out, inside):
        each.kill()


@pytest.mark.parametrize("command", LEAKS.values(), ids=LEAKS)
def test_detector_sees_a_process(user: User, command: str) -> None:
    """A process of alice's is a leak wherever it went, with its namespaces."""
    before = snapshot(user.host)
    user.sh(f"setsid {command} >/dev/null 2>&1 &")
    wait_for(lambda: "sleep 600" in user.processes().values(), "the process")
    lines = before.diff(snapshot(user.host))
    assert any("sleep 600" in line for line in lines), lines
    assert any("namespace net:[" in line for line in lines) == ("unshare" in command), lines
    with pytest.raises(AssertionError, match="not as it was before"):
        wait_same(user.host, before, timeout=0.0)
    for pid in user.processes():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "path",
    ["/run/user/1000/qemu-netwrap/left", "/tmp/qemu-netwrap-1000/left", "/home/alice/.cache/left"],  # noqa: S108
)
def test_detector_sees_a_file(user: User, path: str) -> None:
    """What alice leaves in her own folders, and in the machine's /tmp, is a leak."""
    before = snapshot(user.host)
    user.run("install", "-D", "/dev/null", path)
    lines = before.diff(snapshot(user.host))
    assert any(f"file {path} " in line for line in lines), lines
    user.run("rm", "-r", path.removesuffix("/left"))
    wait_same(user.host, before, timeout=5.0)


def test_what_is_left_dies_with_the_machine(lab: None) -> None:
    """No process of alice's outlives the machine, not even one that left its namespaces."""
    with Host("short") as host:
        user = User(host)
        user.sh(f"setsid {LEAKS['process that left everything']} >/dev/null 2>&1 &")
        wait_for(lambda: "sleep 600" in user.processes().values(), "the process")
        (pid,) = user.processes()
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists(), "its end")


def test_logging_out(users: tuple[User, User], watch: Watch) -> None:
    """All processes of alice's end, stubborn ones too, and the runtime folder; bob's go on."""
    alice, bob = users
    others = bob.popen("sleep", "500")
    alice.popen("sh", "-c", "trap '' TERM HUP; sleep 600 & wait; sleep 600")
    alice.sh("setsid unshare -Urn sleep 600 >/dev/null 2>&1 &")
    wait_for(lambda: [*alice.processes().values()].count("sleep 600") == 2, "the processes")
    wait_for(lambda: bob.processes() == {others.pid: "sleep 500"}, "bob's")
    alice.log_out(patience=0.1)
    assert alice.processes() == {}
    assert bob.processes() == {others.pid: "sleep 500"}
    assert bob.host.sh("ls /run/user") == "1001\n"
    others.kill()
    watch.baseline(bob.host)


def test_users_do_not_share(users: tuple[User, User]) -> None:
    """Alice and bob have homes and runtime folders that the other cannot look into."""
    alice, bob = users
    alice.write("secret", "alice's\n")
    assert alice.read("secret") == "alice's\n"
    for folder in (alice.home, alice.runtime_folder):
        assert "Permission denied" in bob.run("ls", folder, check=False).stderr
    child = alice.popen("sleep", "600")
    wait_for(lambda: "sleep 600" in alice.processes().values(), "the process")
    assert bob.processes() == {}
    child.kill()


def test_subordinate_ids(host: Host, watch: Watch) -> None:
    """With ids of /etc/subuid, alice has more than one user in a namespace; they are seen too."""
    user = User(host, subids=(100000, 65536))
    watch.baseline(host)
    mapped = user.run("unshare", "-Ur", "--map-auto", "cat", "/proc/self/uid_map").stdout
    assert [line.split() for line in mapped.splitlines()] == [
        ["0", "1000", "1"],
        ["1", "100000", "65535"],
    ]
    become = ("setpriv", "--reuid=5", "--clear-groups")
    child = user.popen("unshare", "-UrnmuiC", "--map-auto", *become, "sleep", "600")
    wait_for(lambda: "sleep 600" in user.processes().values(), "the process")
    assert "sleep 600" in host.processes().values()
    child.kill()


def test_no_user_namespaces_by_the_limit(host: Host, watch: Watch) -> None:
    """Where the sysctl is 0 there are none; nothing else is different."""
    user = User(host, before=limited(host))
    watch.baseline(host)
    assert user.read("/proc/sys/user/max_user_namespaces") == "0\n"
    assert user.read("/proc/self/uid_map").split() == ["0", "0", "4294967295"]
    assert user.sh("id -un; touch file; stat -c %U file").split() == ["alice", "alice"]
    assert "No space left" in user.run("unshare", "-U", "true", check=False).stderr
    assert Path("/proc/sys/user/max_user_namespaces").read_text(encoding="ascii") != "0\n"
    user.run("rm", "file")


def test_no_user_namespaces_by_a_filter(host: Host, watch: Watch) -> None:
    """As in a container of Docker's; processes and threads are started as ever."""
    user = User(host, before=filtered())
    watch.baseline(host)
    for words in (("unshare", "-U", "true"), ("unshare", "-Urn", "true")):
        assert "Operation not permitted" in user.run(*words, check=False).stderr
    thread = "import threading; t = threading.Thread(target=print, args=['x']); t.start(); t.join()"
    assert user.sh(f'python3 -c "{thread}" | cat') == "x\n"


def test_read_only_folders(host: Host, watch: Watch) -> None:
    """/run and /proc/sys cannot be written, by nobody; the runtime folder can."""
    user = User(host)
    for folder in ("/run", "/proc/sys"):
        read_only(host, folder)
    watch.baseline(host)
    assert "Read-only" in host.run("touch", "/run/file", check=False).stderr
    forward = "echo 1 >/proc/sys/net/ipv4/ip_forward"
    assert "Read-only" in user.run("unshare", "-Urn", "sh", "-c", forward, check=False).stderr
    user.sh('touch "$XDG_RUNTIME_DIR/file"; rm "$XDG_RUNTIME_DIR/file"')


def test_a_guest_of_a_user(user: User) -> None:
    """A real guest runs as alice, with QEMU's own network for it, and as root beside her."""
    with Shell(user, "-nic", "user,model=virtio") as guest:
        assert guest.get(f"http://{WEB_ADDRESS}/") == WEB_BODY
        assert guest.pid in user.processes()
        guest.power_off()
    with Shell(user.host, "-nic", "user,model=virtio") as guest:
        assert guest.get(f"http://{WEB_ADDRESS}/") == WEB_BODY
    assert netwrap(user, "--version").returncode == 0
