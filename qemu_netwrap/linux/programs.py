"""Finding programs on PATH, and administrators' programs also off it."""

from __future__ import annotations

import os
import stat

from qemu_netwrap import linux

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# QEMU's names of targets that are not as uname(2) has them (QEMU, configs/targets).
_TARGETS = {
    "i486": "i386", "i586": "i386", "i686": "i386",
    "armv6l": "arm", "armv7l": "arm", "armv8l": "arm",
    "ppc64le": "ppc64",
}  # fmt: skip


def find(name: str, beyond: str = "") -> str:
    """Return the path of the program NAME, empty if there is none; a name with a slash is a path.

    BEYOND are more folders to search after PATH's, separated by colons.
    """
    return next((path for path in _candidates(name, beyond) if _executable(path)), "")


def find_trusted(name: str, beyond: str = "") -> str:
    """Return the path, links resolved, of a program that qemu-netwrap itself runs; else empty.

    One that another user could replace is skipped: root may have inherited a user's PATH.
    """
    found = (path for path in _candidates(name, beyond) if _executable(path))
    return next((os.path.realpath(path) for path in found if is_trusted(path)), "")


def is_trusted(path: str) -> bool:
    """Whether only root and the user of this process decide what PATH leads to."""
    places = {os.path.abspath(path), os.path.realpath(path)}
    return all(_is_kept_by_root(place) for place in places)


def _is_kept_by_root(path: str) -> bool:
    """Whether only root and this process's user can write to a file and the folders above it.

    The mode of a link has no meaning.
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
    """Whether users other than its owner can change a file, or the entries of a folder.

    In a folder with the sticky bit they cannot rename others' files. Debian gives /usr/local to its
    group `staff`, which has no members.
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
    """Whether UID stands for users that this user namespace does not map, such as the real root."""
    overflow, rows = linux.proc.read("sys/kernel/overflowuid"), linux.proc.mapped_ids("uid_map")
    if not (overflow and rows):
        return False
    return uid == int(overflow) and rows != [["0", "0", "4294967295"]]


def find_behind(shim: str) -> str:
    """Return the program that PATH would lead to without SHIM, a path; empty if none.

    Only folders after the shim's count: otherwise two shims of two installations would find each
    other. If the shim is not on PATH, all folders count.
    """
    own = os.path.realpath(shim)
    paths = _candidates(os.path.basename(shim), "")
    places = [at for at, path in enumerate(paths) if _is_same(path, shim)]
    behind = paths[places[0] + 1 :] if places else paths
    others = (path for path in behind if _executable(path) and os.path.realpath(path) != own)
    return next(others, "")


def _is_same(path: str, other: str) -> bool:
    """Whether two paths are of the same entry: links are not followed."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(other))
    except OSError:
        return False


def exists(name: str) -> bool:
    """Whether there is a file with that name on PATH, executable or not."""
    return any(os.path.exists(path) for path in _candidates(name, ""))


def folders(beyond: str = "") -> list[str]:
    """Return PATH's folders, then those in BEYOND; an empty entry is the current folder."""
    found = os.environ.get("PATH", "/usr/bin:/bin").split(":") + beyond.split(":") * bool(beyond)
    return [folder or "." for folder in found]


def beginning(prefix: str) -> list[str]:
    """Return the names on PATH that begin with PREFIX, sorted; unreadable folders are skipped."""
    found: dict[str, None] = {}
    for folder in folders():
        try:
            found |= dict.fromkeys(n for n in os.listdir(folder) if n.startswith(prefix))
        except OSError:
            continue
    return sorted(found)


def qemu_of_machine() -> str:
    """Return the name of the QEMU for this machine's own architecture, whether it is there or not.

    Where there is none by QEMU's name on PATH but the distribution's `kvm` or `qemu-kvm`, that.
    """
    machine = os.uname().machine
    name = f"qemu-system-{_TARGETS.get(machine, machine)}"
    others = ("qemu-kvm", "/usr/libexec/qemu-kvm", "kvm")  # RHEL has but the second
    return next((found for found in (name, *others) if find(found)), name)


def _candidates(name: str, beyond: str) -> list[str]:
    """Return the paths at which a program may be."""
    if "/" in name:
        return [name]
    return [os.path.join(folder, name) for folder in folders(beyond)]


def _executable(path: str) -> bool:
    """Whether PATH is a file that may be executed."""
    return os.path.isfile(path) and os.access(path, os.X_OK)
