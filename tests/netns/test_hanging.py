"""Programs that hang and keepers that are stopped: nobody waits in silence, or for ever."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from lab.leaks import snapshot, wait_same
from lab.netns import wait_for
from lab.tool import COMMAND, netwrap, running

if TYPE_CHECKING:
    from lab.leaks import Snapshot
    from lab.netns import Host, Uplinked

HANGS: Final = "#!/bin/sh\nexec sleep infinity\n"
NAT: Final = (COMMAND, "--", "true", "-nic", "nat")
GIVEN_UP: Final = ("dnsmasq", "nft")


@pytest.fixture
def before(uplinked: Uplinked) -> Snapshot:
    return snapshot(uplinked.host)


def replace(host: Host, program: str) -> None:
    """Have a program of the host hang; `restore` undoes that."""
    host.write(f"/run/{program}", HANGS, mode=0o755)
    host.run("mount", "--bind", f"/run/{program}", f"/usr/sbin/{program}")


def restore(host: Host, program: str) -> None:
    """Have the real program in its place again."""
    host.run("umount", f"/usr/sbin/{program}")


def hanging(host: Host) -> list[int]:
    """Return the stand-ins that hang."""
    return [pid for pid, words in host.processes().items() if words == "sleep infinity"]


def start(host: Host, *words: str) -> subprocess.Popen[str]:
    """Launch, and return when something hangs."""
    child = host.popen(*(words or NAT), stderr=subprocess.PIPE)
    wait_for(lambda: bool(hanging(host)), "the program that hangs")
    return child


def keeper(host: Host) -> int:
    """Return the keeper, who has the one launch's locks."""
    (pid,) = (int(Path(f"/proc/{pid}/stat").read_text("utf-8").split()[3]) for pid in hanging(host))
    return pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_who_gives_up_has_it_undone(uplinked: Uplinked, before: Snapshot, number: int) -> None:
    """At once: the keeper does not wait for what nobody wants any more."""
    host = uplinked.host
    replace(host, "dnsmasq")
    child = start(host)
    child.send_signal(number)
    child.wait(30)
    wait_for(lambda: not hanging(host), "the stand-in to go")
    restore(host, "dnsmasq")
    wait_same(host, before)


@pytest.mark.parametrize("program", GIVEN_UP)
def test_what_hangs_is_killed_and_named(uplinked: Uplinked, program: str) -> None:
    host = uplinked.host
    replace(host, program)
    done = host.run(*NAT, check=False, timeout=300)
    assert done.returncode == 125
    assert f"{program} " in done.stderr
    assert "has not ended within 20 seconds" in done.stderr
    assert not hanging(host)
    restore(host, program)
    assert netwrap(host, "gc").returncode == 0
    assert netwrap(host, "--", "true", "-nic", "nat").returncode == 0
    netwrap(host, "wait", check=True)


def test_ps_does_not_hang(uplinked: Uplinked) -> None:
    host = uplinked.host
    with running(host):
        replace(host, "nft")
        assert "qn-nat" in host.run(COMMAND, "ps", timeout=120).stdout
        restore(host, "nft")
    netwrap(host, "wait", check=True)


@pytest.mark.parametrize("words", [NAT, (COMMAND, "network", "up", "nat")])
def test_a_stopped_keeper_is_named_and_does_not_hold_the_user(
    uplinked: Uplinked, words: tuple[str, ...]
) -> None:
    """Another command says for whom it waits, and ends when it is told to."""
    host = uplinked.host
    replace(host, "dnsmasq")
    first = start(host)
    pid = keeper(host)
    os.kill(pid, signal.SIGSTOP)
    try:
        second = host.popen(*words, stderr=subprocess.PIPE)
        assert second.stderr is not None
        said = iter(second.stderr.readline, "")
        line = next(line for line in said if "waiting for" in line)
        assert f"(pid {pid}), which is stopped" in line
        second.send_signal(signal.SIGINT)
        if words is not NAT:  # it undoes what it did, and would wait for that
            next(line for line in said if "waiting for" in line)
            second.send_signal(signal.SIGINT)
        second.wait(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    first.send_signal(signal.SIGINT)
    first.wait(30)
    wait_for(lambda: not hanging(host), "the stand-in to go")
    restore(host, "dnsmasq")
    netwrap(host, "gc", check=True)  # what was left to the next one


def test_the_launcher_says_that_its_keeper_is_silent(uplinked: Uplinked, before: Snapshot) -> None:
    host = uplinked.host
    replace(host, "dnsmasq")
    child = start(host)
    pid = keeper(host)
    os.kill(pid, signal.SIGSTOP)
    assert child.stderr is not None
    assert any("has said nothing" in line for line in iter(child.stderr.readline, ""))
    child.send_signal(signal.SIGINT)
    child.wait(30)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not hanging(host), "the stand-in to go")
    restore(host, "dnsmasq")
    wait_same(host, before)
