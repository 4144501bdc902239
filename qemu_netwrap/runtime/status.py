"""What runs and networks there are, and how they fare: what `ps` shows, `stop` and `wait` use."""

from __future__ import annotations

import _socket
import os

from qemu_netwrap import runtime
from qemu_netwrap.errors import HostError, NetwrapError, UsageError
from qemu_netwrap.linux import (
    commands,
    dnsmasq,
    files,
    holders,
    ipv6_facts,
    polling,
    processes,
    sysctl,
)
from qemu_netwrap.linux.netlink import link_stats
from qemu_netwrap.linux.netlink.links import name_of
from qemu_netwrap.model.mac import unpack
from qemu_netwrap.model.network import traits
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.record import Record
from qemu_netwrap.resources import dhcp_hosts, lookout
from qemu_netwrap.resources.base import ALL, Context, Unreadable
from qemu_netwrap.resources.links import TAP_PREFIX
from qemu_netwrap.runtime import membership, owners, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.model.run import DeviceInfo, PortForward
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.resources.journal import Journal
    from qemu_netwrap.state import StateDir

RUNNING = "running"
STARTING = "starting"
IDLE = "idle"  # a tap that nobody has open yet, kept on its network by hand
ENDING = "ending"
HELD = "held"  # QEMU is gone, and something that is not QEMU's has its lock still
DEAD = "dead"
UNREADABLE = "unreadable"

_QEMUS = ("qemu", "kvm")
# Seconds: for the kernel to close what a process had, for a state that is about to change, for a
# whole teardown; and between two looks.
_RELEASE_TIMEOUT, _SETTLE_TIMEOUT, _TEARDOWN_TIMEOUT = 3.0, 0.5, 120.0
_POLL_INTERVAL = 0.01

_PID_DIGITS = 10  # of PID_MAX_LIMIT, linux/threads.h, and some more
REMEDY = "; the next run to join puts that right"


class Lease(Record):
    """A DHCP lease. Expires in seconds since the epoch; 0 is never."""

    mac: str
    address: str
    name: str
    expires: int


class NicStatus(Record):
    """A NIC of a run: where it is, what address the guest has, and its counters in bytes."""

    label: str
    tap: str
    network: str
    bridge: str
    macs: tuple[str, ...]
    addresses: tuple[str, ...]
    received: int
    sent: int
    forwards: tuple[PortForward, ...]  # ports of the host that lead to it


class RunStatus(Record):
    """A run: QEMU's process, and its NICs. Times in seconds, memory in bytes."""

    run: str
    name: str
    state: str
    pid: int
    uptime: float
    cpu: float
    memory: int
    command: str
    nics: tuple[NicStatus, ...]
    devices: tuple[DeviceInfo, ...]  # of the host, passed through
    faults: tuple[str, ...]


class NetworkStatus(Record):
    """A network that is up, or foreign but in use by runs of ours."""

    name: str
    mode: str
    bridge: str
    address: str
    address6: str
    members: tuple[str, ...]
    kept: bool  # up until `network down`, with runs or without
    ports: tuple[str, ...]
    leases: tuple[Lease, ...]
    dnsmasq: int  # its pid; 0 without one
    faults: tuple[str, ...]


def all_runs(state: StateDir) -> list[RunStatus]:
    """Return every run, the dead ones that nobody has released included."""
    family = owners.Family(state)
    return [_run_or_fault(state, run, family) for run in state.runs()]


def all_networks(state: StateDir) -> list[NetworkStatus]:
    """Return every network that runs use, or that dead runs have left."""
    rules = commands.our_rules() if state.networks() else None
    return [_network(state, bridge, rules) for bridge in state.networks()]


def network(state: StateDir, bridge: str) -> NetworkStatus | None:
    """Return how one network fares; None for those who may not know, all but root."""
    try:
        return _network(state, bridge, commands.our_rules())
    except PermissionError:
        return None


