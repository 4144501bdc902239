"""What QEMU inherits: descriptors by their numbers."""

from __future__ import annotations

import fcntl
import os

# Descriptors of ours are put out of the way of those that the user gives QEMU by number; where the
# limit is too low for that, into the upper half of what there is.
_FIRST_FD = 64


def inherit(fd: int) -> str:
    """Move a descriptor to where QEMU inherits it; return its number as QEMU is told it."""
    first = min(_FIRST_FD, os.sysconf("SC_OPEN_MAX") // 2)
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, first)
    os.close(fd)
    return str(moved)


def file_of(data: bytes) -> str:
    """Return a path by which QEMU reads DATA as a file: memfd_create(2), gone with QEMU.

    Whoever has the descriptor may open it, also an ordinary user that QEMU becomes.
    """
    fd = os.memfd_create("qemu-netwrap", 0)
    os.write(fd, data)
    return f"/proc/self/fd/{inherit(fd)}"
