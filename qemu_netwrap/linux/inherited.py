"""What a command changes in its own process, and gives back before it becomes another program."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING, Any

from qemu_netwrap.record import Record

if TYPE_CHECKING:
    from typing import Self


class Inherited(Record):
    """What this process has from its parent."""

    children: Any  # how SIGCHLD is handled, as signal.signal() takes and returns it
    umask: int
    open_files: tuple[int, int]  # RLIMIT_NOFILE, soft and hard

    @classmethod
    def now(cls) -> Self:
        """Return what it has now."""
        umask = os.umask(0o077)
        os.umask(umask)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(signal.getsignal(signal.SIGCHLD), umask, limits)

    def give_back(self) -> None:
        """Restore it."""
        signal.signal(signal.SIGCHLD, self.children)
        os.umask(self.umask)
        resource.setrlimit(resource.RLIMIT_NOFILE, self.open_files)