def find(state: StateDir, name: str, *, over: bool = False) -> str:
    """Return the run that NAME means: its run name, its guest's, or QEMU's process id.

    With OVER the name of a run may be one that is over. Raises `UsageError`.
    """
    known = {run: runs.read_info(state, run)[0].name for run in state.runs()}
    if name in known:
        return name
    found = [run for run, guest in known.items() if guest and guest == name]
    if len(found) == 1:
        return found[0]
    if name.isascii() and name.isdigit() and len(name) <= _PID_DIGITS:
        # One that has daemonized has another pid by now, which is what ps and -pidfile tell.
        family = owners.Family(state)
        having = (run for run in known if any(p.pid == int(name) for p in family.qemu(run)))
        by_pid = next(having, "")
        if by_pid:
            return by_pid
    if over and (name.isdigit() or name[:-1].isdigit()):
        return name
    if found:
        raise UsageError(f"{name}: runs {', '.join(found)} have that name", "name the run")
    raise UsageError(f"{name}: there is no such run", "qemu-netwrap ps shows what runs")


def stop(state: StateDir, run: str, seconds: float) -> list[int]:
    """End a run's QEMU with its whole tree and wait for the teardown; return who was killed.

    Only QEMU's own processes are signalled; those that have not ended after SECONDS are killed.
    Raises the `HostError` that names what goes on all the same; the run is released then, too.
    """
    owner = owners.read(state, run)
    killed = []
    if owner is not None:
        killed = processes.stop(
            lambda known: _mortal(owner, run, owners.Family(state), known), seconds
        )
        if owners.read(state, run) not in (None, owner):
            return killed  # that run is over, and its name another one's already
    _refuse_what_cannot_be_ended(state, run)
    named = _await_letting_go(state, run)
    if named or state.tap_lives(run):
        errors = _release_from(state, run)
        if errors:
            raise errors[0]
        if named:
            raise HostError(
                f"run {run} is over, but not all that QEMU had is free: {', '.join(named)} still"
                " has it and was left alone, as it is not known to be QEMU's",
                "see what it is, and end it if it is in the way",
            )
        return killed
    _await_teardown(state, run)
    return killed


def _mortal(
    owner: owners.Owner, run: str, family: owners.Family, known: list[Process]
) -> list[Process]:
    """Return those processes of a run's QEMU that `stop` may end.

    Not the first one, which takes a whole container, or the host, with it; nor this one.
    """
    spared = (1, os.getpid())
    return [each for each in family.of(owner, run, known) if each.pid not in spared]


def _refuse_what_cannot_be_ended(state: StateDir, run: str) -> None:
    """Raise `HostError` where QEMU goes on since it is out of reach."""
    main = owners.Family(state).main(run)
    if main is not None and main.pid == 1:
        raise HostError(
            f"run {run}: its QEMU is the first process here, and ends with the container",
            "stop the container",
        )
    if not polling.wait_until(lambda: not owners.is_elsewhere(state, run), _SETTLE_TIMEOUT):
        raise HostError(
            f"run {run}: its processes are in another namespace of process ids",
            "run qemu-netwrap stop there, or outside of both",
        )


def _await_letting_go(state: StateDir, run: str) -> list[str]:
    """Wait until QEMU's end has freed what the run lives by; return what keeps it, in words."""
    if state.tap(run) is None:
        # Most teardowns are over by then, and nobody has to be looked for.
        if polling.wait_until(
            lambda: not files.is_held(f"{state.run(run)}/lock"), _SETTLE_TIMEOUT, _POLL_INTERVAL
        ):
            return []
        polling.wait_until(lambda: not owners.obstacles(state, run), _RELEASE_TIMEOUT)
        return owners.obstacles(state, run)
    if polling.wait_until(
        lambda: _is_idle(state, run) or not state.tap_lives(run), _RELEASE_TIMEOUT
    ):
        return [holders.named(pid) for pid in _with_tap(state, run)]
    return [holders.named(pid) for pid in _with_tap(state, run)] or [owners.UNSEEN]


def _with_tap(state: StateDir, run: str) -> list[int]:
    """Return the processes that have the tap that a run lives by."""
    tap = state.tap(run)
    return list(holders.holders_of_tap(name_of(tap.index))) if tap is not None else []


def _release_from(state: StateDir, run: str) -> list[NetwrapError]:
    """Release a run although others have what it lives by; return what went wrong."""
    if state.tap(run) is not None:
        return runs.end(state, run)
    return owners.take_over(state, run, lambda _: None)


