"""The keeper: the process beside QEMU that acquires what a run needs, waits, and releases it.

It has a session of its own, out of reach of the terminal's signals, and is no child of QEMU. Where
it enters a user's realm, a `warden` stays outside. It sends the launcher text and tap descriptors
over a socket pair, one message each:

    keeper format=1    comes first: the format of the others
    nic <tab> ...      a NIC is ready; its descriptors come with the message
    device <tab> ...   a device of the host is ready to be passed through
    say <tab> ...      something the user should know
    ready              everything is set up
    error <tab> ...    setting up failed, and what was made has been released again
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
from _signal import (
    SIG_IGN,
    SIG_SETMASK,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGSTOP,
    SIGTERM,
    pthread_sigmask,
    signal,
    valid_signals,
)

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
    from qemu_netwrap.realm import Realm
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.runtime.kept_code import Copy
    from qemu_netwrap.state import StateDir

FORMAT = 1  # of the messages
_FDS_A_MESSAGE = 200  # the kernel allows 253 (SCM_MAX_FD)
PIECE, MORE = 32768, b"+"
_WAITER_FDS = 8
_LOCK_FD, _ALIVE_FD, _FLOCKED_FD = 3, 4, 5
_FLOCK = "/usr/bin/flock"
_SHELL = "/bin/sh"
_ENDING_SIGNALS = (SIGHUP, SIGINT, SIGTERM)


class KeeperJob(Record):
    """What the keeper needs to know of its run."""

    state: StateDir
    wanted: RunSpec
    reserved: tuple[Subnet, ...]
    pid: int  # QEMU's
    by_tap: bool = False  # QEMU holds no run lock: the run lasts as long as its first tap
    verbose: bool = False  # show each step
    debug: bool = False  # show a traceback on failure
    passing: PassthroughPlan | None = None  # devices of the host
    realm: Realm | None = None  # to enter; None if the launcher is in the network namespace
    held: tuple[int, ...] = ()  # the host's ports that a relay is to lead to the run's NICs


def start(keeping: KeeperJob, *not_for_it: int) -> _socket.socket:
    """Start a keeper; return the launcher's end of the socket.

    NOT_FOR_IT are descriptors that it must not hold, the run's lock among them. It is forked twice,
    so that it is no child of the process that becomes QEMU.
    """
    ours, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    has_warden = keeping.realm is not None and not keeping.by_tap
    waiting, told = os.pipe2(os.O_CLOEXEC) if has_warden else (-1, -1)
    middle = os.fork()
    if middle == 0:
        try:
            for fd in not_for_it:
                os.close(fd)
            os.setsid()
            if os.fork() == 0:
                ours.close()
                _keep(keeping, its, told)
            if has_warden:
                _leave_warden(keeping, waiting)
        except BaseException:  # noqa: BLE001 - a forked child must not return
            if keeping.debug:
                sys.excepthook(*sys.exc_info())
        os._exit(125)
    if keeping.realm is not None:
        keeping.realm.close()
    for fd in (*keeping.held, *((waiting, told) if has_warden else ())):
        os.close(fd)
    its.close()
    os.waitpid(middle, 0)
    return ours


def _leave_warden(keeping: KeeperJob, waiting: int) -> None:
    """Start the warden of a run in a user's realm, which reads from WAITING what to watch.

    It is spawned, which copies no page tables: the launcher waits for this process.
    """
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    files.keep_from_programs(_LOCK_FD)
    os.posix_spawn(
        _SHELL,
        runtime.warden.command(keeping.state.run(keeping.wanted.run), keeping.pid),
        {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        file_actions=[
            *((os.POSIX_SPAWN_DUP2, null, to) for to in range(_LOCK_FD)),
            (os.POSIX_SPAWN_DUP2, waiting, _LOCK_FD),
        ],
        setsigmask=(),
        setsigdef=valid_signals() - {SIGKILL, SIGSTOP},
    )


def _keep(keeping: KeeperJob, launcher: _socket.socket, told: int) -> None:
    """Run as the keeper: acquire, hand over, then become the waiter. Does not return.

    The run's warden hears by the pipe TOLD what to watch; -1 if there is none.
    """
    for number in _ENDING_SIGNALS:
        signal(number, SIG_IGN)
    # dnsmasq inherits the mask, and must get SIGTERM even if the user blocked it for QEMU.
    pthread_sigmask(SIG_SETMASK, ())
    os.chdir("/")
    os.umask(0o022)
    run = keeping.wanted.run
    folder = keeping.state.run(run)
    try:
        _send(launcher, record_text.write("keeper", {"format": str(FORMAT)}))
        waits.caller.socket = launcher.fileno()
        if keeping.realm is not None:
            keeping.realm.enter()
            keeping.realm.entered()
        open_files.raise_own()
        alive = files.open_locked(f"{folder}/keeper")
        lock = os.open(f"{folder}/lock", os.O_RDONLY | os.O_CLOEXEC)
        tap = _provision(keeping, launcher)
        _send(launcher, "ready")
        waits.caller.leave()
    except Exception as error:
        waits.caller.leave()
        if keeping.realm is not None:
            keeping.realm.close()  # so that releasing can take its lock
        # On unexpected errors too: everything that was acquired must be released.
        failures = runs.release(keeping.state, run)
        _send(launcher, _failure(error, failures))
        raise
    copy = kept_code.keep(keeping.state, run, "waiter" if tap is None else "tap_waiter")
    _settle(keeping)
    if told >= 0:
        _tell_warden(keeping, told)
    _close_all_but(lock, alive)
    if tap is None:
        _sleep(folder, copy)
    else:
        _watch(keeping, tap, copy)


def _watch(keeping: KeeperJob, tap: LiveTap, copy: Copy) -> NoReturn:
    """Become the waiter of a run that lasts as long as a tap."""
    run = keeping.wanted.run
    folder = keeping.state.run(run)
    watched = linux.netlink.watch.watch_link(tap.index)
    if keeping.state.tap_lives(run):
        os.set_inheritable(watched.fileno(), True)  # noqa: FBT003 - has no name
        words = copy.command(folder, _LOCK_FD, watched.fileno())
        os.execv(words[0], words)
    fcntl.flock(_LOCK_FD, fcntl.LOCK_EX)
    runtime.teardown.finish(folder, _LOCK_FD)  # the tap was gone before the watch began
    os._exit(0)


def _settle(keeping: KeeperJob) -> None:
    """Finish in the background what the hand-over leaves: move dnsmasq out, release dead runs."""
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
        pass  # not a failure of this run: gc reports it


def _tell_warden(keeping: KeeperJob, told: int) -> None:
    """Tell the run's warden what to watch; if it is gone, the next run to join puts things back."""
    own = (keeping.pid, os.getpid())
    try:
        found = runtime.mending.watched(keeping.state, keeping.wanted.run, own)
        os.write(told, f"{runtime.mending.as_words(found)}\n".encode())
    except OSError:
        pass


