"""Which processes hold a file or a tap: looked up by commands, and when a launch has failed.

Files are identified by device and inode, taps by what they answer: see `foreign_fds`. Holding one
does not prove what a process is, since descriptors can be sent to any process.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux
from qemu_netwrap.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.foreign_fds import Kind


def named(pid: int | str) -> str:
    """Return a process as messages name it, `PROGRAM (pid N)`.

    A process can choose its name: characters that a terminal would act on are replaced.
    """
    name = "".join(c if c.isprintable() else "?" for c in proc.name(pid))
    return f"{name} (pid {pid})"


def of_file(path: str) -> list[int]:
    """Return the processes that have the file or device PATH open, or mapped."""
    wanted = linux.foreign_fds.kind(path)
    return [pid for pid in proc.pids() if _has(pid, wanted)] if wanted is not None else []


def lockers(path: str) -> str:
    """Return the processes that have locked the file PATH, as messages name them; else empty.

    The kernel names the process that took the lock (proc_locks(5)). If that has handed it on and
    ended, every process that has the file open is named.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ""
    where = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    rows = (line.split() for line in proc.read("locks").splitlines())
    took = {int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == where}
    living = [pid for pid in took if pid > 0 and proc.exists(pid)]
    others = (pid for pid in of_file(path) if pid != os.getpid())
    return ", ".join(map(_with_state, living or others))


def _with_state(pid: int) -> str:
    """Return a process as messages name it, and whether it is stopped."""
    is_stopped = proc.stat(pid)[: proc.STATE + 1] == ["T"]
    return named(pid) + (", which is stopped," if is_stopped else "")


def has_at(pid: int, fd: int, path: str) -> bool:
    """Whether descriptor FD of a process is the file PATH."""
    wanted = linux.foreign_fds.kind(path)
    return wanted is not None and linux.foreign_fds.kind(f"/proc/{pid}/fd/{fd}") == wanted


def _has(pid: int, wanted: Kind) -> bool:
    """Whether a process has a file open in any of its threads, or mapped."""
    for task in proc.names(f"{pid}/task"):
        folder = f"{pid}/task/{task}/fd"
        paths = (f"/proc/{folder}/{fd}" for fd in proc.names(folder))
        if any(linux.foreign_fds.kind(path) == wanted for path in paths):
            return True
    return not wanted.is_device and _has_mapped(pid, wanted)


def _has_mapped(pid: int, wanted: Kind) -> bool:
    """Whether a process has a file mapped: that keeps it open without a descriptor."""
    device = f"{os.major(wanted.device):02x}:{os.minor(wanted.device):02x}"
    for task in proc.names(f"{pid}/task"):
        text = proc.read(f"{pid}/task/{task}/maps")
        if text:  # the same in all threads; one that has ended shows none
            lines = (line.split(None, 5) for line in text.splitlines())
            return any(words[3:5] == [device, str(wanted.inode)] for words in lines)
    return False


def holder_of_tap(name: str) -> str:
    """Return the process that has tap NAME open, as `PROGRAM (pid N)`; else empty."""
    pid = next(holders_of_tap(name), 0)
    return named(pid) if pid else ""


def holders_of_tap(name: str) -> Iterator[int]:
    """Yield the processes that have tap NAME of this network namespace open."""
    if name:
        yield from (pid for pid in proc.pids() if has_tap(pid, name))


def has_tap(pid: int, name: str) -> bool:
    """Whether a process has tap NAME of this network namespace open.

    The kernel shows the name in the descriptor's fdinfo (drivers/net/tun.c, `tun_chr_show_fdinfo`)
    as long as there is a tap. It may be one of another network namespace, so the tap is asked;
    without the privilege for that, the network namespace of the process decides.
    """
    folder = f"{pid}/fdinfo"
    return any(
        f"iff:\t{name}\n" in proc.read(f"{folder}/{fd}") and _is_tap(pid, int(fd), name)
        for fd in proc.names(folder)
    )


def _is_tap(pid: int, fd: int, name: str) -> bool:
    """Whether a descriptor that shows the name of a tap has the one of this network namespace."""
    asked = linux.foreign_fds.tap(pid, fd)
    if asked is not None:
        return asked == (name, True)
    return proc.is_in_our_network(pid)
