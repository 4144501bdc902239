"""The keeper: the process beside QEMU that acquires what a run needs, waits, and releases it.

It is in a session of its own, out of reach of the terminal's signals, and no child of QEMU. Tap
descriptors and words go to the launcher over a socket pair, one message each:

    keeper format=1    comes first: the format of the others
    nic <tab> ...      a NIC is ready; its descriptors come with the message
    device <tab> ...   a device of the host is ready to be passed through
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

from qemu_netwrap import linux, passthrough, record_text, resources, runtime
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import dnsmasq, files, host_facts, open_files, waits
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import Context
from qemu_netwrap.runtime import executor, kept_code, membership, runs
from qemu_netwrap.state import LiveTap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.run import RunSpec
    from qemu_netwrap.passthrough.assign import PassthroughPlan
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.runtime.kept_code import Copy
    from qemu_netwrap.state import StateDir

FORMAT = 1  # of the messages
_FDS_A_MESSAGE = 200  # the kernel takes 253 (SCM_MAX_FD)
PIECE, MORE = 32768, b"+"
_WAITER_FDS = 8
_LOCK_FD, _ALIVE_FD, _FLOCKED_FD = 3, 4, 5
_FLOCK = "/usr/bin/flock"
_ENDING_SIGNALS = (SIGHUP, SIGINT, SIGTERM)


class KeeperJob(Record):
    """What the keeper needs to know of its run."""

    state: StateDir
    wanted: RunSpec
    reserved: tuple[Subnet, ...]
    pid: int  # QEMU's
    by_tap: bool = False  # QEMU holds no lock of ours: the run lives by its first tap
    verbose: bool = False  # show each step
    debug: bool = False  # show a traceback on failure
    passing: PassthroughPlan | None = None  # devices of the host


def start(keeping: KeeperJob, *not_for_it: int) -> _socket.socket:
    """Start a keeper; return the launcher's end of the socket.

    NOT_FOR_IT are descriptors that it must not hold, the run's lock among them. Two forks: the
    keeper must not be a child of the process that becomes QEMU.
    """
    ours, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            for fd in not_for_it:
                os.close(fd)
            os.setsid()
            if os.fork() == 0:
                ours.close()
                _keep(keeping, its)
        except BaseException:  # noqa: BLE001 - a forked child must not return
            if keeping.debug:
                sys.excepthook(*sys.exc_info())
        os._exit(125)
    its.close()
    os.waitpid(middle, 0)
    return ours


def _keep(keeping: KeeperJob, launcher: _socket.socket) -> None:
    """Be the keeper: acquire, hand over, then become the waiter. Does not return."""
    for number in _ENDING_SIGNALS:
        signal(number, SIG_IGN)
    # The user may have blocked some for QEMU; dnsmasq has to hear us.
    pthread_sigmask(SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    run = keeping.wanted.run
    folder = keeping.state.run(run)
    try:
        _send(launcher, record_text.write("keeper", {"format": str(FORMAT)}))
        waits.caller.socket = launcher.fileno()
        open_files.raise_own()
        alive = files.open_locked(f"{folder}/keeper")
        lock = os.open(f"{folder}/lock", os.O_RDONLY | os.O_CLOEXEC)
        _provision(keeping, launcher)
        tap = _live_by_tap(keeping) if keeping.by_tap else None
        _send(launcher, "ready")
        waits.caller.leave()
    except Exception as error:
        waits.caller.leave()
        # Also on what nobody foresaw: whatever has been made must go.
        failures = runs.release(keeping.state, run)
        _send(launcher, _failure(error, failures))
        raise
    copy = kept_code.keep(keeping.state, run, "waiter" if tap is None else "tap_waiter")
    _settle(keeping)
    _close_all_but(lock, alive)
    if tap is None:
        _sleep(folder, copy)
    else:
        _watch(keeping, tap, copy)


def _watch(keeping: KeeperJob, tap: LiveTap, copy: Copy) -> NoReturn:
    """Become the waiter for a run that lives by a tap."""
    # Here, so that launches do not pay for them.

    run = keeping.wanted.run
    folder = keeping.state.run(run)
    watched = linux.netlink.watch.watch_link(tap.index)
    if keeping.state.tap_lives(run):
        os.set_inheritable(watched.fileno(), True)  # noqa: FBT003 - has no name
        words = copy.command(folder, _LOCK_FD, watched.fileno())
        os.execv(words[0], words)
    fcntl.flock(_LOCK_FD, fcntl.LOCK_EX)
    runtime.teardown.finish(folder, _LOCK_FD)  # it has gone before anybody watched
    os._exit(0)


def _settle(keeping: KeeperJob) -> None:
    """Do what QEMU does not wait for."""
    try:
        work = Context(keeping.state)
        for network in keeping.wanted.networks:
            dnsmasq.set_apart(keeping.state.network(network.bridge))
            if membership.follows(network.bridge, work):
                resources.lookout.set_apart(keeping.state.network(network.bridge))
            if len(membership.members(network.bridge, work)) > 1:
                membership.put_back(network.bridge, work)
        runs.release_dead_runs(keeping.state)  # what earlier runs have left
    except (OSError, NetwrapError):
        pass  # somebody else's trouble: gc tells of it


def _live_by_tap(keeping: KeeperJob) -> LiveTap:
    """Have the run live by its first tap from now on."""
    name = keeping.wanted.nics[0].tap
    link = host_facts.link(name)
    if link is None:
        raise HostError(f"tap {name} has gone", "QEMU has ended, or somebody removed it")
    tap = LiveTap(link.index, name, link.carrier)
    keeping.state.write_tap(keeping.wanted.run, tap)
    return tap


def _failure(error: Exception, failures: list[NetwrapError]) -> str:
    """Return the message that tells the launcher what went wrong."""
    if not isinstance(error, NetwrapError):
        detail = str(error) if isinstance(error, OSError) else repr(error)
        hint = "--debug shows where"
        if isinstance(error, OSError):
            hint = linux.remedies.remedy(error, hint)
        error = NetwrapError(f"the keeper failed: {detail}", hint)
    hint = error.hint
    if failures:
        hint = f"{hint}; not released: {'; '.join(e.message for e in failures)}"
    return record_text.write(
        "error", {"message": error.message, "hint": hint, "status": str(error.status)}
    )


def _provision(keeping: KeeperJob, launcher: _socket.socket) -> None:
    """Acquire what the plan needs; send each NIC's descriptors as they come."""

    def say(line: str) -> None:
        _send(launcher, record_text.write("say", {"line": line}))

    def show(resource: Resource) -> None:
        if keeping.verbose:
            for command in resources.explain.explain(resource).do:
                say(f"+ {command}")

    waits.caller.say = say
    work = Context(keeping.state, say, show)
    nics = []
    for granted in runs.provision(keeping.wanted, work, keeping.reserved):
        nics.append(granted)
        fields = {
            "tap": granted.nic.tap,
            "macs": " ".join(granted.macs),
            "address": granted.info.address,
            "made": work.made.get(granted.nic.network.bridge, ""),
            "forwards": " ".join(map(str, granted.forwards)),
        }
        _send(launcher, record_text.write("nic", fields))
        for kind, fds in (("taps", granted.taps), ("vhosts", granted.vhosts)):
            for at in range(0, len(fds), _FDS_A_MESSAGE):
                _send_fds(launcher, kind, fds[at : at + _FDS_A_MESSAGE])
    devices = []
    if keeping.passing is not None:
        for device in passthrough.assign.acquire(
            keeping.passing,
            keeping.wanted.run,
            work,
            acquire_all=executor.acquire_all,
            release_dead_runs=runs.release_dead_runs,
        ):
            devices.append(device)
            _send(launcher, record_text.write("device", device.__dict__))
    runs.write_info(keeping.state, keeping.wanted, keeping.pid, nics, devices)


