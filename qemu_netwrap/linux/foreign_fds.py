"""Descriptors of other processes, identified by the kernel instead of by name.

The path in /proc/PID/fd is one in that process's mount namespace, and the name of a tap in fdinfo
is one in that tap's network namespace: any user can choose either. Device and inode, and what the
tap itself answers, are the kernel's.

Python has no functions for these system calls, so they are made by ctypes. That is why this module
is imported by commands, and by a launch that fails: never by one that succeeds.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from qemu_netwrap.linux import proc
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _AT_STATX_DONT_SYNC = -100, 0x4000
_STATX_TYPE, _STATX_INO = 0x1, 0x100
_STATX_SIZE = 256
# Of struct statx (linux/stat.h): stx_mode, stx_ino, and the four halves of two device numbers.
_STATX = struct.Struct("28xH2xQ88x4I")
_PIDFD_GETFD = 438  # the same on every architecture
_TUNGETIFF, _TUNGETDEVNETNS = 0x800454D2, 0x54E3  # linux/if_tun.h
_IFREQ = struct.Struct("16sH22x")


class Kind(Record):
    """What identifies a file: the number of a device node, else file system and inode."""

    is_device: bool
    device: int
    inode: int


def kind(path: str) -> Kind | None:
    """Return what identifies PATH, links followed; None if that is not known.

    The file system is not asked (AT_STATX_DONT_SYNC): a user's FUSE might never answer.
    """
    found = kind_of(path)
    if found is None and proc.outside is not None:
        found = proc.outside("kind", path)
    return Kind(bool(found[0]), found[1], found[2]) if found is not None else None


def kind_of(path: str) -> list[int] | None:
    """Return the same as three numbers, as far as this process itself may see it."""
    raw = ctypes.create_string_buffer(_STATX_SIZE)
    words = (path.encode("utf-8", "surrogateescape"), _AT_STATX_DONT_SYNC, _STATX_TYPE | _STATX_INO)
    if _LIBC.statx(_AT_FDCWD, *words, raw):
        return None
    mode, inode, *numbers = _STATX.unpack_from(raw)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return [1, os.makedev(*numbers[:2]), stat.S_IFMT(mode)]
    return [0, os.makedev(*numbers[2:]), inode]


def tap(pid: int, fd: int) -> tuple[str, bool] | None:
    """Return the name of the tap behind descriptor FD of a process, and whether it is here.

    "Here" is the network namespace of this process. None if the tap cannot be asked, which takes
    the right to trace the process, and CAP_NET_ADMIN.
    """
    found = tap_of(pid, fd)
    if found is None and proc.outside is not None:
        found = proc.outside("tap", pid, fd)
    if found is None:
        return None
    name, inode = found
    return name, inode == os.stat("/proc/self/ns/net").st_ino


def tap_of(pid: int, fd: int) -> tuple[str, int] | None:
    """Return the name, and the inode number of the tap's network namespace, or None likewise."""
    try:
        copy = _copy(pid, fd)
    except OSError:
        return None
    try:
        name = _IFREQ.unpack(fcntl.ioctl(copy, _TUNGETIFF, _IFREQ.pack(b"", 0)))[0]
        there = fcntl.ioctl(copy, _TUNGETDEVNETNS)
    except OSError:
        return None
    finally:
        os.close(copy)
    try:
        inode = os.fstat(there).st_ino
    finally:
        os.close(there)
    return name.rstrip(b"\0").decode("utf-8", "surrogateescape"), inode


def net_of_taps(pid: int) -> Iterator[int]:
    """Yield the network namespace, as a descriptor, of each tap that a process has open."""
    for fd in proc.fds(pid):
        if "iff:\t" not in proc.read(f"{pid}/fdinfo/{fd}"):
            continue
        try:
            copy = _copy(pid, fd)
        except OSError:
            continue
        try:
            yield fcntl.ioctl(copy, _TUNGETDEVNETNS)
        except OSError:
            continue  # it belongs to another user, or to no tap yet
        finally:
            os.close(copy)


def _copy(pid: int, fd: int) -> int:
    """Return a copy of a process's descriptor. Raises `OSError`."""
    pidfd = os.pidfd_open(pid)
    try:
        copy = _LIBC.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return int(copy)
