"""Under sudo: QEMU is what sudo would have started, and sudo's keys, signals and end are QEMU's."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import (
    QUIET,
    STATE,
    WRAPPED,
    below,
    difference,
    fds,
    is_qemu,
    keeper_of,
    keepers_fds,
    links,
    stat,
    status,
)
from lab.hooked import SCRIPTS
from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.netns import Host

NOBODY: Final = "65534"
# Who calls sudo. `nobody` is a user that every Debian has.
CALLERS: Final[dict[str, tuple[str, ...]]] = {
    "root": (),
    "nobody": ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
}
_SUDOERS: Final = """
Defaults env_reset, {pty}
root ALL=(ALL:ALL) ALL
nobody ALL=(ALL:ALL) NOPASSWD: ALL
"""
_NAT: Final = ("-nic", "nat")
# What is another one for each sudo, or names another command.
_OWN: Final = frozenset(("stat parent", "stat session", "stat foreground", "stat terminal"))


@pytest.fixture(params=[*CALLERS.values()], ids=[*CALLERS])
def sudo(request: pytest.FixtureRequest, host: Host) -> tuple[str, ...]:
    """Return the words to put in front of a command that sudo is to run."""
    host.write("/etc/hosts", f"127.0.0.1 localhost {host.name}\n")
    host.write("/etc/sudoers", _SUDOERS.format(pty="use_pty"), mode=0o440)
    return (*request.param, "sudo")


@pytest.fixture(params=["use_pty", "!use_pty"])
def pty(request: pytest.FixtureRequest, host: Host, sudo: tuple[str, ...]) -> bool:
    """Have this machine's sudo give its commands a terminal of their own, or not."""
    del sudo  # which has come before
    host.write("/etc/sudoers", _SUDOERS.format(pty=request.param), mode=0o440)
    return bool(request.param == "use_pty")


def _started_by(pid: int) -> int:
    """Return the QEMU below a process, as soon as it is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [child for child in below(pid) if _is_qemu(child)]
        return bool(found)

    wait_for(look, "QEMU below sudo")
    return found[0]


def _is_qemu(pid: int) -> bool:
    """Whether that is a QEMU, of processes that come and go."""
    try:
        return is_qemu(pid)
    except OSError:
        return False


def _gone(host: Host) -> None:
    """See that the network goes with its last run."""
    host.run(COMMAND, "wait")
    assert links(host) == {"lo"}
    assert host.run("ls", STATE, check=False).returncode != 0


def _environment(pid: int) -> list[str]:
    """Return a process's environment, without the line in which sudo tells the command."""
    words = Path(f"/proc/{pid}/environ").read_text("utf-8").split("\0")
    assert any(word.startswith("SUDO_COMMAND=") for word in words)
    return [word for word in words if not word.startswith("SUDO_COMMAND=")]


def _place(pid: int) -> dict[str, str]:
    """Return where a process is among those that sudo has made, by what each is to it."""
    seen = stat(pid)
    parent = int(seen["parent"])
    names = {str(pid): "itself", str(parent): "its parent", stat(parent)["terminal"]: "parent's"}
    place = {key: names.get(seen[key], seen[key]) for key in ("group", "session", "foreground")}
    terminal = names.get(seen["terminal"], "of its own")
    above = Path(f"/proc/{parent}/comm").read_text("utf-8")
    return {**place, "terminal": terminal, "parent": above, "parent's group": stat(parent)["group"]}


def test_sudo_starts_what_it_would_start(host: Host, sudo: tuple[str, ...]) -> None:
    wrapped = host.popen(*sudo, *WRAPPED, QEMU, *IDLE, *_NAT, **QUIET)
    bare = host.popen(*sudo, QEMU, *IDLE, **QUIET)
    one, other = _started_by(wrapped.pid), _started_by(bare.pid)
    wait_for(lambda: difference(one, other).keys() <= _OWN | {"environ"}, "QEMU to be the same")
    assert _environment(one) == _environment(other)
    assert stat(one)["parent"] == str(wrapped.pid)
    ours = {fd: what for fd, what in fds(one).items() if fd < 64}
    assert ours == fds(other)
    for child in (wrapped, bare):
        child.terminate()  # sudo hands it on
        assert child.wait(30) == 0
    _gone(host)


