"""`qemu-netwrap exec`: the process becomes the command, and the command is the user's."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU, netwrap, running
from netns.test_ports import DNSMASQ

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.fixtures import Watch
    from lab.netns import Host, Uplinked
    from lab.user import User

EXEC = (COMMAND, "exec", "nat", "--")
PIPE = subprocess.PIPE
WAITS = """
import os, signal, sys, time
def end(*_):
    print("caught", flush=True)
    input()  # what is written in the last moment may be lost with the terminal
    sys.exit(3)
signal.signal(signal.SIGINT, end)
print("ready on", os.ttyname(0), flush=True)
while True:
    time.sleep(0.1)
"""


@contextlib.contextmanager
def nat(user: User) -> Iterator[None]:
    """Let a user's nat be up, with a QEMU that does nothing, and then be gone."""
    qemu = user.popen(COMMAND, "-q", "--", QEMU, *IDLE, "-netdev", "nat,id=n0")
    shown = (COMMAND, "network", "show", "nat", "--json")
    try:
        wait_for(lambda: json.loads(user.run(*shown).stdout)["state"] == "up", "the network")
        yield
    finally:
        qemu.kill()
        qemu.wait()
        netwrap(user, "wait", check=True)


@pytest.fixture
def up(user: User) -> Iterator[User]:
    """Return alice, whose nat is up."""
    with nat(user):
        yield user


def said(place: Host | User, *words: str) -> str:
    done = place.run(*EXEC, *words)
    assert done.stderr == ""
    return done.stdout


def test_command_is_the_users_own(up: User) -> None:
    assert said(up, "id", "-un") == "alice\n"
    assert said(up, "id", "-gn") == "alice\n"
    assert said(up, "sh", "-c", "echo ~ ~alice $(getent passwd 0 | cut -d: -f6)") == (
        f"{up.home} {up.home} {up.home}\n"
    )
    up.write(".ssh/config", "Host web\n    HostName web.nat.internal\n")
    ssh = said(up, "ssh", "-TG", "web").splitlines()
    assert {"user alice", "hostname web.nat.internal"} <= set(ssh)
    up.write("file", "mine\n")
    assert up.run(*EXEC, "cat", "file").stdout == "mine\n"
    assert said(up, "stat", "-c", "%U", "file") == "alice\n"
    assert "qn-nat" in said(up, "ip", "-o", "link")
    assert said(up, "grep", "search", "/etc/resolv.conf") == "search nat.internal\n"


def test_process_is_the_command(up: User) -> None:
    child = up.popen(
        *EXEC, "sh", "-c", "echo $$; read line; echo $line; exit 7", stdin=PIPE, stdout=PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == f"{child.pid}\n"
    child.stdin.write("through the pipe\n")
    child.stdin.close()
    assert child.stdout.read() == "through the pipe\n"
    assert child.wait() == 7


def test_program_that_drops_its_groups_runs(up: User) -> None:
    """As tcpdump does, which becomes another user; in a user namespace of one id that is denied."""
    become = ("setpriv", "--reuid=tcpdump", "--regid=0", "--init-groups")
    assert said(up, *become, "id", "-un") == "alice\n"


def test_signal_is_the_commands(up: User) -> None:
    child = up.popen(*EXEC, "sh", "-c", "echo in; exec sleep 1000", stdout=PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM


def test_command_has_what_its_parent_gave(up: User) -> None:
    look = "umask; ulimit -n; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; env"
    typed = 'trap "" USR1; umask 027; ulimit -Sn 99; '
    plain = up.run("sh", "-c", typed + 'exec "$@"', "sh", "sh", "-c", look).stdout
    led = up.run("sh", "-c", typed + 'exec "$@"', "sh", *EXEC, "sh", "-c", look).stdout
    assert led == plain


def test_terminal_is_the_commands(up: User) -> None:
    with Terminal(up, *EXEC, sys.executable, "-c", WAITS) as seen:
        seen.wait_shown("ready on /dev/pts/")
        seen.type("\x03")
        seen.wait_shown("caught")
        seen.type("\n")
        assert seen.child.wait(60) == 3


def test_without_a_command_it_is_the_users_shell(up: User) -> None:
    with Terminal(up, COMMAND, "exec", "nat") as seen:
        seen.type("echo $0 in $(id -un)\n")
        seen.wait_shown("/bin/sh in alice")
        seen.type("exit 5\n")
        assert seen.child.wait(60) == 5
    done = up.run(COMMAND, "exec", "nat", env={"SHELL": "/usr/bin/id"})
    assert "alice" in done.stdout


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (("exec", "nat", "--", "nosuch"), 127, "nosuch: there is no such program"),
        (("exec", "nat", "--", "/etc/passwd"), 126, "/etc/passwd: it cannot be executed"),
        (("exec", "nat", "--json"), 125, "--json: exec nat has no such option"),
        (("exec", "nta", "--", "id"), 125, "nta: there is no such network"),
        (("exec", "host-only", "--", "id"), 125, "network host-only is not up"),
        (("exec",), 125, "Missing argument"),
    ],
)
def test_refusals(up: User, words: tuple[str, ...], status: int, error: str) -> None:
    done = netwrap(up, *words)
    assert (done.stdout, done.returncode) == ("", status)
    assert error in done.stderr
    assert "hint: " in done.stderr


