"""Shims: links by QEMU's names to qemu-netwrap, in a folder that comes first on PATH."""

from __future__ import annotations

import os

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, programs
from qemu_netwrap.linux.installed import installed

PROGRAM = "qemu-netwrap"


def install(folder: str, names: list[str]) -> list[str]:
    """Create shims in FOLDER, which is created if need be; return their paths.

    Raises `HostError`, before anything is created, if one of the names exists and is no shim.
    """
    target = installed(PROGRAM)
    paths = [os.path.join(folder, name) for name in names]
    taken = [path for path in paths if os.path.lexists(path) and not is_ours(path)]
    if taken:
        raise HostError(
            f"{taken[0]} exists already, and is not qemu-netwrap's",
            "choose another folder, which comes before this one on PATH",
        )
    files.make_folder(folder, 0o755)
    for path in paths:
        scratch = f"{path}.{os.getpid()}~"
        os.symlink(target, scratch)
        os.rename(scratch, path)
    return paths


def remove(folder: str) -> list[str]:
    """Remove all shims from FOLDER, and FOLDER if nothing else is in it; return what they were."""
    paths = [os.path.join(folder, name) for name in files.listdir(folder)]
    ours = [path for path in paths if is_ours(path)]
    for path in ours:
        os.unlink(path)
    if ours:
        files.remove_empty([folder])
    return ours


def is_ours(path: str) -> bool:
    """Whether PATH is a link to qemu-netwrap, which need not exist any more."""
    return os.path.islink(path) and os.path.basename(os.readlink(path)) == PROGRAM


def qemus(known: str, prefix: str, others: tuple[str, ...]) -> list[str]:
    """Return the QEMUs on PATH but KNOWN: names that begin with PREFIX, and those of OTHERS."""
    found = {
        name
        for folder in programs.folders()
        if os.path.abspath(folder) != os.path.abspath(known) and os.path.isdir(folder)
        for name in files.listdir(folder)
        if (name.startswith(prefix) or name in others)
        and not is_ours(os.path.join(folder, name))
        and os.access(os.path.join(folder, name), os.X_OK)
    }
    return sorted(found)
