"""Finding programs on PATH, and administrators' programs whatever PATH is."""

from __future__ import annotations

import os

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str, beyond: str = "") -> str:
    """Return the path of program NAME, empty if there is none; a name with a slash is a path.

    BEYOND are folders to look in after PATH's, separated by colons.
    """
    return next((path for path in _candidates(name, beyond) if _executable(path)), "")


def find_behind(shim: str) -> str:
    """Return the program that PATH would lead to if SHIM, a path, were not there; empty if none.

    Only what comes after it on PATH counts: of two shims in a row, each of another installation,
    neither finds the first again. A shim that is not on PATH is before all of it.
    """
    own = os.path.realpath(shim)
    paths = _candidates(os.path.basename(shim), "")
    places = [at for at, path in enumerate(paths) if _is_same(path, shim)]
    behind = paths[places[0] + 1 :] if places else paths
    others = (path for path in behind if _executable(path) and os.path.realpath(path) != own)
    return next(others, "")


def _is_same(path: str, other: str) -> bool:
    """Whether two paths lead to one file by way of one folder."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def exists(name: str) -> bool:
    """Whether there is a file of that name on PATH, be it executable or not."""
    return any(os.path.exists(path) for path in _candidates(name, ""))


def folders(beyond: str = "") -> list[str]:
    """Return PATH's folders, then those in BEYOND; an empty one is the current folder."""
    found = os.environ.get("PATH", "/usr/bin:/bin").split(":") + beyond.split(":") * bool(beyond)
    return [folder or "." for folder in found]


def beginning(prefix: str) -> list[str]:
    """Return the names on PATH that begin with PREFIX; folders that we may not read have none."""
    found: dict[str, None] = {}
    for folder in folders():
        try:
            found |= dict.fromkeys(n for n in os.listdir(folder) if n.startswith(prefix))
        except OSError:
            continue
    return sorted(found)


def _candidates(name: str, beyond: str) -> list[str]:
    """Return the paths to look at."""
    if "/" in name:
        return [name]
    return [os.path.join(folder, name) for folder in folders(beyond)]


def _executable(path: str) -> bool:
    """Whether PATH is a file that may be executed."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