def _send(launcher: _socket.socket, line: str) -> None:
    """Send one message; a long one in pieces, of which all but the last begin with `MORE`."""
    data = line.encode("utf-8", "surrogateescape")
    while len(data) > PIECE:
        launcher.sendall(MORE + data[:PIECE])
        data = data[PIECE:]
    launcher.sendall(data)


def _send_fds(launcher: _socket.socket, kind: str, fds: tuple[int, ...]) -> None:
    """Send descriptors with the word that says what they are."""
    raw = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    launcher.sendmsg([kind.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])


def _close_all_but(lock: int, alive: int) -> None:
    """Leave nothing open but what the waiter needs, under the numbers it knows."""
    null = os.open(os.devnull, os.O_RDWR)
    keep_stderr = os.isatty(2)
    for fd in (0, 1) if keep_stderr else (0, 1, 2):
        os.dup2(null, fd)
    # Out of the way first, then to the lowest numbers, so that all above can be closed.
    lock, alive = (fcntl.fcntl(fd, fcntl.F_DUPFD, _WAITER_FDS) for fd in (lock, alive))
    os.dup2(lock, _LOCK_FD)
    os.dup2(alive, _ALIVE_FD)
    files.close_from(_ALIVE_FD + 1)


def _sleep(folder: str, copy: Copy) -> NoReturn:
    """Become flock(1), asleep on the run's lock, which becomes the waiter when QEMU is gone.

    It opens the lock anew, by the lowest free number (open(2)), and hands that on. A link leads to
    a BusyBox, say, which has no -F (--no-fork): then, or without any, the waiter sleeps itself.
    """
    try:
        if not os.path.islink(_FLOCK):
            words = ["flock", "-F", f"/proc/self/fd/{_LOCK_FD}"]
            os.execv(_FLOCK, [*words, *copy.command(folder, _FLOCKED_FD)])
    except OSError:
        pass  # there is none that can be executed
    words = copy.command(folder, _LOCK_FD)
    os.execv(words[0], words)
