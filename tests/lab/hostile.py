"""A program in QEMU's place that does, with what QEMU inherits, what its words say: a hostile one.

    hostile.py SOCKET WORD...   [then QEMU's words, which it ignores]

It prints `up` when it has done it all, and sleeps until it is killed or told to end (SIGTERM).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path("/proc/self/fd")
LIBC = ctypes.CDLL(None)
LEFT = {"leave", "leave-mapped", "leave-shared", "leave-thread", "leave-headless"}
CLONE_FILES = 0x400
SYS_EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]


def lock() -> int:
    """Return the descriptor of the run's lock."""
    return next(fd for fd, path in opened() if path.endswith("/lock"))


def opened() -> list[tuple[int, str]]:
    """Return what is open."""
    found = []
    for link in sorted(HERE.iterdir(), key=lambda each: int(each.name)):
        try:
            found.append((int(link.name), str(link.readlink())))
        except FileNotFoundError:
            continue
    return found


def send(fd: int, path: str) -> None:
    """Send a descriptor to who listens at PATH, and wait until it is taken."""
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)
        socket.send_fds(there, [b"x"], [fd])
        there.recv(1)


def sleep() -> NoReturn:
    """Do nothing for ever."""
    while True:
        signal.pause()


def stay(how: str) -> None:
    """Leave a child behind that has no parent, and the lock at another number, or mapped, ...

    or in a thread with descriptors of its own, without the first thread maybe.
    """
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    fd = lock()
    kept = os.dup(fd)
    if how == "leave-shared":
        fcntl.flock(kept, fcntl.LOCK_SH)
    if how == "leave-mapped":
        # Python maps no empty file.
        words = (mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, kept)
        LIBC.mmap(None, *map(ctypes.c_size_t, words), ctypes.c_size_t(0))
        os.close(kept)
    os.close(fd)
    if how in {"leave-thread", "leave-headless"}:
        apart = threading.Event()
        threading.Thread(target=keep_apart, args=(apart,)).start()
        apart.wait()
        os.close(kept)
    Path(sys.argv[1] + ".left").write_text(str(os.getpid()), "ascii")
    os.closerange(0, 3)
    if how == "leave-headless":
        LIBC.syscall(SYS_EXIT)  # of this thread alone
    sleep()


def keep_apart(done: threading.Event) -> None:
    """Have a thread keep copies of all descriptors, whatever the others close."""
    LIBC.unshare(CLONE_FILES)
    done.set()
    time.sleep(3600)


def await_closed(pipe: tuple[int, int]) -> None:
    """Wait until a child has closed the end that it writes to, as the last of what it does."""
    os.close(pipe[1])
    os.read(pipe[0], 1)
    os.close(pipe[0])


def send_away() -> None:
    """Leave the lock in a socket, on its way to nobody; a child has the socket alone."""
    one, other = socket.socketpair()
    socket.send_fds(one, [b"x"], [lock()])
    ready = os.pipe()
    if os.fork() == 0:
        kept = sorted((other.fileno(), ready[1]))
        os.closerange(0, kept[0])
        os.closerange(kept[0] + 1, kept[1])
        os.closerange(kept[1] + 1, 256)
        os.close(ready[1])
        sleep()
    await_closed(ready)


def have_deaf_child() -> None:
    """Start a child that has nothing of what was inherited, and does not heed SIGTERM."""
    ready = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.closerange(3, 256)
        sleep()
    await_closed(ready)


def have_heir() -> None:
    """Start a child that has all that was inherited."""
    ready = os.pipe()
    if os.fork() == 0:
        os.close(1)
        os.close(ready[0])
        os.close(ready[1])
        sleep()
    await_closed(ready)


DEEDS: Final[dict[str, Callable[[], None]]] = {
    "send-lock": lambda: send(lock(), sys.argv[1]),
    "share": lambda: fcntl.flock(lock(), fcntl.LOCK_SH),
    "leave-on-its-way": send_away,
    "deaf-child": have_deaf_child,
    "heir": have_heir,
}


def main() -> None:
    """Do what the words say."""
    for word in sys.argv[2:]:
        if word == "-nic":
            break
        if word in LEFT:
            stay(word)
        else:
            DEEDS[word]()
    sys.stdout.write("up\n")
    sys.stdout.flush()
    sleep()


if __name__ == "__main__":
    main()
