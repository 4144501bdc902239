"""The limit of open files (RLIMIT_NOFILE), checked before anything is acquired.

If it were reached half-way, undoing would fail too.
"""

from __future__ import annotations

import errno
import fcntl
import os

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError

_ENOUGH = 256  # for whatever one process acquires or releases
_SPARE = 16  # open at once while provisioning or releasing, apart from what QEMU inherits


def raise_own() -> None:
    """Raise this process's limit if it is low; not in a process that becomes QEMU."""
    if not 0 <= os.sysconf("SC_OPEN_MAX") < _ENOUGH:
        return
    linux.rlimits.raise_open_files(_ENOUGH)


def require(inherited: int = 0, first: int = 0) -> None:
    """Check that INHERITED descriptors from FIRST on, and some others, can be opened.

    They are opened, and closed again, since this process may have inherited many. Raises
    `HostError`.
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
