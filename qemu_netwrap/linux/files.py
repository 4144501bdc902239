"""Files: locks that are released when their holder dies, and writes that are whole or not done.

An flock belongs to the open file description (flock(2)): a lock stays taken until the last process
that inherited the descriptor has ended, in whatever way.
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
_SCRATCH = "~"  # dnsmasq skips files whose names end like this
_PROBE_RETRIES, _PROBE_INTERVAL = 100, 0.001  # seconds; of a concurrent `is_locked`


class Lock:
    """An exclusive lock on PATH, held from `__enter__` to `__exit__`.

    The holder may unlink the file: processes that wait for the lock notice that, and start again.
    """

    def __init__(self, path: str) -> None:
        """Name the lock's file; it and the folders above it are created when it is taken."""
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
        """Release the lock."""
        os.close(self._fd)


def open_locked(path: str, *, wait: bool = True, shared: bool = False) -> int:
    """Return a locked descriptor of PATH, which is created if it does not exist.

    Raises `BlockingIOError` if another process has the lock and WAIT is false. SHARED lets others
    share it; that is waited for. The descriptor is read-only: a process that inherits it could
    otherwise fill the file system.
    """
    while True:
        fd = _open_made(path, os.O_RDONLY)
        try:
            if wait:
                waits.lock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path)
            else:
                _flock(fd)
            if same_file(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def open_locked_again(path: str) -> int:
    """Return a descriptor of PATH, to read and write it, with its lock; -1 if the file has gone.

    Nothing is created: what had the file may be over.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except _NO_SUCH:
            return -1
        waits.lock(fd, fcntl.LOCK_EX, path)
        if same_file(fd, path):
            return fd
        os.close(fd)


def replace_locked(path: str) -> int:
    """Replace the lock file PATH by a new one; return its locked descriptor.

    A process that has the old one locked holds nothing any more, and notices that (`same_file`).
    """
    scratch = f"{path}.{os.getpid()}{_SCRATCH}"
    fd = open_locked(scratch)
    os.rename(scratch, path)
    return fd


def _flock(fd: int) -> None:
    """Lock FD. Raises `BlockingIOError` if another process has the lock.

    A concurrent `is_locked` shares it for a moment: then this is retried. A process that goes on
    sharing it has it.
    """
    for _ in range(_PROBE_RETRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # raises if it is taken exclusively
            fcntl.flock(fd, fcntl.LOCK_UN)  # two processes that retry would share it for ever
        time.sleep(_PROBE_INTERVAL)
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))


def is_locked(path: str) -> bool:
    """Whether a process holds the lock on PATH exclusively; not if there is no such file."""
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
    """Whether a process holds the lock on PATH, even shared; not if there is no such file.

    The lock is taken for a moment, which `is_locked` avoids: for callers that end its holders.
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
    """Sleep until no process holds the lock on PATH, or there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except _NO_SUCH:
        return
    try:
        waits.lock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return the text of a file, empty if it does not exist. Raises `OSError`."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except _NO_SUCH:
        return ""


def peek(path: str) -> str:
    """Return the text of a file, empty if it cannot be read for whatever reason."""
    try:
        return read(path)
    except OSError:
        return ""


def write(path: str, text: str, mode: int = 0o600) -> None:
    """Replace a file by one with TEXT, atomically: readers see the old text or the new."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), mode)


def write_bytes(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace a file by one with DATA, atomically. Folders above it are created."""
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
    """Append LINE to a file, which is created if need be: all of it or, on an error, nothing.

    A last line that a crash has cut short is removed first. Raises `OSError`.
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
    """Return a file's size in bytes; 0 if it does not exist."""
    try:
        return os.stat(path).st_size
    except _NO_SUCH:
        return 0


def listdir(path: str) -> list[str]:
    """Return the names in a folder, sorted; none if it does not exist."""
    try:
        return sorted(os.listdir(path))
    except _NO_SUCH:
        return []


def remove(path: str) -> None:
    """Remove a file, if it exists."""
    try:
        os.unlink(path)
    except _NO_SUCH:
        pass


def remove_unlinked(path: str) -> None:
    """Remove a file, if it exists and has no other hard link."""
    try:
        if os.lstat(path).st_nlink == 1:
            os.unlink(path)
    except _NO_SUCH:
        pass


def remove_scratch(folder: str, name: str = "") -> None:
    """Remove what a crash left of a `write` in FOLDER, where no other process is writing now.

    With NAME, only what was to become that file: other files may be being written.
    """
    for found in listdir(folder):
        if found.endswith(_SCRATCH) and (not name or found.startswith(f"{name}.")):
            remove(f"{folder}/{found}")


def remove_lock(path: str) -> None:
    """Remove a lock's file, unless a process holds the lock."""
    try:
        fd = open_locked(path, wait=False)
    except BlockingIOError:
        return
    remove(path)
    os.close(fd)


def remove_folder(path: str) -> None:
    """Remove a folder with everything in it, if it exists; links are not followed."""
    for name in listdir(path):
        inside = os.path.join(path, name)
        if os.path.isdir(inside) and not os.path.islink(inside):
            remove_folder(inside)
        else:
            remove(inside)
    remove_empty([path])


def remove_empty(paths: Iterable[str]) -> None:
    """Remove those of the folders that exist and are empty."""
    for path in paths:
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise


def make_folder(path: str, mode: int = 0o755) -> None:
    """Create a folder and those above it, which other users may read but not change.

    The mode does not depend on the umask: dnsmasq must reach its files, and a user's `plan` the
    list of networks.
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
    """Open a file, which is created with the folders above it if need be.

    Retries, because a concurrent clean-up may remove the folder while it is empty.
    """
    while True:
        try:
            return os.open(path, how | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        except FileNotFoundError:
            make_folder(os.path.dirname(path))


def close_from(first: int, *keep: int) -> None:
    """Close every descriptor from FIRST on, those in KEEP excepted.

    The limit of open files is no upper bound: it may have been lowered below what is open.
    """
    _do_from(first, lambda fd: os.close(fd) if fd not in keep else None)


def keep_from_programs(first: int) -> None:
    """Make every descriptor from FIRST on close-on-exec."""
    _do_from(first, lambda fd: os.set_inheritable(fd, False))  # noqa: FBT003 - has no name


def _do_from(first: int, action: Callable[[int], None]) -> None:
    """Call ACTION with every open descriptor from FIRST on."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd >= first:
            try:
                action(fd)
            except OSError:
                pass  # the descriptor by which the list was read


def same_file(fd: int, path: str) -> bool:
    """Whether PATH is still the file that FD has open."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
