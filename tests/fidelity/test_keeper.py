"""The keeper, while QEMU lives: apart from everything, asleep, and not to be got rid of."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fidelity.running import (
    end,
    fds,
    is_qemu,
    keeper_of,
    keepers_fds,
    links,
    signals,
    start,
    stat,
    state,
)
from lab.netns import wait_for
from lab.terminal import Terminal
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from lab.netns import Host

# What ends or stops a process by default, and is sent to all processes of a session, a service or
# a terminal when that ends. SIGKILL is the one that nobody escapes.
SENT = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCONT),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD),
)


def _switches(pid: int) -> list[str]:
    """Return how often a process has been scheduled."""
    return re.findall(r"ctxt_switches:\s*(\d+)", Path(f"/proc/{pid}/status").read_text("utf-8"))


def test_the_keeper_is_apart_from_everything(host: Host) -> None:
    with Terminal(host, COMMAND, "--", QEMU, *IDLE, "-nic", "nat") as terminal:
        wait_for(lambda: is_qemu(terminal.pid), "QEMU")
        keeper = keeper_of(host, terminal.pid)
        seen, qemus = stat(keeper), stat(terminal.pid)
        assert seen["terminal"] == "0"
        assert qemus["terminal"] != "0"
        assert seen["session"] not in (qemus["session"], "itself", str(terminal.pid))
        assert seen["group"] not in (qemus["group"], "itself", str(terminal.pid))
        assert seen["parent"] not in (str(terminal.pid), qemus["parent"])
        assert Path(f"/proc/{keeper}/cwd").readlink() == Path("/")
        found = fds(keeper)
        assert set(found) == {0, 1, 2, 3, 4, 5}
        assert {found[0], found[1]} == {"/dev/null"}
        assert found[2].startswith("/dev/pts/")  # where it would tell what it cannot release
        assert [Path(found[n]).name for n in (3, 4, 5)] == ["lock", "keeper", "lock"]
        assert len(list(Path(f"/proc/{keeper}/task").iterdir())) == 1
        terminal.type("\x03")
        assert terminal.child.wait(30) == 0
        host.run(COMMAND, "wait")


def test_the_keeper_sleeps_all_the_time(host: Host) -> None:
    child = start(host, "-nic", "nat")
    keeper = keeper_of(host, child.pid)
    stack = Path(f"/proc/{keeper}/stack")
    wait_for(lambda: "flock" in stack.read_text("utf-8"), "the keeper to wait for the lock")
    before = _switches(keeper)
    time.sleep(2.5)
    assert _switches(keeper) == before
    assert end(host, child) == 0


def test_without_flock_it_sleeps_itself(host: Host) -> None:
    host.run("mount", "--bind", "/dev/null", "/usr/bin/flock")
    child = start(host, "-nic", "nat")
    keeper = keeper_of(host, child.pid)
    assert Path(f"/proc/{keeper}/exe").resolve().name.startswith("python")
    assert end(host, child) == 0
    host.run("umount", "/usr/bin/flock")


def test_the_keeper_outlives_what_a_session_manager_sends(host: Host) -> None:
    child = start(host, "-nic", "nat")
    keeper = keeper_of(host, child.pid)
    for number in SENT:
        os.kill(keeper, number)
    wait_for(lambda: state(keeper) == "S", "it to sleep on")
    assert keepers_fds(keeper) == {"null", "lock", "keeper"}
    assert f"qn{child.pid}-0" in links(host)
    assert end(host, child, signal.SIGKILL) == -signal.SIGKILL
    assert links(host) == {"lo"}


def test_what_qemu_has_blocked_or_ignored_does_not_trouble_the_keeper(host: Host) -> None:
    # A dnsmasq that did not hear SIGTERM would have to be killed, five seconds later.
    before = ("env", "--block-signal", "--ignore-signal=CHLD")
    child = start(host, "-nic", "nat", before=before)
    keeper = keeper_of(host, child.pid)
    assert not signals(keeper, "SigBlk")
    assert signal.SIGCHLD not in signals(keeper, "SigIgn")
    assert signal.SIGCHLD in signals(child.pid, "SigBlk")
    (server,) = (pid for pid, words in host.processes().items() if words.startswith("dnsmasq "))
    assert signal.SIGTERM not in signals(server, "SigBlk")
    assert end(host, child, signal.SIGKILL) == -signal.SIGKILL
