"""Which process is which: by its pid and its start time, a pair that no two processes share."""

from __future__ import annotations

import os

from qemu_netwrap.linux import files
from qemu_netwrap.record import Record


class Process(Record):
    """A process, told from a later one of the same number by its start time."""

    pid: int
    started: str  # field 22 of proc(5)'s stat: clock ticks since boot


def of(pid: int) -> Process:
    """Return the process that has number PID now; its start time is empty if none has."""
    return Process(pid, started(pid))


def started(pid: int | str) -> str:
    """Return a process's start time; empty when it is gone."""
    stat = files.peek(f"/proc/{pid}/stat")
    # The name, in parentheses, may hold anything; fields are counted from behind it.
    return stat.rpartition(")")[2].split()[19] if stat else ""


def lives(process: Process) -> bool:
    """Whether a process is there still, and not another one of its number."""
    return started(process.pid) == process.started


def user(pid: int | str) -> int:
    """Return the user who has started a process (its real one); -1 when it is gone.

    A setuid program's is still the user's own, unlike the owner of its folder in /proc.
    """
    words = files.peek(f"/proc/{pid}/status").partition("\nUid:")[2].split()
    return int(words[0]) if words else -1


def namespace(pid: int | str = "self") -> str:
    """Return the number of a process's namespace of process ids; empty if it is not shown."""
    try:
        return str(os.stat(f"/proc/{pid}/ns/pid").st_ino)
    except OSError:
        return ""