def test_network_of_a_user_who_has_none(user: User) -> None:
    done = netwrap(user, "exec", "nat", "--", "id")
    assert (done.stdout, done.returncode) == ("", 125)
    assert "qemu-netwrap network up nat" in done.stderr


def test_script_without_interpreter_is_the_shells(up: User) -> None:
    up.write("script", "echo $1 $0\n")
    up.run("chmod", "+x", "script")
    assert said(up, "./script", "a b") == "a b ./script\n"


def test_host_is_as_before(up: User) -> None:
    looks = ("cat", "/proc/self/mountinfo", "/etc/resolv.conf", "/etc/passwd", "/etc/nsswitch.conf")
    before = up.host.run(*looks).stdout
    child = up.popen(*EXEC, "sh", "-c", "echo in; exec sleep 1000", stdout=PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert up.host.run(*looks).stdout == before
    child.kill()
    child.wait()
    assert up.host.run(*looks).stdout == before


def test_name_services_of_the_host_are_passed_by(up: User) -> None:
    nsswitch = "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"
    up.host.write("/etc/nsswitch.conf", nsswitch, mode=0o644)
    assert said(up, "cat", "/etc/nsswitch.conf") == "passwd: files\nhosts: files dns\n"


def test_resolv_conf_may_be_a_link(up: User) -> None:
    host, text = up.host, "nameserver 192.0.2.1\n"
    host.write("/etc/resolv.conf", text, mode=0o644)
    host.sh("cd /etc; mv resolv.conf stub.conf; ln -s stub.conf resolv.conf")
    assert "search nat.internal\n" in said(up, "cat", "/etc/stub.conf", "/etc/resolv.conf")
    assert host.run("cat", "/etc/stub.conf").stdout == text
    host.sh("cd /etc; mv stub.conf elsewhere")
    dangling = up.run(COMMAND, "-v", "exec", "nat", "id", "-un")
    assert dangling.stdout == "alice\n"
    assert "there is no /etc/resolv.conf" in dangling.stderr
    host.sh("cd /etc; mv elsewhere resolv.conf")


def test_shell_outlives_the_network(user: User) -> None:
    look = "readlink /proc/self/ns/net; exec cat"
    with nat(user):
        child = user.popen(*EXEC, "sh", "-c", look, stdin=PIPE, stdout=PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        old = child.stdout.readline()
    found = ("find", user.runtime_folder, "-name", "*.realm")

    def is_over() -> bool:
        done = user.run(*found, check=False)
        return (done.returncode, done.stdout) == (0, "")  # it fails where folders go meanwhile

    wait_for(is_over, "the realm's end")
    assert netwrap(user, "exec", "nat", "--", "id").returncode == 125
    with nat(user):
        assert said(user, "readlink", "/proc/self/ns/net") != old
    assert child.poll() is None
    child.stdin.close()
    assert child.wait() == 0


def test_root_in_the_hosts_namespace(uplinked: Uplinked) -> None:
    host = uplinked.host
    netwrap(host, "network", "up", "nat", check=True)
    mounts = host.run("cat", "/proc/self/mountinfo").stdout
    assert said(host, "grep", "search", "/etc/resolv.conf") == "search nat.internal\n"
    assert said(host, "readlink", "/proc/self/ns/net") == (
        host.run("readlink", "/proc/self/ns/net").stdout
    )
    assert said(host, "id", "-un") == "root\n"
    no_mounts = host.run("setpriv", "--bounding-set=-sys_admin", *EXEC, "id", "-un")
    assert no_mounts.stdout == "root\n"
    assert "guests' names are not resolved" in no_mounts.stderr
    assert host.run("cat", "/proc/self/mountinfo").stdout == mounts
    netwrap(host, "network", "down", "nat", check=True)


def test_other_dns_server_on_every_address(uplinked: Uplinked, watch: Watch) -> None:
    """The network's is on another port then, which resolv.conf has no words for."""
    host = uplinked.host
    host.popen(*DNSMASQ, "--port=53", stderr=subprocess.DEVNULL)
    host.wait_listening("udp", 53)
    watch.baseline(host)
    with running(host):
        done = host.run(*EXEC, "cat", "/etc/resolv.conf")
    assert done.stdout == host.run("cat", "/etc/resolv.conf").stdout
    assert "port 53 is another DNS server's" in done.stderr