def test_sudo_on_a_terminal(host: Host, sudo: tuple[str, ...], pty: bool) -> None:
    places = []
    for words in ((*WRAPPED, QEMU, *IDLE, *_NAT), (QEMU, *IDLE)):
        with Terminal(host, *sudo, *words) as terminal:
            pid = _started_by(terminal.pid)
            places.append(_place(pid))
            assert (os.readlink(f"/proc/{pid}/fd/0") == _name(terminal)) is not pty
            terminal.type("\x03")
            assert terminal.child.wait(30) == 0
            terminal.wait_shown("terminating on signal 2")
            assert terminal.shown.count("terminating on signal 2") == 1
    assert places[0] == places[1]
    _gone(host)


def _name(terminal: Terminal) -> str:
    """Return the name of the terminal that the user sits at."""
    return os.readlink(f"/proc/{terminal.pid}/fd/0")


def test_sudos_terminal_does_not_wait_for_the_teardown(host: Host, sudo: tuple[str, ...]) -> None:
    # The keeper has sudo's terminal open, to tell what it cannot release, and may take long.
    with Terminal(host, *sudo, *WRAPPED, QEMU, *IDLE, *_NAT) as terminal:
        pid = _started_by(terminal.pid)
        keeper = keeper_of(host, pid)
        assert stat(keeper)["terminal"] == "0"
        os.kill(keeper, signal.SIGSTOP)
        terminal.type("\x03")
        assert terminal.child.wait(30) == 0
    os.kill(keeper, signal.SIGCONT)
    _gone(host)


@pytest.mark.parametrize("at", ["sudo", "QEMU"])
def test_sudo_kill(host: Host, sudo: tuple[str, ...], at: str) -> None:
    child = host.popen(*sudo, *WRAPPED, QEMU, *IDLE, *_NAT, **QUIET)
    pid = _started_by(child.pid)
    assert keepers_fds(keeper_of(host, pid)) == {"null", "lock", "keeper"}
    if at == "sudo":
        host.run(*sudo, "kill", str(child.pid))
        assert child.wait(30) == 0
    else:
        host.run(*sudo, "kill", "-KILL", str(pid))
        assert child.wait(30) == -signal.SIGKILL  # sudo dies as its command did
    _gone(host)


def test_a_sudo_that_is_killed_leaves_qemu_its_network(host: Host, sudo: tuple[str, ...]) -> None:
    child = host.popen(*sudo, *WRAPPED, QEMU, *IDLE, *_NAT, **QUIET)
    pid = _started_by(child.pid)
    child.kill()
    child.wait(30)
    assert f"qn{pid}-0" in links(host)
    host.run(*sudo, COMMAND, "stop", str(pid))
    _gone(host)


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
def test_back_to_the_user_who_called_sudo(host: Host, sudo: tuple[str, ...]) -> None:
    words = (COMMAND, "--run-as", "nobody", "--", QEMU, *IDLE, *_NAT)
    child = host.popen(*sudo, *words, **QUIET)
    pid = _started_by(child.pid)
    seen = status(pid)
    assert set(seen["Uid"].split()) == set(seen["Gid"].split()) == {NOBODY}
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == 0
    environment = Path(f"/proc/{pid}/environ").read_text("utf-8")
    assert {"USER=nobody", "LOGNAME=nobody"} <= set(environment.split("\0"))
    assert "SUDO_" not in environment  # it is no child of sudo's that acts for somebody any more
    host.run(*CALLERS["nobody"], "kill", str(pid))  # it is the user's now
    assert child.wait(30) == 0
    _gone(host)


