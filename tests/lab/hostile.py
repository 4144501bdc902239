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
from pathlib import Path
from typing import NoReturn

HERE = Path("/proc/self/fd")


def lock() -> int:
    """Return the descriptor of the run's lock."""
    return next(fd for fd, path in opened() if path.endswith("/lock"))


def tap() -> int:
    """Return the descriptor of a tap."""
    return next(fd for fd, path in opened() if path == "/dev/net/tun")


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


def stay(*, mapped: bool, shared: bool) -> None:
    """Leave a child behind that has no parent, and the lock at another number, or mapped."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    fd = lock()
    kept = os.dup(fd)
    if shared:
        fcntl.flock(kept, fcntl.LOCK_SH)
    if mapped:
        # Python maps no empty file.
        words = (mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, kept)
        ctypes.CDLL(None).mmap(None, *map(ctypes.c_size_t, words), ctypes.c_size_t(0))
        os.close(kept)
    os.close(fd)
    Path(sys.argv[1] + ".left").write_text(str(os.getpid()), "ascii")
    os.closerange(0, 3)
    sleep()


def main() -> None:
    """Do what the words say."""
    for word in sys.argv[2:]:
        match word:
            case "send-lock":
                send(lock(), sys.argv[1])
            case "send-tap":
                send(tap(), sys.argv[1])
            case "share":
                fcntl.flock(lock(), fcntl.LOCK_SH)
            case "leave" | "leave-mapped" | "leave-shared":
                stay(mapped="mapped" in word, shared="shared" in word)
            case "deaf-child":
                if os.fork() == 0:
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    os.closerange(3, 256)
                    sleep()
            case "-nic":
                break
    sys.stdout.write("up\n")
    sys.stdout.flush()
    sleep()


if __name__ == "__main__":
    main()
