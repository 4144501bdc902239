"""Finding programs on PATH, and administrators' programs whatever PATH is."""

from __future__ import annotations

import os

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str, beyond: str = "") -> str:
    """Return the path of program NAME, empty if there is none; a name with a slash is a path.

    BEYOND are folders to look in after PATH's, separated by colons.
    """
    return next((path for path in _candidates(name, beyond) if _executable(path)), "")


def exists(name: str) -> bool:
    """Whether there is a file of that name on PATH, be it executable or not."""
    return any(os.path.exists(path) for path in _candidates(name, ""))


def beginning(prefix: str) -> list[str]:
    """Return the names on PATH that begin with PREFIX; folders that we may not read have none."""
    found: dict[str, None] = {}
    for folder in os.environ.get("PATH", "/usr/bin:/bin").split(":"):
        try:
            found |= dict.fromkeys(n for n in os.listdir(folder or ".") if n.startswith(prefix))
        except OSError:
            continue
    return sorted(found)


def _candidates(name: str, beyond: str) -> list[str]:
    """Return the paths to look at."""
    if "/" in name:
        return [name]
    folders = os.environ.get("PATH", "/usr/bin:/bin").split(":") + beyond.split(":") * bool(beyond)
    return [os.path.join(folder or ".", name) for folder in folders]


def _executable(path: str) -> bool:
    """Whether PATH is a file that may be executed."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
