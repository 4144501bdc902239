"""Waits that may take long: for programs, processes and locks.

They have a time-out, or are announced after a second; and end when the launcher does. A keeper
works for a launcher: if that is gone, by ^C say, it stops waiting and undoes what it has done.
"""

from __future__ import annotations

import fcntl
import os
import select
from _signal import ITIMER_REAL, SIGALRM, SIGKILL, pidfd_send_signal, setitimer, signal

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from qemu_netwrap.linux.proc import Process

PROGRAM_TIMEOUT = 20.0  # seconds; nft takes 3 ms, and 0.3 s beside 1,000 tables of others
_ANNOUNCE_TIMEOUT = 1.0  # seconds


def _tell(line: str) -> None:
    """Print a message on stderr; an error is ignored."""
    try:
        os.write(2, f"qemu-netwrap: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass


class Caller:
    """The process that this one works for: it gets messages, and its end ends waits."""

    def __init__(self) -> None:
        """Work for the user at the terminal."""
        self.socket = -1  # connected to a launcher, which alone has the other end
        self.say: Callable[[str], None] = _tell

    def leave(self) -> None:
        """Work for no process any more: go on whatever happens, and print nothing."""
        self.socket, self.say = -1, _drop

    def has_gone(self) -> bool:
        """Whether there was a launcher, and it has ended."""
        if self.socket < 0:
            return False
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))


def _drop(_line: str) -> None:
    """Drop a message."""


caller = Caller()


def program(pid: int, what: str) -> int:
    """Wait for the end of a child, WHAT in messages; return its status (waitpid(2)).

    Raises `HostError` after `PROGRAM_TIMEOUT`, or when the launcher is gone: the child is killed.
    """
    ending = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(ending, select.POLLIN)
    if caller.socket >= 0:
        poll.register(caller.socket, 0)
    try:
        ready = dict(poll.poll(PROGRAM_TIMEOUT * 1000))
    except BaseException:
        _kill(pid)
        raise
    finally:
        os.close(ending)
    if ending in ready:
        return os.waitpid(pid, 0)[1]
    _kill(pid)
    if ready:
        raise HostError(f"{what}: the launcher has gone meanwhile", "nothing is left to do")
    raise HostError(
        f"{what} has not ended within {PROGRAM_TIMEOUT:.0f} seconds, and was killed",
        f"see why it hangs: run {what} by hand",
    )


def readable(fd: int, timeout: float) -> bool:
    """Wait until a descriptor is readable, for at most TIMEOUT seconds; return whether it is.

    A pidfd is once its process has ended, also before the parent has reaped it.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def process(meant: Process, timeout: float, number: int = 0) -> bool:
    """Wait for the end of any process, for at most TIMEOUT seconds; return whether it has ended.

    Signal NUMBER is sent to it first, unless that is 0. The pidfd is bound to the process: none
    that has got the pid since is signalled or waited for. Raises `OSError` where it may not be
    signalled.
    """
    try:
        fd = os.pidfd_open(meant.pid)
    except ProcessLookupError:
        return True
    try:
        if not proc.lives(meant):
            return True
        if number:
            pidfd_send_signal(fd, number)
        return readable(fd, timeout)
    except ProcessLookupError:
        return True
    finally:
        os.close(fd)


def kill_group(leader: Process) -> None:
    """Kill a process and its children, which are a process group of their own."""
    try:
        group = os.getpgid(leader.pid)
        if proc.lives(leader) and group != os.getpgrp():
            os.killpg(group, SIGKILL)
    except ProcessLookupError:
        pass


def lock(fd: int, how: int, path: str) -> None:
    """Take a lock (flock(2)) on FD, the file PATH, without a time-out. HOW is LOCK_EX or LOCK_SH.

    After a second its holder is named. Raises `HostError` if the launcher ends.
    """
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        _wait_locked(fd, how, path)


class _Tick(Exception):  # noqa: N818 - no error
    """The time is over."""


def _wait_locked(fd: int, how: int, path: str) -> None:
    """Wait for a lock that is taken, in the kernel, which serves waiting processes in order."""
    announced = False
    handler = signal(SIGALRM, _tick)
    left, interval = setitimer(ITIMER_REAL, 0)
    try:
        while not _had_within(_ANNOUNCE_TIMEOUT, fd, how):
            if caller.has_gone():
                raise HostError("the launcher has gone meanwhile", "nothing is left to do")
            if not announced:
                by = linux.holders.lockers(path) or "a process"
                caller.say(f"waiting for {by}, which holds the lock {path}")
                announced = True
    finally:
        signal(SIGALRM, handler)
        setitimer(ITIMER_REAL, left, interval)


def _had_within(seconds: float, fd: int, how: int) -> bool:
    """Wait for a lock, for at most SECONDS; return whether it was taken."""
    try:
        setitimer(ITIMER_REAL, seconds)
        fcntl.flock(fd, how)
        setitimer(ITIMER_REAL, 0)
    except _Tick:
        return False
    return True


def _tick(_number: int, _frame: object) -> NoReturn:
    """Interrupt the system call that waits."""
    raise _Tick


def _kill(pid: int) -> None:
    """Kill a child and reap it."""
    os.kill(pid, SIGKILL)
    os.waitpid(pid, 0)
