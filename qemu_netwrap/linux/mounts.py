"""Files that one process and its children see with another content: mounts of its own.

In a mount namespace of its own a process can cover a file with another one (mount_namespaces(7)).
Nothing of that is on a disk or seen by others, and it goes with the last process in there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qemu_netwrap.linux import files, syscalls

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_SLAVE = 2, 4, 4096, 16384, 1 << 19  # linux/mount.h
_MS_NOEXEC, _MS_PRIVATE = 8, 1 << 18
_MNT_DETACH = 2


def cover(texts: Mapping[str, str], place: str) -> None:
    """Give this process its own mounts, with TEXTS in place of the files that exist at their paths.

    PLACE is a folder that holds a file system in memory meanwhile. Raises `OSError`, in a container
    that allows no mounts say; what has been covered by then stays covered.
    """
    syscalls.unshare(_CLONE_NEWNS)
    # Not private: a disk that the host unmounts must not stay in use in here.
    syscalls.mount("none", "/", "", _MS_REC | _MS_SLAVE)
    syscalls.mount("qemu-netwrap", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755")
    try:
        for number, (path, text) in enumerate(texts.items()):
            own = f"{place}/{number}"
            files.write(own, text, 0o644)
            syscalls.mount(own, path, "", _MS_BIND)
    finally:
        syscalls.unmount(place, _MNT_DETACH)  # the files stay as long as they cover others


def changes_root() -> bool:
    """Try to leave this process nothing but /etc and /run; return whether the host allows that.

    These are the steps of slirp4netns' sandbox (its sandbox.c). A container's AppArmor profile
    denies each mount, and on the initial ramdisk there is no pivot_root(2).
    """
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    try:
        syscalls.unshare(_CLONE_NEWNS)
        syscalls.mount("", "/", "", _MS_PRIVATE)
        syscalls.mount("tmpfs", "/tmp", "tmpfs", flags, "mode=755")  # noqa: S108 - see above
        for name in ("etc", "run", "old"):
            os.mkdir(f"/tmp/{name}")  # noqa: S108
        for name in ("etc", "run"):
            syscalls.mount(f"/{name}", f"/tmp/{name}", "", _MS_BIND | _MS_REC | _MS_SLAVE)  # noqa: S108
        os.chdir("/tmp")  # noqa: S108
        syscalls.pivot_root(".", "old")
    except OSError:
        return False
    return True


def present(texts: Mapping[str, str]) -> dict[str, str]:
    """Return those of TEXTS whose path leads to something that can be covered."""
    return {path: text for path, text in texts.items() if os.path.exists(path)}