def test_our_scripts_in_a_qemu_that_an_ordinary_user_starts(
    host: Host, sudo: tuple[str, ...]
) -> None:
    """QEMU and its scripts are root's by then; sudo hands on no QEMU_NETWRAP_NETWORK."""
    host.write("/etc/qemu-netwrap/config.toml", 'default = "host-only"\n')
    program = host.popen(*sudo, QEMU, *IDLE, "-nic", f"tap,ifname=tap0,{SCRIPTS}", **QUIET)
    pid = _started_by(program.pid)
    wait_for(lambda: {"tap0", "qn-host-only"} <= links(host), "the tap on its network")
    os.kill(pid, signal.SIGKILL)
    program.wait(30)
    _gone(host)


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
@pytest.mark.parametrize("command", [(), ("plan",)], ids=["launch", "plan"])
def test_what_sudo_drops_is_said(host: Host, sudo: tuple[str, ...], command: tuple[str]) -> None:
    """The user's own configuration and network, each with the option that brings it back."""
    xdg = "/run/xdg"
    path = f"{xdg}/qemu-netwrap/config.toml"
    host.write(path, "[networks.lab]\nmode = 'host-only'\n", mode=0o644)
    env = ("env", f"XDG_CONFIG_HOME={xdg}", "QEMU_NETWRAP_NETWORK=lab")
    words = (*command, "--", "/bin/true", "-nic", "tap")

    def run(*options: str, through: tuple[str, ...] = ()) -> str:
        done = host.run(*env, *sudo, *through, COMMAND, *options, *words)
        host.run(COMMAND, "wait")
        return done.stderr

    for through in ((), ("sh", "-c", '"$@"; exit $?', "sh")):
        said = run(through=through)
        assert f"{path} is not read under sudo; --config {path} reads it\n" in said
        assert "QEMU_NETWRAP_NETWORK=lab is not passed on by sudo; --network lab does" in said
    assert "sudo" not in run("-q")
    assert "sudo" not in run("--config", path, "--network", "lab")


_PLAIN: Final = ("--", "/bin/true")
_WAY_OUT: Final = "leave out sudo"


def _shown(host: Host, *words: str) -> str:
    """Return what a program that ends by itself shows on a terminal."""
    with Terminal(host, *words) as terminal:
        assert terminal.child.wait(60) == 0
    host.run(COMMAND, "wait")
    return terminal.shown


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
@pytest.mark.parametrize(
    "nic",
    [(), ("-nic", "user"), _NAT, ("-nic", "host-only"), ("-nic", "tap,br=br7")],
    ids=" ".join,
)
def test_on_a_terminal_root_is_told(host: Host, sudo: tuple[str, ...], nic: tuple[str]) -> None:
    shown = _shown(host, *sudo, COMMAND, *_PLAIN, *nic)
    assert shown.count("QEMU runs as root: --run-as nobody runs it as that user") == 1
    assert _WAY_OUT in shown
    for options in (("-q",), ("--run-as", "nobody")):
        assert "as root" not in _shown(host, *sudo, COMMAND, *options, *_PLAIN, *nic)
    done = host.run(*sudo, COMMAND, *_PLAIN, *nic)
    host.run(COMMAND, "wait")
    assert "as root" not in done.stderr


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
@pytest.mark.parametrize(
    "nic", ["tap,br=br9", "bridge,br=br9", "nat,hostfwd=tcp::80-:80", "tap,network=up"]
)
def test_where_root_is_needed_leaving_out_sudo_is_no_way(
    host: Host, sudo: tuple[str, ...], nic: str
) -> None:
    host.run("ip", "link", "add", "br9", "type", "bridge")
    host.run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "eth8")
    text = "[networks.up]\nmode = 'bridge'\nuplink = 'eth9'\n"
    host.write("/etc/qemu-netwrap/config.toml", text)
    shown = _shown(host, *sudo, COMMAND, *_PLAIN, "-nic", nic)
    for name in ("br9", "eth9"):
        host.run("ip", "link", "delete", name)
    assert shown.count("QEMU runs as root: --run-as nobody") == 1
    assert _WAY_OUT not in shown


