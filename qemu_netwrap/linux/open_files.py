"""The limit of open files (RLIMIT_NOFILE): seen to before anything is made.

Where it is reached half-way, undoing fails by it as well.
"""

from __future__ import annotations

import errno
import fcntl
import os

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError

_ENOUGH = 256  # for whatever a process of ours makes or releases
_SPARE = 16  # what provisioning and releasing have open at once, beside what QEMU inherits


def raise_own() -> None:
    """Raise this process's limit if it is low, and it may; not in one that becomes QEMU."""
    if not 0 <= os.sysconf("SC_OPEN_MAX") < _ENOUGH:
        return
    linux.rlimits.raise_open_files(_ENOUGH)


def require(inherited: int = 0, first: int = 0) -> None:
    """See that there is room for INHERITED descriptors from FIRST on, and for some others.

    They are opened, and closed again: who has started this process may have opened many.
    Raises `HostError`.
    """
    held: list[int] = []
    try:
        held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for lowest in (first,) * inherited + (0,) * _SPARE:
            held.append(fcntl.fcntl(held[0], fcntl.F_DUPFD_CLOEXEC, lowest))
    except OSError as error:
        _close(held)
        if error.errno != errno.EMFILE:
            raise

        limit = os.sysconf("SC_OPEN_MAX")
        raise HostError(
            f"the limit of open files is {limit}: too few for what has to be open at once",
            linux.remedies.remedy(error, ""),
        ) from error
    _close(held)


def _close(fds: list[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)
