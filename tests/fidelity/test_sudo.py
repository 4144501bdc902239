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
from fidelity.terminal import Terminal
from lab.hooked import SCRIPTS
from lab.netns import wait_for
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