def _await_teardown(state: StateDir, run: str) -> None:
    """Wait until the keeper has released a run whose QEMU is gone; see to it if that has died.

    Raises `HostError` if it does not come to an end.
    """
    folder = state.run(run)

    def is_over() -> bool:
        return not (files.is_locked(f"{folder}/lock") or files.is_locked(f"{folder}/keeper"))

    if not polling.wait_until(is_over, _TEARDOWN_TIMEOUT, _POLL_INTERVAL):
        named = ", ".join(map(holders.named, owners.keepers(state, run))) or "its keeper"
        raise HostError(
            f"run {run}: QEMU has ended, and {named} has not released everything yet",
            "see what it waits for; then run qemu-netwrap gc",
        )
    _collect_rest(state, run)


def wait(state: StateDir, run: str) -> None:
    """Wait until a run's teardown is over, and see to it if its keeper has died.

    Raises the `NetwrapError` of what could not be released.
    """
    folder = state.run(run)
    runs.wait_tap(state, run)
    files.wait_unlocked(f"{folder}/lock")
    files.wait_unlocked(f"{folder}/keeper")
    _collect_rest(state, run)


def _collect_rest(state: StateDir, run: str) -> None:
    """Release what the keeper of a run has left. Raises the `NetwrapError` of what cannot be."""
    folder = state.run(run)
    if os.path.exists(folder):
        _, errors = runs.release_dead_runs(state)
        if errors and os.path.exists(folder):
            raise errors[0]


def collect(state: StateDir) -> tuple[list[str], list[NetwrapError]]:
    """Release what dead runs have left, networks without a living member included."""
    said: list[str] = []
    released, errors = runs.release_dead_runs(state, said.append)
    errors += _left_over(state)
    for bridge in state.networks():
        try:
            errors += membership.leave(bridge, "", Context(state, said.append))
        except NetwrapError as error:
            errors.append(error)

    told, failed = runtime.strays.release(Context(state, said.append))
    state.tidy()
    return [f"run {run}" for run in released] + said + told, errors + failed


def _left_over(state: StateDir) -> list[NetwrapError]:
    """Return an error for each run whose QEMU is gone, and that others keep alive."""
    family = owners.Family(state)
    return [
        HostError(f"run {run}: {held}", f"qemu-netwrap stop {run} releases it all the same")
        for run in state.runs()
        if not family.qemu(run) and (held := _held(state, run))
    ]


def _held(state: StateDir, run: str) -> str:
    """Say what keeps a run alive whose QEMU is not seen; empty if nothing does, or only a moment.

    A tap that was put on its network by hand is kept there, and a run of another namespace of
    process ids is seen there.
    """
    polling.wait_until(lambda: not _holding(state, run), _SETTLE_TIMEOUT)
    named = _holding(state, run)
    return f"QEMU is gone, but what it lived by is held by {', '.join(named)}" if named else ""


def _holding(state: StateDir, run: str) -> list[str]:
    """Return what has the lock or the tap that a run lives by, in words."""
    if state.tap(run) is None:
        return [] if owners.is_elsewhere(state, run) else owners.obstacles(state, run)
    if _is_by_hand(state, run) or not state.tap_lives(run):
        return []
    return [holders.named(pid) for pid in _with_tap(state, run)] or [owners.UNSEEN]


def _is_by_hand(state: StateDir, run: str) -> bool:
    """Whether a run lives by a tap, and nobody knows which QEMU is to have it."""
    return state.tap(run) is not None and not os.path.exists(f"{state.run(run)}/qemu")


def leases(state: StateDir, bridge: str) -> tuple[Lease, ...]:
    """Return the leases of a network's dnsmasq (its lease file: expiry, MAC, address, name, id).

    Those of DHCPv6, which follow, do not tell MACs: see `_nic`.
    """
    found = []
    for line in files.read(f"{state.network(bridge)}/leases").splitlines():
        words = line.split()
        if words[:1] == ["duid"]:
            break
        if len(words) >= 4 and words[0].isdigit():
            name = "" if words[3] == "*" else words[3]
            found.append(Lease(words[1], words[2], name, int(words[0])))
    return tuple(found)


