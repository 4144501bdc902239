"""The end of a run: what the waiter does when QEMU is gone."""

from __future__ import annotations

from qemu_netwrap.linux import files
from qemu_netwrap.report import tell
from qemu_netwrap.runtime import runs
from qemu_netwrap.state import StateDir

_FIRST_FD = 3  # after the standard ones


def finish(folder: str, lock: int) -> None:
    """Release the run whose lock has just been taken.

    What could not be released is told on the terminal and in the run's folder, which then stays.
    """
    # The locks came by way of exec. An nft that outlives us must not have them: a run that is dead
    # would be taken for one that is seen to.
    files.keep_from_programs(_FIRST_FD)
    if not files.same_file(lock, f"{folder}/lock"):
        return  # somebody else has released it
    state, run = StateDir.of_folder(folder)
    errors = runs.release(state, run, tell)
    for error in errors:
        tell(error.message)
    if errors:
        lines = [f"{e.message}\n" for e in errors]
        files.write(f"{folder}/log", "".join(lines))
