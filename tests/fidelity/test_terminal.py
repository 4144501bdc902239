"""On a real terminal: its keys, its size and its end reach QEMU, and never the keeper."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fidelity.running import (
    QUIET,
    STATE,
    WRAPPED,
    is_qemu,
    keeper_of,
    links,
    runs,
    script,
    stat,
    state,
    state_folder,
)
from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from lab.netns import Host

NAT = ("-netdev", "nat,id=n0")


@pytest.fixture
def held(host: Host) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of the nat network: a launch has to wait for it."""
    folder = state_folder(host)
    host.run("mkdir", "-p", "-m", "711", STATE, folder, f"{folder}/locks")
    lock = f"{folder}/locks/qn-nat"
    holder = host.popen("flock", "--no-fork", lock, "sleep", "100", **QUIET)
    comm = Path(f"/proc/{holder.pid}/comm")
    wait_for(lambda: comm.read_text("utf-8") == "sleep\n", "the lock to be taken")
    yield holder
    holder.kill()
    holder.wait(30)


def _is_waiting(host: Host, pid: int) -> bool:
    """Whether the keeper of a launch has begun, and is in front of its first network."""
    folder = f"/proc/{host.pid}/root{state_folder(host)}/runs/{pid}"
    return Path(f"{folder}/journal").exists()


@pytest.mark.parametrize(
    ("key", "number"), [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT), ("", signal.SIGHUP)]
)
def test_a_launch_that_is_interrupted_leaves_nothing(
    host: Host, held: subprocess.Popen[str], key: str, number: int
) -> None:
    with Terminal(host, "prlimit", "--core=0", *WRAPPED, QEMU, *IDLE, *NAT) as terminal:
        wait_for(lambda: _is_waiting(host, terminal.pid), "the keeper to wait")
        if key:
            terminal.type(key)
        else:
            terminal.hang_up()
        assert terminal.child.wait(30) == -number
        assert "Traceback" not in terminal.shown
        # Its keeper is out of reach; it finds nobody to hand anything to, and undoes it all.
        assert runs(host, state_folder(host)) == [str(terminal.pid)]
        held.kill()
        host.run(COMMAND, "wait")
        folder = f"/proc/{host.pid}/root{STATE}"
        wait_for(lambda: not Path(folder).exists(), "the state to go")
        assert links(host) == {"lo"}


def test_keys_and_jobs_of_a_shell(host: Host) -> None:
    words = shlex.join([*WRAPPED, QEMU, *IDLE, "-serial", "stdio", *NAT])
    with Terminal(host, "env", "PS1=ready% ", "bash", "--norc", "--noprofile", "-i") as terminal:
        terminal.wait_shown("ready%")
        terminal.type(f"{words}\n")
        children = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children")
        wait_for(lambda: bool(children.read_text("utf-8").split()), "a job")
        pid = int(children.read_text("utf-8").split()[0])
        wait_for(lambda: is_qemu(pid), "QEMU")
        keeper = keeper_of(host, pid)
        assert stat(pid)["foreground"] == str(pid)
        assert stat(pid)["group"] == "itself"
        terminal.type("\x1a")
        terminal.wait_shown("Stopped")
        assert state(pid) == "T"
        assert state(keeper) == "S"
        assert f"qn{pid}-0" in links(host)
        terminal.type("fg\n")
        wait_for(lambda: stat(pid)["foreground"] == str(pid), "QEMU in front")
        assert state(keeper) == "S"
        terminal.type("\x03")
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "QEMU to end")
        terminal.type("echo it gave $?.\n")
        terminal.wait_shown("it gave 0.")
        host.run(COMMAND, "wait")
        assert links(host) == {"lo"}
        terminal.type("exit\n")
        assert terminal.child.wait(10) == 0


def test_the_monitors_keys_end_qemu(host: Host) -> None:
    words = ("-accel", "tcg", "-M", "pc", "-m", "32", "-S", "-nographic", "-vga", "none")
    with Terminal(host, *WRAPPED, QEMU, *words, *NAT) as terminal:
        terminal.wait_shown(f"qn{terminal.pid}-0 on nat")
        wait_for(lambda: is_qemu(terminal.pid), "QEMU")
        terminal.type("\x01c")
        terminal.wait_shown("(qemu)")
        terminal.type("\x03")  # with -nographic it is a key for the guest, and no signal
        terminal.type("info network\n")
        terminal.wait_shown("n0: index=0,type=tap")
        terminal.type("\x01x")
        assert terminal.child.wait(30) == 0
        host.run(COMMAND, "wait")


def test_the_windows_size_reaches_qemu(host: Host, tmp_path: Path) -> None:
    text = "trap 'stty size <&1' WINCH; echo begun; while :; do read -t 1 -r _ || sleep 0.02; done"
    program = script(tmp_path, text)
    with Terminal(host, *WRAPPED, program, *NAT) as terminal:
        terminal.wait_shown("begun")
        assert os.tcgetpgrp(terminal.master) == terminal.pid
        terminal.resize(33, 99)
        terminal.wait_shown("33 99")
        terminal.child.kill()
        terminal.child.wait(30)
        host.run(COMMAND, "wait")


def test_the_end_of_the_terminal_ends_qemu_and_its_network(host: Host) -> None:
    host.run("ip", "link", "add", "port", "type", "veth", "peer", "far")
    words = (*IDLE, "-serial", "stdio", *NAT, "-netdev", "bridge,id=n1,br=br7")
    with Terminal(host, *WRAPPED, QEMU, *words) as terminal:
        wait_for(lambda: is_qemu(terminal.pid), "QEMU")
        keeper = keeper_of(host, terminal.pid)
        assert os.readlink(f"/proc/{keeper}/fd/2").startswith("/dev/pts/")
        # The keeper will have something to say, and nobody to say it to.
        host.run("ip", "link", "set", "port", "master", "br7")
        terminal.hang_up()
        assert terminal.child.wait(30) == 0
        host.run(COMMAND, "wait")
        assert links(host) == {"lo", "port", "far", "br7"}
        assert host.run("ls", STATE, check=False).returncode != 0
    host.run("ip", "link", "del", "br7")
    host.run("ip", "link", "del", "port")