def _run_or_fault(state: StateDir, run: str, family: owners.Family) -> RunStatus:
    """Return how one run fares, also when what is written of it cannot be read."""
    try:
        return _run(state, run, family)
    except HostError as error:
        return RunStatus(run, "", UNREADABLE, 0, 0.0, 0.0, 0, "", (), (), (error.message,))


def _run(state: StateDir, run: str, family: owners.Family) -> RunStatus:
    """Return how one run fares."""
    info, nics = runs.read_info(state, run)
    folder = state.run(run)
    used = _usage(state, run, family)
    faults: tuple[str, ...] = ()
    if used is not None:
        phase = RUNNING if info.pid else STARTING
        if not used.name.startswith(_QEMUS) and not _is_by_hand(state, run):
            faults = _outlived(used, family.main(run))
    elif _is_idle(state, run):
        phase = IDLE
    elif held := _held(state, run):
        phase, faults = HELD, (f"{held}; qemu-netwrap stop {run} releases it",)
    else:
        phase = ENDING if files.is_locked(f"{folder}/keeper") else DEAD
    links = link_stats.links([nic.tap for nic in nics])
    return RunStatus(
        run,
        info.name,
        phase,
        used.pid if used else 0,
        used.uptime if used else 0.0,
        used.cpu if used else 0.0,
        used.memory if used else 0,
        info.command,
        tuple(_nic(state, nic, links.get(nic.tap)) for nic in nics),
        tuple(runs.read_devices(state, run)),
        (*faults, *runs.faults(state, run)),
    )


def _usage(state: StateDir, run: str, family: owners.Family) -> processes.Usage | None:
    """Return what a run's QEMU has used; of a tap put there by hand, that of whoever has it."""
    main = family.main(run)
    pids = [main.pid] if main else [process.pid for process in family.qemu(run)]
    if not pids and _is_by_hand(state, run):
        pids = _with_tap(state, run)
    return next((u for u in map(processes.usage, pids) if u is not None), None)


def _outlived(used: processes.Usage, main: Process | None) -> tuple[str, ...]:
    """Say that the program that was started is gone, if so, and what goes on: no QEMU, it seems."""
    if main is not None:
        return ()
    return (f"the program that was started has ended; {holders.named(used.pid)} goes on",)


def _is_idle(state: StateDir, run: str) -> bool:
    """Whether a run lives by a tap that was not held when it began."""
    tap = state.tap(run)
    return tap is not None and not tap.held and state.tap_lives(run)


def _nic(state: StateDir, nic: runs.NicInfo, link: link_stats.Port | None) -> NicStatus:
    """Return how one NIC fares."""
    macs = tuple(nic.macs.split())
    known = [(lease.mac, lease.address) for lease in leases(state, nic.bridge)]
    known += link_stats.neighbours6(nic.bridge)
    addresses = tuple(address for mac, address in known if mac in macs)
    counters = (link.received, link.sent) if link else (0, 0)
    forwards = hostfwd.known(nic.forwards.split())
    where = (nic.label, nic.tap, nic.network, nic.bridge)
    return NicStatus(*where, macs, addresses, *counters, forwards)


def _network(state: StateDir, bridge: str, rules: str | None) -> NetworkStatus:
    """Return how one network fares."""
    work = Context(state)
    info = membership.peek_info(work, bridge) or membership.NetworkInfo(bridge, "bridge", bridge)
    entries, faults = _entries(membership.journal_of(work, bridge))
    folder = state.network(bridge)
    server = dnsmasq.find(folder)
    members = membership.members(bridge, work)
    faults += _unreadable(info, entries)
    if work.rtnl.link(bridge) is not None:
        faults += [f"{tap} has been unplugged" for tap in _unplugged(state, bridge, members, work)]
        faults += _mac_faults(state, bridge, members, work)
        faults += _ip_faults(state, bridge, members, work)
    elif any(r.bridge_made for r in entries):
        faults.append(f"its bridge has been removed{REMEDY}")
    if (
        any(r.network_chains for r in entries)
        and rules is not None
        and f"chain {bridge}_" not in rules
    ):
        faults.append(f"its nft rules have been removed{REMEDY}")
    if server is None and os.path.exists(f"{folder}/dnsmasq.conf"):
        faults.append(f"its dnsmasq has died{REMEDY}")
    if traits(info.mode).has_way_out:
        faults += _way_faults(info, folder, work)
    return NetworkStatus(
        info.name,
        info.mode,
        bridge,
        info.address,
        info.address6,
        members,
        membership.is_kept(bridge, work),
        tuple(port.name for port in link_stats.ports(bridge)),
        leases(state, bridge),
        server.pid if server else 0,
        tuple(faults),
    )


