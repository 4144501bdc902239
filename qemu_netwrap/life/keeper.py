"""The keeper: the process beside QEMU that acquires what a run needs, waits, and releases it.

It is in a session of its own, out of reach of the terminal's signals, and no child of QEMU. Tap
descriptors and words go to the launcher over a socket pair, one message each:

    nic <tab> ...      a NIC is ready; its descriptors come with the message
    say <tab> ...      something the user should know
    ready              everything is there
    error <tab> ...    it failed, and what was made has been released again
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
from _signal import SIG_IGN, SIG_SETMASK, SIGHUP, SIGINT, SIGTERM, pthread_sigmask, signal

from qemu_netwrap.core import text
from qemu_netwrap.core.errors import NetwrapError
from qemu_netwrap.host import dnsmasq, files
from qemu_netwrap.life import effects, runs, waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.resources import Resource
    from qemu_netwrap.life.state import State
    from qemu_netwrap.planning.plan import Plan

_FDS_A_MESSAGE = 200  # the kernel takes 253 (SCM_MAX_FD)
_WAITER_FDS = 8
_ENDING_SIGNALS = (SIGHUP, SIGINT, SIGTERM)


class Keeping:
    """What the keeper needs to know of its run."""

    def __init__(
        self,
        state: State,
        plan: Plan,
        reserved: tuple[Subnet, ...],
        *,
        verbose: bool = False,
        debug: bool = False,
    ) -> None:
        """PLAN is what to provision; VERBOSE shows each step, DEBUG a traceback on failure."""
        self.state = state
        self.plan = plan
        self.pid = os.getpid()  # the launcher's, which will be QEMU's
        self.reserved = reserved
        self.verbose = verbose
        self.debug = debug


def start(keeping: Keeping, lock: int) -> _socket.socket:
    """Start a keeper; return the launcher's end of the socket. LOCK is the run's lock, not for it.

    Two forks: the keeper must not be a child of the process that becomes QEMU.
    """
    ours, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.close(lock)
                ours.close()
                _keep(keeping, its)
        except BaseException:  # noqa: BLE001 - a forked child must not return
            if keeping.debug:
                sys.excepthook(*sys.exc_info())
        os._exit(125)
    its.close()
    os.waitpid(middle, 0)
    return ours


def _keep(keeping: Keeping, launcher: _socket.socket) -> None:
    """Be the keeper: acquire, hand over, then become the waiter. Does not return."""
    for number in _ENDING_SIGNALS:
        signal(number, SIG_IGN)
    # The user may have blocked some for QEMU; dnsmasq has to hear us.
    pthread_sigmask(SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    run = keeping.plan.run
    folder = keeping.state.run(run)
    try:
        alive = files.open_locked(f"{folder}/keeper")
        lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CLOEXEC)
        _provision(keeping, launcher)
        _send(launcher, "ready")
    except Exception as error:
        # Also on what nobody foresaw: whatever has been made must go.
        failures = runs.release(keeping.state, run)
        _send(launcher, _failure(error, failures))
        raise
    _settle(keeping)
    _become_waiter(folder, lock, alive)


def _settle(keeping: Keeping) -> None:
    """Do what QEMU does not wait for."""
    try:
        for network in keeping.plan.networks:
            dnsmasq.set_apart(keeping.state.network(network.bridge))
        runs.collect(keeping.state)  # what earlier runs have left
    except (OSError, NetwrapError):
        pass  # somebody else's trouble: gc tells of it


def _failure(error: Exception, failures: list[NetwrapError]) -> str:
    """Return the message that tells the launcher what went wrong."""
    if not isinstance(error, NetwrapError):
        detail = str(error) if isinstance(error, OSError) else repr(error)
        error = NetwrapError(f"the keeper failed: {detail}", "--debug shows where")
    hint = error.hint
    if failures:
        hint = f"{hint}; not released: {'; '.join(e.message for e in failures)}"
    return text.write(
        "error", {"message": error.message, "hint": hint, "status": str(error.status)}
    )


def _provision(keeping: Keeping, launcher: _socket.socket) -> None:
    """Acquire what the plan needs; send each NIC's descriptors as they come."""

    def say(line: str) -> None:
        _send(launcher, text.write("say", {"line": line}))

    def show(resource: Resource) -> None:
        if keeping.verbose:
            from qemu_netwrap.planning.explain import explain

            for command in explain(resource).do:
                say(f"+ {command}")

    work = effects.Work(keeping.state, say, show)
    nics = []
    for granted in runs.provision(keeping.plan, work, keeping.reserved):
        nics.append(granted)
        fields = {
            "tap": granted.nic.tap,
            "macs": " ".join(granted.macs),
            "address": granted.info.address,
        }
        _send(launcher, text.write("nic", fields))
        for kind, fds in (("taps", granted.taps), ("vhosts", granted.vhosts)):
            for at in range(0, len(fds), _FDS_A_MESSAGE):
                _send_fds(launcher, kind, fds[at : at + _FDS_A_MESSAGE])
    runs.write_info(keeping.state, keeping.plan, keeping.pid, nics)


def _send(launcher: _socket.socket, line: str) -> None:
    """Send one message."""
    launcher.sendall(line.encode("utf-8", "surrogateescape"))


def _send_fds(launcher: _socket.socket, kind: str, fds: tuple[int, ...]) -> None:
    """Send descriptors with the word that says what they are."""
    raw = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    launcher.sendmsg([kind.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])


def _become_waiter(folder: str, lock: int, alive: int) -> None:
    """Replace this process by the waiter, with nothing open but what it needs."""
    null = os.open(os.devnull, os.O_RDWR)
    keep_stderr = os.isatty(2)
    for fd in (0, 1) if keep_stderr else (0, 1, 2):
        os.dup2(null, fd)
    # Out of the way first, then to the lowest numbers, so that all above can be closed.
    lock, alive = (fcntl.fcntl(fd, fcntl.F_DUPFD, _WAITER_FDS) for fd in (lock, alive))
    os.dup2(lock, 3)
    os.dup2(alive, 4)
    # The limit may have been lowered below what is open.
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 4:
            _close(fd)
    os.execv(sys.executable, [sys.executable, "-I", "-S", waiter.__file__, folder, "3"])


def _close(fd: int) -> None:
    """Close a descriptor, which may be closed already."""
    try:
        os.close(fd)
    except OSError:
        pass
