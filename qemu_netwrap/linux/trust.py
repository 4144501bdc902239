"""Whether somebody else could have written a file that root is about to believe.

What counts is the whole way to it: whoever owns a folder or a link on it, or may write there,
decides what the path leads to.
"""

from __future__ import annotations

import os
import stat

from qemu_netwrap.errors import ConfigError
from qemu_netwrap.linux import programs
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h


class Place(Record):
    """A folder, a link or a file on the way, and what it is like."""

    path: str
    found: os.stat_result


def check(path: str, fd: int, *, named: bool) -> None:
    """See that root may believe the file at PATH, which is open as FD. Raises `ConfigError`.

    It must be root's, or the caller's own, with all that leads to it. The user behind sudo(8) is
    believed as well where the file was NAMED. A process that is not root may read what it likes.
    """
    if os.geteuid() != 0:
        return
    user = os.environ.get("SUDO_UID", "")
    sudo = int(user) if user.isdecimal() and len(user) <= len(str(1 << 32)) else 0
    trusted = {0, sudo} if named else {0}
    for place in (*_way(path), Place(path, os.fstat(fd))):
        uid = place.found.st_uid
        if uid not in trusted and not programs.is_unmapped(uid):
            name = f"; to have it read all the same: --config {path}" if uid == sudo else ""
            raise ConfigError(
                f"{path}: {place.path} belongs to user {uid}, not to root",
                f"make it root's: chown root: {place.path}{name}",
            )
        if _is_open(place.found):
            raise ConfigError(
                f"{path}: others than its owner may write to {place.path}",
                f"close it: chmod go-w {place.path}",
            )


def _is_open(found: os.stat_result) -> bool:
    """Whether others than its owner may write to a folder or a file.

    A group of the owner's number, which a user has alone, is no other. A device, /dev/null say,
    keeps nothing that is written to it.
    """
    if stat.S_ISLNK(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return False
    has_own_group = found.st_gid == found.st_uid and not found.st_mode & stat.S_IWOTH
    return not has_own_group and programs.is_shared(found)


def _way(path: str) -> Iterator[Place]:
    """Yield every folder and link that is passed on the way to PATH, and what is at its end.

    It ends at a descriptor under /proc: what that is tells only the descriptor.
    """
    at, left, links = "/", [*reversed(os.path.join(os.getcwd(), path).split("/"))], 0
    yield Place(at, os.lstat(at))
    while left:
        part = left.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, part)
        found = os.lstat(here)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if at.startswith("/proc/") and at.endswith("/fd"):
                return
            if links > _LINKS:
                raise OSError(f"{path}: too many links")
            target = os.readlink(here)
            at = "/" if target.startswith("/") else at
            left += reversed(target.split("/"))
        else:
            at = here
        yield Place(here, found)
