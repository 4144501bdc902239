"""Processes as /proc shows them (proc(5)): the only reader of /proc/PID.

For what identifies a process and what belongs to it; it is small, so that a launch can load it.
What a process has used (CPU time, memory) is measured by psutil, off the launch path, in
`processes`.

A pid may be that of a process that has ended, and much of /proc is shown to root alone: what cannot
be read is empty, and nothing is raised.
"""

from __future__ import annotations

import os

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# Fields of /proc/PID/stat, counted from the one behind the name.
STATE, PARENT, THREADS, STARTED = 0, 1, 17, 19
# What networks need: for bridges and taps; for dnsmasq's ports, its raw socket and its user.
# The numbers are those of linux/capability.h.
_NUMBERS = {"net_admin": 12, "net_raw": 13, "net_bind_service": 10, "setuid": 7, "setgid": 6}
CAPABILITIES = tuple(_NUMBERS)
MAPS_ROOT = "setfcap"  # what root needs to be root of a user namespace (user_namespaces(7))
_NUMBERS[MAPS_ROOT] = 31


# Asks a process that may see more than this one: `linux.outside` sets it.
outside: Callable[..., Any] | None = None
_ALL_IDS = [["0", "0", "4294967295"]]


class Process(Record):
    """A process, distinguished by its start time from a later one with the same pid."""

    pid: int
    started: str  # clock ticks since boot


def read(path: str) -> str:
    """Return the text of a file, its PATH given from /proc on."""
    try:
        return _text(path)
    except PermissionError:
        return outside("read", path) or "" if outside is not None else ""
    except OSError:
        return ""


def names(path: str) -> list[str]:
    """Return the names in a folder, its PATH given from /proc on."""
    try:
        return os.listdir(f"/proc/{path}")
    except PermissionError:
        return outside("names", path) or [] if outside is not None else []
    except OSError:
        return []


def pids() -> list[int]:
    """Return the pids of all processes, in ascending order."""
    return sorted(int(name) for name in names("") if name.isdigit())


def exists(pid: int | str) -> bool:
    """Whether there is a process with that pid; a zombie is one."""
    return os.path.exists(f"/proc/{pid}")


def of(pid: int) -> Process:
    """Return the process that has that pid now; its start time is empty if there is none."""
    return Process(pid, started(pid))


def lives(process: Process) -> bool:
    """Whether a process still exists, and its pid has not gone to another one."""
    return started(process.pid) == process.started


def is_running(process: Process) -> bool:
    """Whether a process lives and is no zombie, which is left of one until its parent reaps it."""
    fields = stat(process.pid)
    return bool(fields) and fields[STARTED] == process.started and fields[STATE] != "Z"


def stat(pid: int | str) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name: see `STATE` and the others."""
    # The name, in parentheses, may contain anything, spaces and parentheses too.
    return read(f"{pid}/stat").rpartition(")")[2].split()


def started(pid: int | str) -> str:
    """Return a process's start time, in clock ticks since boot; empty if there is none."""
    fields = stat(pid)
    return fields[STARTED] if fields else ""


def lineage(pid: int) -> Iterator[int]:
    """Yield PID, its parent, and so on, without the first process."""
    while pid > 1:
        yield pid
        fields = stat(pid)
        pid = int(fields[PARENT]) if fields else 0


def children(pid: int) -> list[int]:
    """Return the pids of the children that a process's first thread has started."""
    return [int(word) for word in read(f"{pid}/task/{pid}/children").split()]


def name(pid: int | str) -> str:
    """Return a process's name: the program's, or one that the process chose; 15 bytes at most."""
    return read(f"{pid}/comm").removesuffix("\n")


def command(pid: int | str) -> list[str]:
    """Return a process's arguments. Processes can overwrite them."""
    text = read(f"{pid}/cmdline")
    return text.removesuffix("\0").split("\0") if text else []


def environment(pid: int) -> dict[str, str] | None:
    """Return the environment that a process's program was started in; None if it is not shown."""
    try:
        text = _text(f"{pid}/environ")
    except OSError:
        return None
    return {key: value for key, _, value in (entry.partition("=") for entry in text.split("\0"))}


def status(pid: int | str, field: str) -> list[str]:
    """Return the words of a field of /proc/PID/status."""
    return read(f"{pid}/status").partition(f"\n{field}:")[2].partition("\n")[0].split()


def users(pid: int | str) -> tuple[int, ...]:
    """Return a process's uids: real, effective, saved, and that for files; or an empty tuple."""
    return tuple(map(int, status(pid, "Uid")))


def user(pid: int | str) -> int:
    """Return the uid of the user who started a process (the real one); -1 if there is none.

    Unlike the owner of the folder in /proc, this is the user also for a setuid program.
    """
    return next(iter(users(pid)), -1)


def owner(pid: int | str) -> int:
    """Return the uid that the folder of a process belongs to; -1 if there is none.

    This is the effective uid, or root's for a process that cannot be traced (PR_SET_DUMPABLE).
    """
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def mapped_ids(kind: str) -> list[list[str]]:
    """Return the rows of this process's `uid_map` or `gid_map` (KIND), three numbers each."""
    return [line.split() for line in read(f"self/{kind}").splitlines()]


def maps_all_ids() -> bool:
    """Whether all ids are mapped to themselves: this process is in the host's user namespace."""
    return mapped_ids("uid_map") == _ALL_IDS


def pid_namespace(pid: int | str = "self") -> str:
    """Return the inode number of a process's pid namespace; empty if it is not shown."""
    found = _identity(f"{pid}/ns/pid")
    return str(found[1]) if found is not None else ""


def is_in_our_network(pid: int) -> bool:
    """Whether a process is in the network namespace of this one; not if it is not shown."""
    found = _identity(f"{pid}/ns/net")
    return found is not None and found == _identity("self/ns/net")


def runs_program(pid: int, path: str) -> bool:
    """Whether a process runs the program PATH; not if it is not shown."""
    found = _identity(f"{pid}/exe")
    return found is not None and found == _identity(path)


def fds(pid: int) -> list[int]:
    """Return the numbers of a process's open descriptors."""
    return [int(number) for number in names(f"{pid}/fd")]


def fd_links(pid: int) -> Iterator[str]:
    """Yield what a process's descriptors are: `socket:[INODE]`, or paths as the process has them.

    A process can choose such a path: see `foreign_fds`.
    """
    for fd in fds(pid):
        try:
            yield os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed meanwhile


def sockets(table: str, port: int, pid: int | str = "self") -> set[str]:
    """Return the sockets that are bound to a port, as `fd_links` yields them.

    TABLE is a file of /proc/net (`tcp`, `udp6`), that of the process's network namespace.
    """
    rows = (line.split() for line in read(f"{pid}/net/{table}").splitlines()[1:])
    return {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}


def _text(path: str) -> str:
    """Return the text of a file, its PATH given from /proc on. Raises `OSError`."""
    with open(f"/proc/{path}", encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, its PATH absolute or given from /proc on."""
    try:
        found = os.stat(os.path.join("/proc", path))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def capabilities() -> frozenset[str]:
    """Return those of `CAPABILITIES` and `MAPS_ROOT` that this process has."""
    bits = int(status("self", "CapEff")[0], 16)
    return frozenset(name for name, number in _NUMBERS.items() if bits >> number & 1)
