"""Who holds something: looked up when a launch has failed on it, and by commands that ask."""

from __future__ import annotations

import os

from qemu_netwrap.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def named(pid: int | str) -> str:
    """Return a process as messages name it, `PROGRAM (pid N)`."""
    return f"{files.peek(f'/proc/{pid}/comm').strip()} (pid {pid})"


def holder_of_tap(name: str) -> str:
    """Return the process that has tap NAME open, as `PROGRAM (pid N)`; empty if none is seen."""
    pid = next(holders_of_tap(name), 0)
    return named(pid) if pid else ""


def holders_of_tap(name: str) -> Iterator[int]:
    """Yield the processes of this network namespace that have tap NAME open.

    The kernel shows the interface's name in the descriptor's fdinfo (drivers/net/tun.c,
    `tun_chr_show_fdinfo`), and none for a descriptor that has no tap, or none any more.
    """
    if not name:
        return
    here = os.stat("/proc/self/ns/net")
    for pid in filter(str.isdigit, files.listdir("/proc")):
        try:
            if os.path.samestat(here, os.stat(f"/proc/{pid}/ns/net")) and _has_tap(pid, name):
                yield int(pid)
        except OSError:
            continue


def _has_tap(pid: str, name: str) -> bool:
    """Whether a process has tap NAME open."""
    folder = f"/proc/{pid}/fdinfo"
    return any(f"iff:\t{name}\n" in files.read(f"{folder}/{fd}") for fd in files.listdir(folder))