@pytest.mark.parametrize("sudo", [CALLERS["root"]], indirect=True, ids=["root"])
def test_root_is_not_told_what_it_knows(host: Host, sudo: tuple[str, ...]) -> None:
    host.write("/etc/qemu-netwrap/config.toml", 'run_as = "invoker"\n')
    for words in (sudo, ()):
        assert "as root" not in _shown(host, *words, COMMAND, *_PLAIN, *_NAT)
        assert host.run(*words, COMMAND, "--", "/usr/bin/id", "-un").stdout == "root\n"


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
@pytest.mark.parametrize("nic", [(), _NAT], ids=["none", "nat"])
def test_the_invoker(host: Host, sudo: tuple[str, ...], nic: tuple[str, ...]) -> None:
    host.write("/etc/qemu-netwrap/config.toml", 'run_as = "invoker"\n')
    who = ("--", "/bin/sh", "-c", "id -un; printenv USER", "sh", *nic)

    def run(*options: str) -> list[str]:
        done = host.run(*sudo, COMMAND, *options, *who)
        host.run(COMMAND, "wait")
        return done.stdout.split()

    assert run() == ["nobody", "nobody"]
    assert run("--run-as", "daemon") == ["daemon", "daemon"]
    assert run("--config", "/dev/null")[0] == "root"
    plan = host.run(*sudo, COMMAND, "plan", *_PLAIN, *nic).stdout
    assert "QEMU runs as nobody: run_as in /etc/qemu-netwrap/config.toml" in plan
    assert "QEMU runs" not in host.run(COMMAND, "plan", *_PLAIN, *nic).stdout
    assert "as root" not in _shown(host, *sudo, COMMAND, *who)


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
def test_a_configuration_that_can_be_read_once(host: Host, sudo: tuple[str, ...]) -> None:
    text = 'run_as = "invoker"\n[networks.lab]\nmode = "host-only"\n'
    options = ("--config", "/dev/stdin", "--network", "lab")
    who = ("--", "/bin/sh", "-c", "id -un", "sh", "-nic", "tap")
    pipe = f"printf '%s' '{text}' | \"$@\""
    assert host.run("sh", "-c", pipe, "sh", *sudo, COMMAND, *options, *who).stdout == "nobody\n"
    host.run(COMMAND, "wait")


@pytest.mark.parametrize("sudo", [CALLERS["nobody"]], indirect=True, ids=["nobody"])
def test_a_shim_has_its_user_from_the_configuration(host: Host, sudo: tuple[str, ...]) -> None:
    folder = "/etc/shims"
    host.run(COMMAND, "shim", "install", folder)
    words = (*sudo, f"PATH={folder}:/usr/sbin:/usr/bin:/sbin:/bin", f"{folder}/{QEMU}")
    with Terminal(host, *words, *IDLE, *_NAT) as terminal:
        pid = _started_by(terminal.pid)
        terminal.wait_shown('run_as = "invoker" in /etc/qemu-netwrap/config.toml')
        assert "--run-as" not in terminal.shown
        terminal.type("\x03")
        assert terminal.child.wait(30) == 0
    _gone(host)
    host.write("/etc/qemu-netwrap/config.toml", 'run_as = "invoker"\n')
    child = host.popen(*words, *IDLE, *_NAT, **QUIET)
    pid = _started_by(child.pid)
    assert set(status(pid)["Uid"].split()) == {NOBODY}
    child.terminate()
    assert child.wait(30) == 0
    _gone(host)
    host.run(COMMAND, "shim", "remove", folder)


@pytest.mark.parametrize(
    ("name", "uid"),
    [("nobody", "1"), ("nobody", ""), ("", NOBODY), ("no-such", NOBODY), ("no\nbody", "x")],
)
@pytest.mark.parametrize("command", [(), ("plan",)], ids=["launch", "plan"])
def test_an_invoker_who_is_no_user(
    host: Host, name: str, uid: str, command: tuple[str, ...]
) -> None:
    host.write("/etc/qemu-netwrap/config.toml", 'run_as = "invoker"\n')
    env = {"SUDO_USER": name, "SUDO_UID": uid}
    done = host.run(COMMAND, *command, *_PLAIN, *_NAT, env=env, check=False)
    assert done.returncode == 125
    assert 'run_as = "invoker": SUDO_USER=' in done.stderr
    assert "hint: call it by sudo itself" in done.stderr
    for words in (("--run-as", "nobody"), ("--config", "/dev/null")):
        host.run(COMMAND, *words, *command, *_PLAIN, env=env)
