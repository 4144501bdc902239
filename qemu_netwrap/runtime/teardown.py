"""The end of a run: what the waiter does when QEMU is gone."""

from __future__ import annotations

from qemu_netwrap.linux import files
from qemu_netwrap.report import tell
from qemu_netwrap.runtime import runs
from qemu_netwrap.state import StateDir

_FIRST_FD = 3  # after the standard ones


def finish(folder: str, lock: int) -> None:
    """Release the run whose lock has just been taken.

    Errors are printed on stderr and written to the run's folder, which then stays.
    """
    # The lock descriptors were inherited across exec. Make them close-on-exec: a child such as nft
    # that outlives the waiter would otherwise make a dead run look alive.
    files.keep_from_programs(_FIRST_FD)
    if not files.same_file(lock, f"{folder}/lock"):
        return  # another process has released the run
    state, run = StateDir.of_folder(folder)
    errors = runs.release(state, run, tell)
    for error in errors:
        tell(error.message)
    if errors:
        lines = [f"{e.message}\n" for e in errors]
        files.write(f"{folder}/log", "".join(lines))