def _live_by_tap(keeping: KeeperJob) -> LiveTap:
    """Tie the run's life to its first tap; return that tap. Raises `HostError` if it is gone.

    A tap that QEMU has made does not keep the run if QEMU is gone by now, and the tap is not.
    """
    name = keeping.wanted.nics[0].tap
    link = host_facts.link(name)
    if link is None:
        raise HostError(f"tap {name} has gone", "QEMU has ended, or the tap was removed")
    by_qemu = runs.has_owner(keeping.state, keeping.wanted.run)
    tap = LiveTap(link.index, name, link.carrier or by_qemu)
    keeping.state.write_tap(keeping.wanted.run, tap)
    return tap


def _failure(error: Exception, failures: list[NetwrapError]) -> str:
    """Return the message that reports the failure to the launcher."""
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


def _provision(keeping: KeeperJob, launcher: _socket.socket) -> LiveTap | None:
    """Acquire what the plan needs; send each NIC's descriptors once they are open.

    Returns the tap that the run lasts as long as, if it does. The run's info is written last: with
    that it is no longer being started (`owners.is_starting`).
    """

    def say(line: str) -> None:
        _send(launcher, record_text.write("say", {"line": line}))

    def show(resource: Resource) -> None:
        if keeping.verbose:
            for command in resources.explain.explain(resource).do:
                say(f"+ {command}")

    waits.caller.say = say
    work = Context(keeping.state, say, show)
    work.ports = _ports(keeping)
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
            _hand_over(launcher, kind, fds)
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
    tap = _live_by_tap(keeping) if keeping.by_tap else None
    runs.write_info(keeping.state, keeping.wanted, keeping.pid, nics, devices)
    return tap


def _ports(keeping: KeeperJob) -> dict[tuple[str, str, int, bool], int]:
    """Return the host's ports that a relay is to serve, as `Context.ports`."""
    led = (forward for nic in keeping.wanted.nics for forward in nic.forwards)
    named = ((each.protocol, each.host, each.port, each.is_ipv6) for each in led)
    return dict(zip(named, keeping.held, strict=False))  # outside of a user's realm none is held


def _send(launcher: _socket.socket, line: str) -> None:
    """Send one message; a long one in pieces, of which all but the last begin with `MORE`."""
    data = line.encode("utf-8", "surrogateescape")
    while len(data) > PIECE:
        launcher.sendall(MORE + data[:PIECE])
        data = data[PIECE:]
    launcher.sendall(data)


def _hand_over(launcher: _socket.socket, kind: str, fds: tuple[int, ...]) -> None:
    """Send descriptors in messages of text KIND, which says what they are: taps or vhosts."""
    for at in range(0, len(fds), _FDS_A_MESSAGE):
        raw = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds[at : at + _FDS_A_MESSAGE])
        launcher.sendmsg([kind.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, raw)])


def _close_all_but(lock: int, alive: int) -> None:
    """Close everything but what the waiter needs, and give that the numbers that it expects."""
    null = os.open(os.devnull, os.O_RDWR)
    keep_stderr = os.isatty(2)
    for fd in (0, 1) if keep_stderr else (0, 1, 2):
        os.dup2(null, fd)
    # Move both out of the way first, then to the lowest numbers, so that all above can be closed.
    lock, alive = (fcntl.fcntl(fd, fcntl.F_DUPFD, _WAITER_FDS) for fd in (lock, alive))
    os.dup2(lock, _LOCK_FD)
    os.dup2(alive, _ALIVE_FD)
    files.close_from(_ALIVE_FD + 1)


def _sleep(folder: str, copy: Copy) -> NoReturn:
    """Become flock(1), which sleeps on the run's lock and becomes the waiter when QEMU is gone.

    It opens the lock again, at the lowest free number (open(2)), and passes that on. If flock is a
    link, to BusyBox say, it has no -F (--no-fork): then, or without any, the waiter itself sleeps.
    """
    try:
        if not os.path.islink(_FLOCK):
            words = ["flock", "-F", f"/proc/self/fd/{_LOCK_FD}"]
            os.execv(_FLOCK, [*words, *copy.command(folder, _FLOCKED_FD)])
    except OSError:
        pass  # there is no flock that can be executed
    words = copy.command(folder, _LOCK_FD)
    os.execv(words[0], words)
