"""One run: its folder, what it acquires, and its release once it is dead."""

from __future__ import annotations

import os

from qemu_netwrap import linux, record_text
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import files, proc, tun
from qemu_netwrap.model.names import guest_names
from qemu_netwrap.model.run import DeviceInfo
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import Context, Unreadable
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import executor, membership, run_steps
from qemu_netwrap.runtime.membership import Membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.run import PortForward, RunSpec, TapRequest
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.runtime.membership import NetworkInfo
    from qemu_netwrap.state import StateDir


class Granted(Record):
    """What one NIC of a run got."""

    nic: TapRequest
    info: NetworkInfo
    macs: tuple[str, ...]
    taps: tuple[int, ...]  # descriptors
    vhosts: tuple[int, ...] = ()
    forwards: tuple[PortForward, ...] = ()


class RunInfo(Record):
    """A run, as `ps` shows it. Its pid is QEMU's, unless QEMU has daemonized."""

    run: str
    pid: str
    name: str
    command: str


class NicInfo(Record):
    """A NIC of a run, as `ps` shows it."""

    label: str
    tap: str
    network: str
    bridge: str
    macs: str  # separated by spaces
    forwards: str = ""  # as hostfwd= has them, separated by spaces


def claim_name(state: StateDir, name: str) -> tuple[str, int]:
    """Take a free run name; return it and the descriptor that holds its lock.

    It is NAME, QEMU's pid or its tap, with a letter appended if that is in use: by a dead run that
    has not been released yet, or by a run in another pid namespace. Raises `NetwrapError`.
    """
    for suffix in ("", *"abcdefghijklmnopqrstuvwxyz"):
        run = f"{name}{suffix}"
        folder = state.run(run)
        try:
            lock = files.open_locked(f"{folder}/lock", wait=False)
        except BlockingIOError:
            continue
        except OSError:
            files.remove_empty([folder])
            state.tidy()
            raise
        if not os.path.exists(f"{folder}/journal"):
            return run, lock
        os.close(lock)
    raise NetwrapError(f"run {name}: too many dead runs of that name", "run qemu-netwrap gc")


def write_owner(
    state: StateDir, run: str, process: Process, uid: int = 0, lock: int | None = None
) -> None:
    """Record which process becomes a run's QEMU: `stop` may end it, and what it starts.

    UID is the user that it runs as, LOCK the number at which it inherits the run's lock. If this
    fails, on a full file system say, the run's folder is removed: the run must have no effects yet.
    """
    fields = {
        "pid": str(process.pid),
        "started": process.started,
        "namespace": proc.pid_namespace(),
        "uid": str(uid),
    }
    fields |= {} if lock is None else {"lock": str(lock)}
    try:
        files.write(f"{state.run(run)}/qemu", record_text.write("qemu", fields) + "\n")
    except OSError:
        files.remove_folder(state.run(run))
        state.tidy()
        raise


def has_owner(state: StateDir, run: str) -> bool:
    """Whether it is recorded which process becomes, or is, a run's QEMU (`write_owner`)."""
    return os.path.exists(f"{state.run(run)}/qemu")


def write_info(
    state: StateDir,
    wanted: RunSpec,
    pid: int,
    nics: list[Granted],
    devices: Sequence[DeviceInfo] = (),
) -> None:
    """Record what `ps` will show of a run; PID is QEMU's."""
    info = RunInfo(wanted.run, str(pid), wanted.guest, wanted.command)
    lines = [record_text.write("run", info.__dict__)]
    for got in nics:
        network = got.nic.network
        nic = NicInfo(
            got.nic.label,
            got.nic.tap,
            network.name,
            network.bridge,
            " ".join(got.macs),
            " ".join(map(str, got.forwards)),
        )
        lines.append(record_text.write("nic", nic.__dict__))
    lines += [record_text.write("device", device.__dict__) for device in devices]
    files.write(f"{state.run(wanted.run)}/info", "\n".join(lines) + "\n")


def read_info(state: StateDir, run: str) -> tuple[RunInfo, list[NicInfo]]:
    """Return what is recorded of a run and its NICs; of one that is just starting, its name."""
    told = _told(state, run)
    found = next((fields for kind, fields in told if kind == "run"), None)
    if found is None:
        return RunInfo(run, "", "", ""), []
    nics = [record_text.fill(NicInfo, fields) for kind, fields in told if kind == "nic"]
    return record_text.fill(RunInfo, found), nics


def read_devices(state: StateDir, run: str) -> list[DeviceInfo]:
    """Return the devices of the host that a run passes through."""
    return [
        record_text.fill(DeviceInfo, fields)
        for kind, fields in _told(state, run)
        if kind == "device"
    ]


def _told(state: StateDir, run: str) -> list[tuple[str, dict[str, str]]]:
    """Return the (kind, fields) of each line that `write_info` has written and that is readable."""
    told = []
    for line in files.read(f"{state.run(run)}/info").split("\n")[:-1]:
        try:
            told.append(record_text.read(line))
        except ValueError:
            continue  # `faults` reports it
    return told


