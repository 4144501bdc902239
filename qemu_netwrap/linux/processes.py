"""Processes: how they fare, by psutil; their kin; and how they are ended."""

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


class Kin(Record):
    """A process that lives, and its parent's pid."""

    process: Process
    parent: int


class Users(Record):
    """The users of a process: who it is (real), acts as (effective), and can become (saved)."""

    real: int
    effective: int
    saved: int

    def may_signal(self, other: Users) -> bool:
        """Whether the kernel lets a process of these users signal one of others (kill(2))."""
        ours = {self.real, self.effective}
        return self.effective == 0 or bool(ours & {other.real, other.saved})


def all_kin() -> dict[int, Kin]:
    """Return all processes by pid. One that has ended is none, also where nobody has buried it."""
    found = {}
    for pid in proc.pids():
        fields = proc.stat(pid)
        # Whose first thread has ended may have others (proc(5): state, num_threads).
        if fields and not (fields[proc.STATE] in "ZX" and int(fields[proc.THREADS]) <= 1):
            found[pid] = Kin(Process(pid, fields[proc.STARTED]), int(fields[proc.PARENT]))
    return found


def below(roots: Iterable[int], kin: dict[int, Kin]) -> list[Kin]:
    """Return the children of processes, theirs, and so on."""
    children: dict[int, list[Kin]] = {}
    for each in kin.values():
        children.setdefault(each.parent, []).append(each)
    found: list[Kin] = []
    ahead = [*roots]
    seen = {*ahead}
    while ahead:
        fresh = [each for each in children.get(ahead.pop(), []) if each.process.pid not in seen]
        found += fresh
        seen.update(each.process.pid for each in fresh)
        ahead += [each.process.pid for each in fresh]
    return found


def users(pid: int) -> Users | None:
    """Return the users of a process; None when it is gone."""
    ids = proc.users(pid)
    return Users(*ids[:3]) if ids else None


def number_in(pid: int) -> int:
    """Return the number that a process has in its own namespace of process ids; 0 if it is gone."""
    words = proc.status(pid, "NSpid")
    return int(words[-1]) if words else 0


def usage(pid: int) -> Usage | None:
    """Return what a process has used; None when it is gone."""
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
    """Return those of the named programs that run."""
    return frozenset(p.info["name"] for p in psutil.process_iter(["name"])) & frozenset(names)


def stop(look: Callable[[list[Process]], list[Process]], timeout: float) -> list[int]:
    """End processes; return the pids that had to be killed.

    LOOK returns those to end that live, of which it is given the ones found so far: they start
    others meanwhile. They are asked first (SIGTERM) and killed after TIMEOUT seconds.
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
    """Signal each process once and wait until all have ended, TIMEOUT seconds at most.

    Return those that got the signal; KNOWN are those found earlier.
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
