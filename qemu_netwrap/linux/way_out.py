"""The process that connects a user's network namespace with the host: slirp4netns or pasta.

It is started outside, where it opens the connections that guests ask for as the user's own, and
serves all networks of the user's realm. Its pid is written into a file before it becomes the
program: so it is found, and ended, in whatever way the launcher that started it has died.
"""

from __future__ import annotations

import fcntl
import os
from _signal import (
    SIG_DFL,
    SIG_SETMASK,
    SIGKILL,
    SIGSTOP,
    SIGTERM,
    pthread_sigmask,
    signal,
    valid_signals,
)

from qemu_netwrap import linux, record_text
from qemu_netwrap.linux import files, proc, waits
from qemu_netwrap.linux.child import ENVIRONMENT
from qemu_netwrap.linux.proc import Process
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from qemu_netwrap.linux.namespaces import Namespaces
    from qemu_netwrap.linux.uplink_helpers import UplinkHelper

_END_TIMEOUT = 2.0  # seconds after SIGTERM, until SIGKILL
_FIRST_FD = 10  # above all that the program gets
_CONFINED, _BARE = b"+", b"-"  # whether the program's sandbox can be made


class WayOut(Record):
    """A program that connects a user's realm, and its process."""

    program: str
    process: Process


def read(file: str) -> WayOut | None:
    """Return the way out that FILE records, which may have ended; None without a record."""
    try:
        fields = record_text.read(files.read(file).rstrip("\n"))[1]
        process = Process(int(fields["pid"]), fields["started"])
        return WayOut(fields["program"], process)
    except (KeyError, ValueError):
        return None


def alive(file: str) -> WayOut | None:
    """Return the way out that FILE records, if it lives."""
    found = read(file)
    return found if found is not None and proc.is_running(found.process) else None


def start(file: str, inside: Namespaces, wanted: str) -> UplinkHelper | None:
    """Start the program WANTED (auto, pasta, slirp4netns) for namespaces, and record it in FILE.

    Returns the program; None if the host has none. Raises `HostError` if it does not have the one
    that is named. It is started by a child that has ended when this returns: it is no child of what
    this becomes.
    """
    helper = linux.uplink_helpers.find(wanted)
    if helper is None:
        return None
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            _start(file, inside, helper)
        finally:
            os._exit(0)
    os.waitpid(middle, 0)
    return helper


def _start(file: str, inside: Namespaces, helper: UplinkHelper) -> None:
    """Start the program, and a process that is in the namespaces until the program is there too.

    The program begins when it is recorded. Until then it ends with this process, which has the lock
    of the realm: who takes that next finds what there is.
    """
    ready, told = os.pipe()
    standing, stood = os.pipe()
    going, go = os.pipe()
    member = os.fork()
    if member == 0:
        inside.enter()
        files.close_from(0, ready, stood)
        # These mounts are this process's alone: the program joins its user and network namespaces.
        is_confined = linux.mounts.changes_root()
        # pasta keeps few capabilities; who has more does not show it the namespaces (ptrace(2)).
        linux.syscalls.drop_capabilities()
        os.write(stood, _CONFINED if is_confined else _BARE)
        os.close(stood)
        os.read(ready, 1)
        os._exit(0)
    child = os.fork()
    if child == 0:
        os.close(stood)
        os.close(go)
        if os.read(going, 1) and (stands := os.read(standing, 1)):
            # Either program takes root for one with all capabilities, which it has only in there.
            is_root = os.geteuid() == 0
            if is_root:
                inside.enter_user()
            sandbox = stands == _CONFINED
            words = linux.uplink_helpers.command(helper, member, sandbox=sandbox, is_root=is_root)
            _become(file, helper, told, words)
        os._exit(0)
    mine = proc.of(child)
    fields = {"pid": str(mine.pid), "started": mine.started, "program": helper.name}
    files.write(file, record_text.write("way-out", fields) + "\n")
    os.write(go, b"+")


def _become(file: str, helper: UplinkHelper, told: int, words: tuple[str, ...]) -> NoReturn:
    """Become the program, with WORDS as its arguments; errors go to FILE's log.

    It writes to the descriptor TOLD when it is ready. Without WORDS it is of no use here: this
    process ends, and the log tells.
    """
    os.chdir("/")
    os.umask(0o077)
    told = fcntl.fcntl(told, fcntl.F_DUPFD, _FIRST_FD)
    files.close_from(0, told)
    log = f"{file}.log"
    os.open(os.devnull, os.O_RDWR)
    os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(1, 2)
    os.dup2(told, linux.uplink_helpers.READY_FD[helper.name])
    os.close(told)
    for number in valid_signals() - {SIGKILL, SIGSTOP}:
        signal(number, SIG_DFL)  # SIGPIPE for one: pasta insists on its own handlers
    pthread_sigmask(SIG_SETMASK, ())
    if not words:
        os.write(2, linux.uplink_helpers.NO_MOUNTS.encode())
        os._exit(1)
    os.execve(helper.path, words, ENVIRONMENT)


def end(file: str) -> None:
    """End the way out that FILE records, and wait for that; remove its files."""
    found = read(file)
    if found is not None:
        for number in (SIGTERM, SIGKILL):
            if waits.process(found.process, _END_TIMEOUT, number):
                break
    files.remove(file)
    files.remove(f"{file}.log")


def why(file: str) -> str:
    """Return why the program that FILE records does not connect, with a remedy."""
    found = read(file)
    printed = files.peek(f"{file}.log")
    return linux.uplink_helpers.why(found.program if found else "the way out", printed)
