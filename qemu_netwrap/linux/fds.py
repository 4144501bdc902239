"""What QEMU inherits: descriptors by their numbers."""

from __future__ import annotations

import fcntl
import os

# Descriptors of ours are put out of the way of those that the user gives QEMU by number; where the
# limit is too low for that, into the upper half of what there is.
_FIRST_FD = 64
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def inherit_lock(fd: int) -> int:
    """Move a run's lock to where QEMU inherits it; return its number, which is beyond the taps'.

    It is known before there are taps.
    """
    return _move(fd, min(2 * _FIRST_FD, os.sysconf("SC_OPEN_MAX") * 3 // 4))


def inherit(fd: int) -> str:
    """Move a descriptor to where QEMU inherits it; return its number as QEMU is told it."""
    return str(_move(fd, first()))


def first() -> int:
    """Return the number from which on QEMU inherits descriptors of ours."""
    return min(_FIRST_FD, os.sysconf("SC_OPEN_MAX") // 2)


def _move(fd: int, lowest: int) -> int:
    """Move a descriptor to the lowest free number from LOWEST on, for programs to inherit."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)
    os.close(fd)
    return moved


def file_of(data: bytes) -> str:
    """Return a path by which QEMU reads DATA as a file: memfd_create(2), gone with QEMU.

    Whoever has the descriptor may open it, also an ordinary user that QEMU becomes; nobody can
    change it, or execute it.
    """
    written = os.memfd_create("qemu-netwrap", os.MFD_ALLOW_SEALING)
    try:
        os.write(written, data)
        os.fchmod(written, 0o444)
        fcntl.fcntl(written, fcntl.F_ADD_SEALS, _SEALS)
        fd = os.open(f"/proc/self/fd/{written}", os.O_RDONLY)
    finally:
        os.close(written)
    return f"/proc/self/fd/{inherit(fd)}"
