"""The error, and the remedy, for a journal that another version has written in another format.

Nothing in it is guessed at: the program that wrote it releases it, or the copy of that program in
the run's folder (runtime.kept_code). The head of a journal says where the program was. It may be
gone, and another user may have put a different one there. The remedy names a command only if no
user but root can change what it runs.
"""

from __future__ import annotations

import os
import shlex

from qemu_netwrap import __version__, record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux.programs import is_trusted

# The kept scripts that release a run, and the descriptors they take: the run's lock, which flock(1)
# opens by the lowest free number, and for `tap_waiter.py` also the one it would sleep on.
_KEPT = {"waiter.py": "3", "tap_waiter.py": "3 0"}


def error(path: str, head: str, ours: int) -> HostError:
    """Return the error for the journal at PATH with a HEAD that is not of format OURS or below."""
    try:
        fields = record_text.read(head)[1]
    except ValueError:
        fields = {}
    number, version = fields.get("format", ""), fields.get("version", "")
    if not (number.isdigit() and version):
        return HostError(
            f"{path}: the line that names its format is damaged: {head!r}",
            f"if it was written by this version ({__version__}), remove that line, and run gc",
        )
    return HostError(
        f"{path}: qemu-netwrap {version} in {fields.get('package', '')} has written it in format"
        f" {number}; this version, {__version__}, reads formats up to {ours}",
        _remedy(os.path.dirname(path), version, fields),
    )


def _remedy(folder: str, version: str, fields: dict[str, str]) -> str:
    """Return the remedy that releases the run or network in FOLDER: a command if there is one."""
    package, python = fields.get("package", ""), fields.get("python", "")
    has_package = _is_roots(f"{package}/qemu_netwrap")
    if has_package and _is_roots(python):
        words = shlex.join([python, "-I", "-m", "qemu_netwrap", "gc"])
        return f"when nothing uses it any more, that version releases it: {words}"
    interpreter = fields.get("interpreter", "")
    # Modules are looked for there before they are in Python's own library.
    places = [f"{folder}/package.zip", *([package] if has_package else [])]
    for name, fds in _KEPT.items() if _is_roots(interpreter) else ():
        if os.path.exists(f"{folder}/{name}") and os.path.exists(places[0]):
            waiter = [interpreter, "-I", "-S", f"{folder}/{name}", folder, *fds.split(), *places]
            words = shlex.join(["flock", "-F", f"{folder}/lock", *waiter])
            return f"when its QEMU is gone, its own copy releases it: {words} </dev/null"
    return f"install qemu-netwrap {version} again, and run its gc when nothing uses it any more"


def _is_roots(path: str) -> bool:
    """Whether there is such a program or folder, and only root decides what it is."""
    return os.path.isabs(path) and os.path.exists(path) and is_trusted(path)
