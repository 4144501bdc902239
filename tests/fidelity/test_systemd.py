"""As a unit of systemd's: the main process is QEMU, and what a stop sends to all is no harm."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.booted import Booted
from fidelity.running import (
    QUIET,
    STATE,
    WRAPPED,
    fds,
    is_qemu,
    keeper_of,
    links,
    runs,
    script,
    state_folder,
)
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

NAT: Final = ("-nic", "nat")
# Tells that it is ready when a file appears, as sd_notify(3) would have it done.
_NOTIFIER: Final = """
import os, pathlib, socket, time
while not pathlib.Path({go!r}).exists():
    time.sleep(0.01)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
    told.connect(os.environ["NOTIFY_SOCKET"])
    told.send(b"READY=1")
os.execv("/bin/sleep", ["sleep", "1000"])
"""


@pytest.fixture
def booted(host: Host) -> Iterator[Booted]:
    """Yield a machine with systemd."""
    with Booted(host) as found:
        yield found


def _service(booted: Booted, name: str, *words: str, more: tuple[str, ...] = ()) -> str:
    """Make a service of QEMU with WORDS, or of another command; return its name."""
    command = words if words[0].startswith("/") else (*WRAPPED, QEMU, *IDLE, *words)
    # Nothing is said of how it is to be killed: KillMode=control-group.
    booted.unit(f"{name}.service", "[Service]", f"ExecStart={shlex.join(command)}", *more)
    return f"{name}.service"


def _up(booted: Booted, unit: str) -> int:
    """Start a unit, and return its QEMU when that has come up."""
    booted.systemctl("start", unit)
    wait_for(lambda: (pid := booted.main(unit)) != 0 and is_qemu(pid), "QEMU")
    return booted.main(unit)


def _server(host: Host) -> list[int]:
    """Return the machine's dnsmasq."""
    return [pid for pid, words in host.processes().items() if words.startswith("dnsmasq ")]


def _none_is_left(host: Host) -> None:
    """See that everything is gone, now."""
    assert links(host) == {"lo"}
    assert host.run("ls", STATE, check=False).returncode != 0
    assert not host.run("nft", "list", "ruleset").stdout
    assert not _server(host)


def test_a_stop_ends_with_the_teardown(host: Host, booted: Booted) -> None:
    unit = _service(booted, "vm", *NAT)
    qemu = _up(booted, unit)
    run = booted.shown(unit, "MainPID")
    assert f"qn{run}-0" in links(host)
    keeper = keeper_of(host, run)
    # The keeper is the unit's, so that a stop waits for it; dnsmasq is every run's.
    assert set(booted.pids(unit)) == {qemu, keeper}
    booted.systemctl("stop", unit)
    _none_is_left(host)
    assert booted.shown(unit, "Result") == "success"


@pytest.mark.parametrize("how", ["stopped", "by itself"])
def test_of_two_units_on_a_network_one_ends(host: Host, booted: Booted, how: str) -> None:
    one, other = (_service(booted, name, *NAT) for name in ("one", "other"))
    first = _up(booted, one)
    keeper_of(host, booted.shown(one, "MainPID"))
    second = _up(booted, other)
    (server,) = _server(host)
    if how == "stopped":
        booted.systemctl("stop", one)
    else:
        os.kill(first, signal.SIGTERM)
        wait_for(lambda: booted.shown(one, "ActiveState") == "inactive", "the unit to end")
    assert _server(host) == [server]
    assert links(host) == {"lo", "qn-nat", f"qn{booted.shown(other, 'MainPID')}-0"}
    assert is_qemu(second)
    booted.systemctl("stop", other)
    _none_is_left(host)


def test_a_unit_that_is_restarted(host: Host, booted: Booted) -> None:
    unit = _service(booted, "vm", *NAT, more=("Restart=always", "RestartSec=0"))
    first = _up(booted, unit)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: booted.main(unit) not in (0, first), "another")
    wait_for(lambda: is_qemu(booted.main(unit)), "QEMU")
    assert links(host) == {"lo", "qn-nat", f"qn{booted.shown(unit, 'MainPID')}-0"}
    booted.systemctl("stop", unit)
    _none_is_left(host)


@pytest.mark.parametrize("by_launch", [False, True], ids=["gc", "the next launch"])
def test_a_keeper_that_systemd_kills_too(host: Host, booted: Booted, by_launch: bool) -> None:
    unit = _service(booted, "vm", *NAT, more=("TimeoutStopSec=1",))
    _up(booted, unit)
    run = booted.shown(unit, "MainPID")
    keeper_of(host, run)
    (lock,) = Path(f"/proc/{host.pid}/root{state_folder(host)}/locks").glob("qn-nat")
    holder = host.popen("flock", "--no-fork", str(lock), "sleep", "100", **QUIET)
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for(lambda: comm.read_text("utf-8") == "sleep\n", "the lock to be taken")
    booted.systemctl("stop", unit)
    assert booted.shown(unit, "Result") == "timeout"
    assert runs(host, state_folder(host)) == [run]
    assert "qn-nat" in links(host)
    holder.kill()
    holder.wait(30)
    if by_launch:
        other = _service(booted, "other", "-nic", "host-only")
        _up(booted, other)
        keeper_of(host, booted.shown(other, "MainPID"))  # it has seen to the dead by now
        assert "qn-nat" not in links(host)
        booted.systemctl("stop", other)
    else:
        assert host.run(COMMAND, "gc").stdout == f"released: run {run}\n"
    _none_is_left(host)


def test_a_launch_that_fails_fails_the_unit(host: Host, booted: Booted) -> None:
    unit = _service(booted, "vm", "-nic", "tap,network=nope")
    booted.systemctl("start", unit)
    wait_for(lambda: booted.shown(unit, "ActiveState") == "failed", "the unit to fail")
    assert booted.shown(unit, "ExecMainStatus") == "125"
    _none_is_left(host)


def test_a_program_that_tells_when_it_is_ready(host: Host, booted: Booted, tmp_path: Path) -> None:
    go, program = tmp_path / "go", tmp_path / "qemu-notifier"
    program.write_text(f"#!{sys.executable}\n{_NOTIFIER.format(go=str(go))}", "utf-8")
    program.chmod(0o755)
    unit = _service(booted, "vm", *WRAPPED, str(program), *NAT, more=("Type=notify",))
    booted.systemctl("start", "--no-block", unit)
    wait_for(lambda: "qn-nat" in links(host), "the network")
    assert booted.shown(unit, "ActiveState") == "activating"
    go.touch()
    wait_for(lambda: booted.shown(unit, "ActiveState") == "active", "it to be ready")
    booted.systemctl("stop", unit)
    _none_is_left(host)


def test_a_socket_of_systemds(host: Host, booted: Booted, tmp_path: Path) -> None:
    told = tmp_path / "told"
    text = f'echo "$LISTEN_FDS $LISTEN_PID $$" >{told}~; mv {told}~ {told}; exec sleep 1000'
    unit = _service(booted, "vm", *WRAPPED, script(tmp_path, text), *NAT)
    socket = tmp_path / "socket"
    booted.unit("vm.socket", "[Socket]", f"ListenStream={socket}")
    booted.systemctl("start", "vm.socket", unit)
    wait_for(told.exists, "the program")
    count, to, me = told.read_text("utf-8").split()
    assert (count, to) == ("1", me)
    assert booted.shown(unit, "MainPID") == me
    assert fds(booted.main(unit))[3] == "socket:"
    booted.systemctl("stop", unit, "vm.socket")
    _none_is_left(host)
