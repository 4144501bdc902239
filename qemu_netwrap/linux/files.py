"""Files under the state folder: locks whose holder's death releases them, and whole writes.

An flock belongs to the open file description (flock(2)): a lock that a process took stays taken
until the last process that inherited the descriptor is gone, by whatever death.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from qemu_netwrap.linux import waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

_NO_SUCH = (FileNotFoundError, NotADirectoryError)
_SCRATCH = "~"  # dnsmasq reads no file whose name ends so
_PROBE_RETRIES, _PROBE_INTERVAL = 100, 0.001  # seconds, while others only probe (`is_locked`)


class Lock:
    """An exclusive lock on PATH, held from `__enter__` to `__exit__`.

    Whoever holds the lock may unlink the file: others that waited for it notice and start anew.
    """

    def __init__(self, path: str) -> None:
        """Name the lock's file; folders above it are made when it is taken."""
        self.path = path
        self._fd = -1

    def __enter__(self) -> Self:
        """Wait for the lock and take it."""
        self._fd = open_locked(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock up."""
        os.close(self._fd)


def open_locked(path: str, *, wait: bool = True) -> int:
    """Return a locked descriptor of PATH, made if it is not there.

    Raises `BlockingIOError` when somebody else has it and WAIT is false. Nobody can write by the
    descriptor: who inherits it could fill the file system.
    """
    while True:
        fd = _open_made(path, os.O_RDONLY)
        try:
            if wait:
                waits.lock(fd, fcntl.LOCK_EX, path)
            else:
                _flock(fd)
            if same_file(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def replace_locked(path: str) -> int:
    """Put a new file in the place of the lock on PATH; return its locked descriptor.

    Who has the old one has nothing any more, and notices (`same_file`).
    """
    scratch = f"{path}.{os.getpid()}{_SCRATCH}"
    fd = open_locked(scratch)
    os.rename(scratch, path)
    return fd


def _flock(fd: int) -> None:
    """Lock FD. Raises `BlockingIOError` when somebody else has the lock.

    Somebody who just looks (`is_locked`) shares it for a moment: then it is tried again. Somebody
    who goes on sharing it has it.
    """
    for _ in range(_PROBE_RETRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises if it is taken in earnest
            fcntl.flock(fd, fcntl.LOCK_UN)  # two who try would else share it for ever
        time.sleep(_PROBE_INTERVAL)
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))


def is_locked(path: str) -> bool:
    """Whether somebody holds the lock on PATH; no when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except _NO_SUCH:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_held(path: str) -> bool:
    """Whether somebody holds the lock on PATH, be it shared; no when there is no such file.

    Takes it for a moment: for those who end what holds it. `is_locked` disturbs nobody.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except _NO_SUCH:
        return False
    try:
        _flock(fd)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def wait_unlocked(path: str) -> None:
    """Sleep until nobody holds the lock on PATH, or there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except _NO_SUCH:
        return
    try:
        waits.lock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return the text of a file, empty when it is not there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except _NO_SUCH:
        return ""


def peek(path: str) -> str:
    """Return the text of a file as far as we may look: empty when it cannot be read."""
    try:
        return read(path)
    except OSError:
        return ""


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Put TEXT into a file in one step: readers see the old text or the new."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), mode)


def write_bytes(path: str, data: bytes, mode: int = 0o600) -> None:
    """Put DATA into a file in one step: readers see the old content or the new."""
    scratch = f"{path}.{os.getpid()}{_SCRATCH}"
    try:
        fd = _open_made(scratch, os.O_WRONLY | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.rename(scratch, path)
    except BaseException:
        remove(scratch)
        raise


def append(path: str, line: str) -> None:
    """Add LINE to a file, made if need be: all of it or, when that fails, nothing.

    A last line that a crash has cut short goes.
    """
    fd = _open_made(path, os.O_RDWR | os.O_APPEND, 0o600)
    try:
        raw = f"{line}\n".encode("utf-8", "surrogateescape")
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            size = os.pread(fd, size, 0).rfind(b"\n") + 1
            os.ftruncate(fd, size)
        if os.write(fd, raw) != len(raw):
            os.ftruncate(fd, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(fd)


def size(path: str) -> int:
    """Return a file's size; 0 when it is not there."""
    try:
        return os.stat(path).st_size
    except _NO_SUCH:
        return 0


def listdir(path: str) -> list[str]:
    """Return the names in a folder, sorted; none when it is not there."""
    try:
        return sorted(os.listdir(path))
    except _NO_SUCH:
        return []


def remove(path: str) -> None:
    """Remove a file; it may be gone already."""
    try:
        os.unlink(path)
    except _NO_SUCH:
        pass


def remove_unlinked(path: str) -> None:
    """Remove a file that has no other name."""
    try:
        if os.lstat(path).st_nlink == 1:
            os.unlink(path)
    except _NO_SUCH:
        pass


def remove_scratch(folder: str, name: str = "") -> None:
    """Remove what a crash left of a `write` in FOLDER, where nobody else may write now.

    With NAME only what was to become that file: others may be writing theirs.
    """
    for found in listdir(folder):
        if found.endswith(_SCRATCH) and (not name or found.startswith(f"{name}.")):
            remove(f"{folder}/{found}")


def remove_lock(path: str) -> None:
    """Remove a lock's file, unless somebody holds the lock."""
    try:
        fd = open_locked(path, wait=False)
    except BlockingIOError:
        return
    remove(path)
    os.close(fd)


def remove_folder(path: str) -> None:
    """Remove a folder with the files and folders in it; it may be gone already."""
    for name in listdir(path):
        inside = os.path.join(path, name)
        if os.path.isdir(inside) and not os.path.islink(inside):
            remove_folder(inside)
        else:
            remove(inside)
    remove_empty([path])


def remove_empty(paths: Iterable[str]) -> None:
    """Remove those folders that are empty; others, and missing ones, are left."""
    for path in paths:
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise


def make_folder(path: str, mode: int = 0o755) -> None:
    """Make a folder and those above it; others may look into them, not change them.

    The mode does not depend on the user's umask: dnsmasq must get to its files, `plan` to what
    networks there are.
    """
    try:
        os.mkdir(path, mode)
        os.chmod(path, mode)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_folder(os.path.dirname(path), mode)
        make_folder(path, mode)


def _open_made(path: str, how: int = os.O_RDWR, mode: int = 0o600) -> int:
    """Open a file, made with the folders above it if need be.

    Again and again: whoever tidies up may remove a folder that is still empty.
    """
    while True:
        try:
            return os.open(path, how | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        except FileNotFoundError:
            make_folder(os.path.dirname(path))


def close_from(first: int, keep: int = -1) -> None:
    """Close every descriptor from FIRST on, KEEP excepted.

    Not by the limit of open files: it may have been lowered below what is open.
    """
    _do_from(first, lambda fd: os.close(fd) if fd != keep else None)


def keep_from_programs(first: int) -> None:
    """Have no program that is started from now on inherit a descriptor from FIRST on."""
    _do_from(first, lambda fd: os.set_inheritable(fd, False))  # noqa: FBT003 - has no name


def _do_from(first: int, action: Callable[[int], None]) -> None:
    """Do something to every descriptor from FIRST on."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd >= first:
            try:
                action(fd)
            except OSError:
                pass  # the one that the list was read by


def same_file(fd: int, path: str) -> bool:
    """Whether PATH is still the file that FD has open."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
