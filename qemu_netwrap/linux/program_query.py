"""Queries to a program that a user chose: run as that user, with limits, without the terminal."""

from __future__ import annotations

import os
import select
import time
from _signal import SIGKILL

from qemu_netwrap import linux
from qemu_netwrap.linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from qemu_netwrap.linux.users import User

_QUERY_TIMEOUT = 10.0  # seconds
_MOST = 1 << 20  # bytes; QEMU's -help has some 40 KiB
_PIECE = 65536
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def ask(argv: tuple[str, ...], user: User | None) -> str:
    """Run ARGV (a path first) as USER, or as this process's user; return its output.

    Empty if it fails, prints more than `_MOST` bytes, or takes longer than `_QUERY_TIMEOUT`. It is
    killed then, with its process group.
    """
    ours, its = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be(argv, user, its)
    os.close(its)
    try:
        printed = _listen(pid, ours)
    finally:
        os.close(ours)
        _kill(pid)
        _, status = os.waitpid(pid, 0)
    if printed is None or os.waitstatus_to_exitcode(status):
        return ""
    return printed.decode("utf-8", "replace")


def _be(argv: tuple[str, ...], user: User | None, output: int) -> NoReturn:
    """Become the program, in a forked child that inherits nothing but a pipe to print into."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for fd, to in ((null, 0), (output, 1), (output, 2)):
            os.dup2(fd, to)
        files.close_from(3)
        if user is not None:
            linux.users.become(user)
        os.execve(argv[0], argv, _ENVIRONMENT)
    finally:
        os._exit(127)


def _listen(pid: int, output: int) -> bytes | None:
    """Return what a child prints until it ends; None if it takes too long or prints too much.

    Its pidfd says when it ends: a process that it has left behind may keep the pipe open.
    """
    until = time.monotonic() + _QUERY_TIMEOUT
    ending = os.pidfd_open(pid)
    os.set_blocking(output, False)
    poll = select.poll()
    for fd in (output, ending):
        poll.register(fd, select.POLLIN)
    printed = b""
    try:
        while len(printed) < _MOST:
            ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
            if not ready:
                return None
            piece = _read(output)
            printed += piece or b""
            if not piece and any(fd == ending for fd, _ in ready):
                return printed
            if piece == b"":
                poll.unregister(output)
        return None
    finally:
        os.close(ending)


def _read(fd: int) -> bytes | None:
    """Read what there is: b"" at the end of the file, None if there is nothing yet."""
    try:
        return os.read(fd, _PIECE)
    except BlockingIOError:
        return None


def _kill(pid: int) -> None:
    """Kill a child that is not reaped yet, with its process group if it has one by now."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, SIGKILL)
        except ProcessLookupError:
            pass
