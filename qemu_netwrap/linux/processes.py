"""Processes off the launch path: resource usage (by psutil), descendants, and ending them.

What /proc says about a single process is read by `proc`.
"""

from __future__ import annotations

import signal
import time

import psutil

from qemu_netwrap.linux import proc, waits
from qemu_netwrap.linux.proc import Process
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LOOK_INTERVAL = 0.5  # seconds between two looks for processes started meanwhile
_KILL_TIMEOUT = 5.0  # seconds: one that waits for hardware may survive SIGKILL


class Usage(Record):
    """What a process has used. Times in seconds, memory (resident) in bytes."""

    pid: int
    name: str
    uptime: float
    cpu: float
    memory: int


class Running(Record):
    """A running process, and its parent's pid."""

    process: Process
    parent: int


class Users(Record):
    """The uids of a process: real, effective and saved."""

    real: int
    effective: int
    saved: int

    def may_signal(self, other: Users) -> bool:
        """Whether a process with these uids may signal one with the others (kill(2))."""
        ours = {self.real, self.effective}
        return self.effective == 0 or bool(ours & {other.real, other.saved})


def process_table() -> dict[int, Running]:
    """Return all processes by pid, without zombies."""
    found = {}
    for pid in proc.pids():
        fields = proc.stat(pid)
        # A process whose first thread has ended may have other threads (proc(5): num_threads).
        if fields and not (fields[proc.STATE] in "ZX" and int(fields[proc.THREADS]) <= 1):
            found[pid] = Running(Process(pid, fields[proc.STARTED]), int(fields[proc.PARENT]))
    return found


def descendants(roots: Iterable[int], table: dict[int, Running]) -> list[Running]:
    """Return the children of the processes ROOTS in a table, their children, and so on."""
    children: dict[int, list[Running]] = {}
    for each in table.values():
        children.setdefault(each.parent, []).append(each)
    found: list[Running] = []
    ahead = [*roots]
    seen = {*ahead}
    while ahead:
        fresh = [each for each in children.get(ahead.pop(), []) if each.process.pid not in seen]
        found += fresh
        seen.update(each.process.pid for each in fresh)
        ahead += [each.process.pid for each in fresh]
    return found


def users(pid: int) -> Users | None:
    """Return the uids of a process; None if there is none."""
    ids = proc.users(pid)
    return Users(*ids[:3]) if ids else None


def number_in(pid: int) -> int:
    """Return the pid that a process has in its own pid namespace; 0 if there is none."""
    words = proc.status(pid, "NSpid")
    return int(words[-1]) if words else 0


def usage(pid: int) -> Usage | None:
    """Return what a process has used; None if there is none."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                process.pid,
                process.name(),
                max(0.0, time.time() - process.create_time()),
                times.user + times.system,
                process.memory_info().rss,
            )
    except psutil.Error:
        return None


def running(names: tuple[str, ...]) -> frozenset[str]:
    """Return those of the names that are names of running processes."""
    return frozenset(p.info["name"] for p in psutil.process_iter(["name"])) & frozenset(names)


def stop(look: Callable[[list[Process]], list[Process]], timeout: float) -> list[int]:
    """End processes; return the pids that had to be killed.

    LOOK is given the processes found so far, and returns those that are to be ended and still
    running: they may have started others. They get SIGTERM, and after TIMEOUT seconds SIGKILL.
    """
    asked = _signal_all(look, signal.SIGTERM, [], timeout)
    killed = _signal_all(look, signal.SIGKILL, asked, _KILL_TIMEOUT) if look(asked) else []
    return [process.pid for process in killed]


def _signal_all(
    look: Callable[[list[Process]], list[Process]],
    number: int,
    known: list[Process],
    timeout: float,
) -> list[Process]:
    """Signal each process once, and wait until all have ended, for at most TIMEOUT seconds.

    Return those that were signalled; KNOWN are those found earlier.
    """
    deadline = time.monotonic() + timeout
    signalled: list[Process] = []
    while living := look([*known, *signalled]):
        for process in living:
            if process not in signalled:
                waits.process(process, 0.0, number)
                signalled.append(process)
        if time.monotonic() >= deadline:
            break
        until = min(deadline, time.monotonic() + _LOOK_INTERVAL)
        for process in living:
            waits.process(process, max(0.0, until - time.monotonic()))
    return signalled
