"""Process ids that are used again: a number that was ours tells nothing of who has it now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from fidelity.running import STATE, WRAPPED, below, is_asleep, is_qemu, keeper_of, links
from lab.netns import wait_for
from lab.tool import COMMAND, IDLE, QEMU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

# The first process of a namespace, which buries whatever has lost its parent.
_FIRST: Final = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.pause()"
# Becomes the words behind it as the process of a number: the kernel gives the next one out.
_AT: Final = """
import os, sys
number = int(sys.argv[1])
for _ in range(100):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))
    child = os.fork()
    if child == 0:
        if os.getpid() == number:
            os.setsid()
            os.execvp(sys.argv[2], sys.argv[2:])
        os._exit(0)
    if child == number:
        sys.exit(0)
    os.waitpid(child, 0)
sys.exit("somebody has that number")
"""


class Numbered:
    """A namespace of process ids on a machine, in which the test says which one is next."""

    def __init__(self, host: Host) -> None:
        """Make the namespace."""
        self.host = host
        inside = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
        self._outside = host.popen(*inside, sys.executable, "-c", _FIRST, stderr=subprocess.DEVNULL)
        wait_for(lambda: bool(below(self._outside.pid)), "the namespace")
        (self.first,) = below(self._outside.pid)
        status = Path(f"/proc/{self.first}/status")
        wait_for(lambda: _has(status, signal.SIGCHLD), "its first process to bury")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace."""
        inside = ("nsenter", f"--target={self.first}", "--mount", "--pid")
        return self.host.run(*inside, *words, check=check)

    def start(self, number: int, *words: str) -> int:
        """Start a command as process NUMBER; return its number outside."""
        quiet = ("sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh")
        self.run(sys.executable, "-c", _AT, str(number), *quiet, *words)
        return self.outside(number)

    def outside(self, number: int) -> int:
        """Return the number that a process of the namespace has outside; 0 when it is gone."""
        return next((pid for pid in self.host.processes() if self._number(pid) == number), 0)

    def number(self, pid: int) -> int:
        """Return the number in the namespace of a process outside."""
        found = self._number(pid)
        assert found, f"{pid} is not in there"
        return found

    def kill(self, *numbers: int) -> None:
        """Kill processes, and return when their numbers are free."""
        pids = [self.outside(number) for number in numbers]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the dead")

    def close(self) -> None:
        """End all that is in the namespace."""
        self._outside.kill()
        self._outside.wait(30)

    def _number(self, pid: int) -> int:
        """Return a process's number in the namespace; 0 when it is not in there, or gone."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        except OSError:
            return 0
        numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
        return int(numbers[-1]) if len(numbers) > 1 else 0


@pytest.fixture
def numbered(host: Host) -> Iterator[Numbered]:
    """Yield a namespace of process ids on the machine."""
    found = Numbered(host)
    yield found
    found.close()


def _has(status: Path, number: int) -> bool:
    """Whether a process ignores a signal."""
    lines = status.read_text("utf-8").splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> number - 1 & 1)


def _launch(numbered: Numbered, number: int, *words: str) -> int:
    """Start a run as process NUMBER; return when QEMU is up and its keeper sleeps."""
    pid = numbered.start(number, *WRAPPED, QEMU, *IDLE, *words)
    wait_for(lambda: is_qemu(pid), "QEMU")
    return pid


def _dead(numbered: Numbered, number: int) -> tuple[int, ...]:
    """Have a run, QEMU's process id being NUMBER, die with all that is its; return the numbers."""
    host = numbered.host
    _launch(numbered, number, "-nic", "nat")
    keeper = numbered.number(keeper_of(host, number))
    (server,) = (pid for pid, words in host.processes().items() if words.startswith("dnsmasq "))
    dead = (number, keeper, numbered.number(server))
    numbered.kill(*(dead[1], dead[0], dead[2]))  # the keeper first, or it would clean up
    return dead


HOW: Final = {
    "stop": (COMMAND, "stop", "300"),
    "wait": (COMMAND, "wait"),
    "gc": (COMMAND, "gc"),
    "the next launch": (*WRAPPED, "true", "-nic", "nat"),
    "another network's": (*WRAPPED, "true", "-nic", "host-only"),
}


@pytest.mark.parametrize("words", HOW.values(), ids=[*HOW])
def test_others_with_the_numbers_of_a_dead_run(
    host: Host, numbered: Numbered, words: tuple[str, ...]
) -> None:
    dead = _dead(numbered, 300)
    others = {number: numbered.start(number, "sleep", "1000") for number in dead}
    for pid in others.values():
        wait_for(lambda: is_asleep(pid), "another process")  # noqa: B023
    shown = numbered.run(COMMAND, "ps").stdout
    assert "dead" in next(line for line in shown.splitlines() if line.startswith("300"))
    numbered.run(*words)
    numbered.run(COMMAND, "wait")
    assert links(host) == {"lo"}
    assert host.run("ls", STATE, check=False).returncode != 0
    for number, pid in others.items():
        assert numbered.outside(number) == pid, f"who had {number} has been ended"
        assert is_asleep(pid)


@pytest.mark.parametrize("whose", ["QEMU", "keeper", "dnsmasq"])
def test_a_qemu_with_the_number_of_a_dead_one(host: Host, numbered: Numbered, whose: str) -> None:
    number = dict(zip(("QEMU", "keeper", "dnsmasq"), _dead(numbered, 300), strict=True))[whose]
    qemu = _launch(numbered, number, "-nic", "nat")
    run = f"{number}a" if whose == "QEMU" else f"{number}"
    keeper_of(host, run)  # it has seen to the dead run by now
    assert links(host) == {"lo", "qn-nat", f"qn{run}-0"}
    assert numbered.run(COMMAND, "gc").stdout == "nothing was left\n"
    assert is_qemu(qemu)
    numbered.run(COMMAND, "stop", str(number))  # its process id, as ps tells it
    assert not Path(f"/proc/{qemu}").exists()
    assert links(host) == {"lo"}
