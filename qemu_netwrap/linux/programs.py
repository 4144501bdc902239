"""Finding programs on PATH, and administrators' programs whatever PATH is."""

from __future__ import annotations

import os
import stat

from qemu_netwrap import linux

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def find(name: str, beyond: str = "") -> str:
    """Return the path of program NAME, empty if there is none; a name with a slash is a path.

    BEYOND are folders to look in after PATH's, separated by colons.
    """
    return next((path for path in _candidates(name, beyond) if _executable(path)), "")


def find_trusted(name: str, beyond: str = "") -> str:
    """Return the path, without links, of a program that serves the launch itself; else empty.

    Passed over is one that somebody else could exchange: root's PATH may be a user's.
    """
    found = (path for path in _candidates(name, beyond) if _executable(path))
    return next((os.path.realpath(path) for path in found if is_trusted(path)), "")


def is_trusted(path: str) -> bool:
    """Whether nobody but root, and who runs this, decides what PATH leads to."""
    places = {os.path.abspath(path), os.path.realpath(path)}
    return all(_is_kept_by_root(place) for place in places)


def _is_kept_by_root(path: str) -> bool:
    """Whether a file and the folders above it are root's, or one's own, and nobody else writes.

    The mode of a link says nothing.
    """
    while True:
        try:
            found = os.lstat(path)
        except OSError:
            return False
        if not stat.S_ISLNK(found.st_mode) and is_shared(found):
            return False
        if found.st_uid not in (0, os.geteuid()) and not is_unmapped(found.st_uid):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def is_shared(found: os.stat_result) -> bool:
    """Whether others than its owner can change a file, or what a folder leads to.

    In a folder with the sticky bit they cannot rename what is not theirs. Debian gives /usr/local
    to its group `staff`, which stands for root there and is empty.
    """
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    return (
        bool(found.st_mode & stat.S_IWGRP)
        and found.st_gid != 0
        and not linux.users.is_staff(found.st_gid)
    )


def is_unmapped(uid: int) -> bool:
    """Whether UID stands for a user outside of this user namespace, as real root there."""
    overflow, rows = linux.proc.read("sys/kernel/overflowuid"), linux.proc.mapped_ids("uid_map")
    if not (overflow and rows):
        return False
    return uid == int(overflow) and rows != [["0", "0", "4294967295"]]


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
