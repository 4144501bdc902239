"""Whether another user could have written a file that root is about to trust.

Every component of the path counts: the owner of a folder or link on it, and every user who may
write there, can change what the path leads to.
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
    """A folder, link or file on a path, and its status."""

    path: str
    found: os.stat_result


def check(path: str, fd: int, *, named: bool) -> None:
    """Check that root may trust the file PATH, which is open as FD. Raises `ConfigError`.

    It and all folders and links on the path must belong to root or this process's user; or to the
    user behind sudo(8), if the user NAMED the file. Without root nothing is checked.
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
    """Whether users other than its owner may write to a folder or a file.

    The group with the owner's number is the user's private group, and does not count. Nor does a
    device such as /dev/null, which keeps nothing that is written to it.
    """
    if stat.S_ISLNK(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return False
    has_own_group = found.st_gid == found.st_uid and not found.st_mode & stat.S_IWOTH
    return not has_own_group and programs.is_shared(found)


def _way(path: str) -> Iterator[Place]:
    """Yield every folder and link on the way to PATH, and the file itself.

    A path under /proc/PID/fd ends there, since only the descriptor knows what it leads to.
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
