"""Which processes have the locks of a run open, given the folder that the locks are in."""

from __future__ import annotations

import os

from qemu_netwrap.linux import files, holders, proc

KEEPERS_FD = 4  # of the keeper's own lock, once it waits


def others(folder: str) -> list[int]:
    """Return the processes that have a run's lock, without its keeper and this process."""
    ours = {*keepers(folder), os.getpid()}
    return [pid for pid in holders.of_file(f"{folder}/lock") if pid not in ours]


def keepers(folder: str) -> list[int]:
    """Return a run's keeper, if it lives: no other process has its lock."""
    path = f"{folder}/keeper"
    if not files.is_locked(path):
        return []
    asleep = [pid for pid in proc.pids() if holders.has_at(pid, KEEPERS_FD, path)]
    return asleep or holders.of_file(path)
