"""The end of a run: what the waiter does when QEMU is gone."""

from __future__ import annotations

import os

from qemu_netwrap.host import files
from qemu_netwrap.life import runs
from qemu_netwrap.life.state import State


def finish(folder: str, lock: int) -> None:
    """Release the run whose lock has just been taken.

    What could not be released is told on the terminal and in the run's folder, which then stays.
    """
    if not files.same_file(lock, f"{folder}/lock"):
        return  # somebody else has released it
    base, _, run = folder.rpartition("/runs/")
    errors = runs.release(State(base), run, _complain)
    for error in errors:
        _complain(error.message)
    if errors:
        lines = [f"{e.message}\n" for e in errors]
        files.write(f"{folder}/log", "".join(lines))


def _complain(line: str) -> None:
    """Say what went wrong on the terminal, if it is there still."""
    try:
        os.write(2, f"qemu-netwrap: {line}\n".encode("utf-8", "replace"))
    except OSError:
        pass