def _entries(journal: Journal) -> tuple[list[Resource], list[str]]:
    """Return what a network has, and what is to be said of its journal if that is a newer one."""
    try:
        return [entry.resource for entry in journal.live()], []
    except HostError as error:
        return [], [error.message]


def _unreadable(info: membership.NetworkInfo, entries: list[Resource]) -> list[str]:
    """Return what of a network's files this version cannot read."""
    lines = [each.line for each in entries if isinstance(each, Unreadable)]
    found = [f"its journal has a line that this version cannot read: {line!r}" for line in lines]
    return found if info.mode else ["its info file is damaged", *found]


def _way_faults(info: membership.NetworkInfo, folder: str, work: Context) -> Iterator[str]:
    """Yield what is wrong with a nat network's way out."""
    families = [(_socket.AF_INET, "ipv4", "forwarding")]
    if info.address6:
        families.append((_socket.AF_INET6, "ipv6", ipv6_facts.FORCE))
    for family, name, key in families:
        device = work.rtnl.default_device(family)
        forwards = {sysctl.read(name, device, key), sysctl.read(name, ALL, "forwarding")}
        if device and "1" not in forwards:
            yield (
                f"the host's default route leads by {device}, which does not forward {name}: guests"
                f" are cut off{REMEDY}"
            )
    if membership.follows(info.bridge, work) and lookout.find(folder) is None:
        yield f"nothing has it follow the host's way out any more{REMEDY}"


def _mac_faults(
    state: StateDir, bridge: str, members: tuple[str, ...], work: Context
) -> Iterator[str]:
    """Yield what is wrong with the MACs that a bridge goes by."""
    for run, tap in _taps(state, bridge, members, work):
        if tap.mac[:1] != TAP_PREFIX:
            yield (
                f"{tap.name} has the MAC {unpack(tap.mac)}, which may be a neighbour's: the QEMU of"
                f" run {run} has set it, unless somebody did as root; qemu-netwrap stop {run}"
            )
    for run, mac in dhcp_hosts.missing(bridge, work):
        yield f"run {run} is not reached: the bridge has lost its MAC {mac}{REMEDY}"


def _ip_faults(
    state: StateDir, bridge: str, members: tuple[str, ...], work: Context
) -> Iterator[str]:
    """Yield the taps whose guests have sent what a network's guests must not."""
    for _, tap in _taps(state, bridge, members, work):
        count = work.rtnl.dropped(tap.index)
        if count:
            yield (
                f"{tap.name}: {count} frames of its guest were dropped: DHCP under another MAC, or"
                " what a server, a router or a neighbor says; ip_filter = false lets them pass"
            )


def _unplugged(state: StateDir, bridge: str, members: tuple[str, ...], work: Context) -> list[str]:
    """Return the taps of a network's runs that are on no bridge at all."""
    return [tap.name for _, tap in _taps(state, bridge, members, work) if not tap.master]


def _taps(
    state: StateDir, bridge: str, members: tuple[str, ...], work: Context
) -> Iterator[tuple[str, Link]]:
    """Yield the runs on a network and their taps there."""
    for run in members:
        for nic in runs.read_info(state, run)[1]:
            tap = work.rtnl.link(nic.tap) if nic.bridge == bridge else None
            if tap is not None and not _is_anothers(state, run, tap):
                yield run, tap


def _is_anothers(state: StateDir, run: str, tap: Link) -> bool:
    """Whether a tap only has the name of the one that a run lived by."""
    try:
        lived_by = state.tap(run)
    except HostError:
        return False
    return lived_by is not None and lived_by.index != tap.index