def faults(state: StateDir, run: str) -> list[str]:
    """Return a line for each part of a run's files that this version cannot read."""
    entries, newer = read_journal(Journal(f"{state.run(run)}/journal"))
    found = unreadable(entries)
    lines = files.read(f"{state.run(run)}/info").split("\n")[:-1]
    if len(_told(state, run)) < len(lines):
        found.append(f"{state.run(run)}/info is damaged")
    found += newer
    try:
        state.tap(run)
    except HostError as error:
        found.append(error.message)
    return found


def read_journal(journal: Journal) -> tuple[list[Resource], list[str]]:
    """Return a journal's resources; and its fault, if it has a newer format."""
    try:
        return [entry.resource for entry in journal.live()], []
    except HostError as error:
        return [], [error.message]


def unreadable(found: Iterable[Resource]) -> list[str]:
    """Return a fault for each line of a journal that this version cannot read."""
    lines = [each.line for each in found if isinstance(each, Unreadable)]
    return [f"its journal has a line that this version cannot read: {line!r}" for line in lines]


def provision(wanted: RunSpec, work: Context, reserved: tuple[Subnet, ...]) -> Iterator[Granted]:
    """Acquire what a run wants, NIC by NIC. Raises `NetwrapError`; `release` undoes all of it."""
    journal = Journal(f"{work.state.run(wanted.run)}/journal")
    infos: dict[str, NetworkInfo] = {}
    names: dict[str, Iterator[str]] = {}
    for network in wanted.networks:
        journal.intend(Membership(network.bridge, wanted.run))
        infos[network.bridge] = membership.join(network, wanted.run, work, reserved)
        if network.uplink:
            membership.follow_uplinks(work)
        names[network.bridge] = guest_names(wanted.guest if infos[network.bridge].address else "")
    choice = run_steps.Choice(wanted.run, work)
    for nic in wanted.nics:
        bridge = nic.network.bridge
        vhosts = tun.open_vhost(nic.queues) if nic.vhost else []
        steps = run_steps.NicSteps(nic, infos[bridge], names[bridge], choice)
        for step in steps:
            executor.acquire_all(step, journal, work)
        taps = tuple(work.taps.get(nic.tap, ()))
        yield Granted(nic, infos[bridge], steps.macs, taps, tuple(vhosts), steps.forwards)


def release(
    state: StateDir, run: str, say: Callable[[str], None] = lambda _: None
) -> list[NetwrapError]:
    """Release a dead run, whose lock the caller holds; return the errors.

    The run's folder is removed unless there are errors.
    """
    work = Context(state, say)
    folder = state.run(run)
    errors = executor.release_all(Journal(f"{folder}/journal"), work)
    if not errors:
        files.remove_folder(folder)
        state.tidy()
    return errors


def end(
    state: StateDir, run: str, say: Callable[[str], None] = lambda _: None
) -> list[NetwrapError]:
    """Release a run that lasts as long as a tap, even while the tap is there; return the errors.

    The change to the tap wakes the run's keeper, which finds that the run is no longer its own.
    """
    lock = files.open_locked(f"{state.run(run)}/lock")
    try:
        state.forget_tap(run)
        return release(state, run, say)
    finally:
        os.close(lock)


def wait_tap(state: StateDir, run: str) -> None:
    """If a run lasts as long as a tap, sleep until that tap is gone."""
    tap = state.tap(run)
    if tap is not None:
        watched = linux.netlink.watch.watch_link(tap.index)
        while state.tap_lives(run):
            linux.netlink.watch.wait(watched)
        watched.close()


def release_dead_runs(
    state: StateDir, say: Callable[[str], None] = lambda _: None
) -> tuple[list[str], list[NetwrapError]]:
    """Release every run that is dead and has no keeper; return their names and the errors."""
    state.drop_other_boots()
    released: list[str] = []
    errors: list[NetwrapError] = []
    for run in state.runs():
        try:
            failures = _release_if_dead(state, run, say)
        except NetwrapError as error:
            failures = [error]
        if failures is not None:
            errors += failures
            released += [] if failures else [run]
    return released, errors


def _release_if_dead(
    state: StateDir, run: str, say: Callable[[str], None]
) -> list[NetwrapError] | None:
    """Release a run and return the errors; None if it lives, or is being released elsewhere."""
    if _is_seen_to(state, run):
        return None
    try:
        lock = files.open_locked(f"{state.run(run)}/lock", wait=False)
    except BlockingIOError:
        return None
    try:
        # Check again with the lock held: the run may have only just begun.
        return None if _is_seen_to(state, run) else release(state, run, say)
    finally:
        os.close(lock)


def _is_seen_to(state: StateDir, run: str) -> bool:
    """Whether a run has a keeper, which will release it, or a tap that keeps it alive."""
    return files.is_locked(f"{state.run(run)}/keeper") or state.tap_lives(run)
