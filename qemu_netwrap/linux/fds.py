"""Descriptors that QEMU inherits, by number."""

from __future__ import annotations

import fcntl
import os

# From here on, out of the way of descriptors that the user passes to QEMU by number; or from the
# middle of what the limit of open files allows, if that is lower.
_FIRST_FD = 64
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def inherit_lock(fd: int) -> int:
    """Move a run's lock to where QEMU inherits it; return its number, beyond those of the taps.

    So the number is known before there are taps.
    """
    return _move(fd, min(2 * _FIRST_FD, os.sysconf("SC_OPEN_MAX") * 3 // 4))


def inherit(fd: int) -> str:
    """Move a descriptor to where QEMU inherits it; return its number, as text."""
    return str(_move(fd, first()))


def first() -> int:
    """Return the lowest number of a descriptor that QEMU inherits from qemu-netwrap."""
    return min(_FIRST_FD, os.sysconf("SC_OPEN_MAX") // 2)


def _move(fd: int, lowest: int) -> int:
    """Move a descriptor to the lowest free number from LOWEST on, and make it inheritable."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)
    os.close(fd)
    return moved


def file_of(data: bytes) -> str:
    """Return a path by which QEMU reads DATA as a file, which goes with QEMU (memfd_create(2)).

    Every process that has the descriptor may open it, also as an ordinary user; no process can
    change or execute it.
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
