"""Asking a program what it can do: as whom it will run, within limits, away from the terminal."""

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
_MOST = 1 << 20  # a QEMU's -help has some 40 KiB
_PIECE = 65536
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def ask(argv: tuple[str, ...], user: User | None) -> str:
    """Run ARGV (a path first) as USER, else as oneself; return what it prints.

    Nothing where it fails, prints without end, or takes longer than a program takes to print its
    help: then it is killed, with its process group.
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
    """Be the program, in a forked child: with nothing of ours but a pipe to print into."""
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
    """Return what a child prints to its end; None where it goes on too long, or prints too much.

    The end is the child's, told by a pidfd: what it has started and left behind may hold the pipe
    for as long as it likes.
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
    """Read what there is: nothing at the end of the file, None where nothing has come yet."""
    try:
        return os.read(fd, _PIECE)
    except BlockingIOError:
        return None


def _kill(pid: int) -> None:
    """Kill a child that is not waited for yet, with its process group if it has one by now."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, SIGKILL)
        except ProcessLookupError:
            pass
