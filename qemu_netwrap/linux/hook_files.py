"""The scripts in /etc that QEMU runs by default: installed, and the former ones restored."""

from __future__ import annotations

import os
import shlex

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files
from qemu_netwrap.linux.installed import installed
from qemu_netwrap.record import Record

NAMES = ("qemu-ifup", "qemu-ifdown")
SAVED = ".before-qemu-netwrap"
_MARK = "# qemu-netwrap hooks install put this here; qemu-netwrap hooks remove takes it away."

OURS = "installed"
BROKEN = "installed, but the program it calls is gone"
FOREIGN = "another program's"
MISSING = "not installed"


class Hook(Record):
    """One of the scripts: its path, whose it is, and where the former one is kept."""

    path: str
    state: str
    saved: str = ""


def status(root: str = "") -> list[Hook]:
    """Return the state of the scripts below folder ROOT."""
    return [_look(path) for path in _paths(root)]


def install(root: str = "") -> list[Hook]:
    """Install the scripts below folder ROOT; existing ones are kept beside them.

    They are files that run the installed program, not links to it: package managers write through
    links. Raises `HostError` if there is no place to keep an existing script.
    """
    hooks = status(root)
    for hook in hooks:
        if hook.state == FOREIGN and hook.saved and not _is_same(hook.path, hook.saved):
            raise HostError(
                f"{hook.path} is another program's, and {hook.saved} keeps an earlier one",
                "qemu-netwrap's script was replaced: remove or rename one of the two",
            )
    for hook in hooks:
        text = _script(os.path.basename(hook.path))
        if hook.state == FOREIGN and not hook.saved:
            os.link(hook.path, f"{hook.path}{SAVED}", follow_symlinks=False)
        files.write(hook.path, text, 0o755)
        os.chmod(hook.path, 0o755)  # noqa: S103 - QEMUs of all users run it
    return status(root)


def remove(root: str = "") -> list[Hook]:
    """Remove the scripts below folder ROOT, and restore the former ones.

    Raises `HostError` for a script that was replaced since; it is left as it is.
    """
    for hook in status(root):
        if hook.state in (OURS, BROKEN):
            if hook.saved:
                os.rename(hook.saved, hook.path)
            else:
                os.unlink(hook.path)
        elif hook.saved:
            raise HostError(
                f"{hook.path} is {hook.state}: qemu-netwrap's script was replaced or removed",
                f"the former script is {hook.saved}: rename or remove it",
            )
    return status(root)


def _paths(root: str) -> list[str]:
    return [os.path.join(root or "/", "etc", name) for name in NAMES]


def _look(path: str) -> Hook:
    """Return the state of one script."""
    saved = f"{path}{SAVED}" if os.path.lexists(f"{path}{SAVED}") else ""
    if not os.path.lexists(path):
        return Hook(path, MISSING, saved)
    text = files.read(path)
    if _MARK not in text:
        return Hook(path, FOREIGN, saved)
    called = shlex.split(text.splitlines()[-1])[1]
    return Hook(path, OURS if os.access(called, os.X_OK) else BROKEN, saved)


def _is_same(path: str, other: str) -> bool:
    """Whether two names are hard links to one file, as after an interrupted installation."""
    return os.path.samestat(os.lstat(path), os.lstat(other))


def _script(name: str) -> str:
    """Return the script that calls the installed program NAME. Raises `HostError`."""
    return f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(installed(name))} "$@"\n'
