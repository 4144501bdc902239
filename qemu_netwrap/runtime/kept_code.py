"""A run's own copy of this package, with which its waiter releases it.

The waiter loads its code when QEMU is gone. By then the package that started the run may have been
upgraded, to modules that do not match those it has loaded, or removed with its venv.
So the run's folder has the package as an archive, and the waiter's script. One version's archives
are hard links to one file: the first run packs it, `StateDir.tidy` removes it after the last one.

The keeper hands its run over by the waiter's command line, which states its format: if the package
is replaced while a keeper works, the waiter may be of another version.
"""

from __future__ import annotations

import os
import sys

from qemu_netwrap.linux import files, pyzip
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.state import StateDir

FORMAT = 2  # of the waiter's arguments; format 1 was not stated, and at first named no places
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Copy(Record):
    """A waiter's script, and where it finds this package: the first place that has it."""

    script: str
    places: tuple[str, ...]

    def command(self, folder: str, *fds: int) -> list[str]:
        """Return the waiter's command line for the run in FOLDER.

        The interpreter is named by its real path: a link to it may go with a venv.
        """
        interpreter = os.path.realpath(sys.executable)
        words = (self.script, folder, *map(str, fds), f"format={FORMAT}", *self.places)
        return [interpreter, "-I", "-S", *words]


def keep(state: StateDir, run: str, name: str) -> Copy:
    """Make a run's copy, with the script of `runtime` called NAME; return it.

    If the copy cannot be made (/run may be full), the installed package is used. Its folder is the
    second place in any case: it has pyroute2, which only the release of VF settings needs.
    """
    place = os.path.dirname(_PACKAGE)
    script = f"{_PACKAGE}/runtime/{name}.py"
    kept = f"{state.run(run)}/{name}.py"
    archive = f"{state.run(run)}/package.zip"
    try:
        _put_archive(archive, state.code_folder)
        files.write(kept, files.read(script))
    except OSError:
        return Copy(script, (place,))
    return Copy(kept, (archive, place))


def _put_archive(archive: str, folder: str) -> None:
    """Make ARCHIVE a hard link to this version's archive in FOLDER; pack that if no run has it."""
    shared = f"{folder}/{pyzip.fingerprint(_PACKAGE)}"
    try:
        os.link(shared, archive)
    except FileNotFoundError:
        files.write_bytes(archive, pyzip.pack(_PACKAGE))
        files.make_folder(folder)
        try:
            os.link(archive, shared)
        except (FileExistsError, FileNotFoundError):
            pass  # another run was faster, or the folder was tidied away while it was empty
