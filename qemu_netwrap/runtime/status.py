"""The status of runs and networks, which `ps` shows and `stop` and `wait` use."""

from __future__ import annotations

import _socket
import os

from qemu_netwrap import realm, runtime
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
    way_out,
)
from qemu_netwrap.linux.netlink import link_stats
from qemu_netwrap.linux.netlink.links import name_of
from qemu_netwrap.model.mac import unpack
from qemu_netwrap.model.network import traits
from qemu_netwrap.qemu import hostfwd
from qemu_netwrap.record import Record
from qemu_netwrap.resources import dhcp_hosts, lookout
from qemu_netwrap.resources.base import ALL, Context
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.links import TAP_PREFIX
from qemu_netwrap.runtime import membership, owners, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.model.run import DeviceInfo, PortForward
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.state import StateDir

RUNNING = "running"
STARTING = "starting"
IDLE = "idle"  # a tap that no process has open yet, put on its network by hand
ENDING = "ending"
HELD = "held"  # QEMU is gone, and a process that is not QEMU's still has its lock
DEAD = "dead"
UNREADABLE = "unreadable"

_QEMUS = ("qemu", "kvm")
# Seconds: for the kernel to close what a process had open, for a state that is about to change, for
# a whole teardown; and between two polls.
_RELEASE_TIMEOUT, _SETTLE_TIMEOUT, _TEARDOWN_TIMEOUT = 3.0, 0.5, 120.0
_POLL_INTERVAL = 0.01

_PID_DIGITS = 10  # of PID_MAX_LIMIT, linux/threads.h, and some more
REMEDY = "; the next run to join puts that right"


class Lease(Record):
    """A DHCP lease. It expires at that number of seconds since the epoch; 0 is never."""

    mac: str
    address: str
    name: str
    expires: int


class NicStatus(Record):
    """A NIC of a run: its network, the guest's addresses, and its counters in bytes."""

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
    """A network that is up, or a foreign one in use by runs of ours."""

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
    way_out: str  # a user's: the program that leads out, if it lives
    faults: tuple[str, ...]


def all_runs(state: StateDir) -> list[RunStatus]:
    """Return every run, including dead ones not yet released."""
    family = owners.Family(state)
    return [_run_or_fault(state, run, family) for run in state.runs()]


def all_networks(state: StateDir) -> list[NetworkStatus]:
    """Return every network that runs use, or that dead runs have left."""
    rules = commands.our_rules() if state.networks() else None
    return [_network(state, bridge, rules) for bridge in state.networks()]


def network(state: StateDir, bridge: str) -> NetworkStatus | None:
    """Return the status of one network; None if the caller is not root."""
    try:
        return _network(state, bridge, commands.our_rules())
    except PermissionError:
        return None


def find(state: StateDir, name: str, *, over: bool = False) -> str:
    """Return the name of the run that NAME means: a run's name, its guest's, or QEMU's pid.

    With OVER, NAME may be that of a run that is over. Raises `UsageError`.
    """
    known = {run: runs.read_info(state, run)[0].name for run in state.runs()}
    if name in known:
        return name
    found = [run for run, guest in known.items() if guest and guest == name]
    if len(found) == 1:
        return found[0]
    if name.isascii() and name.isdigit() and len(name) <= _PID_DIGITS:
        # A QEMU that has daemonized has another pid by now, which ps and -pidfile show.
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
    """End a run's QEMU with its descendants and wait for the teardown; return the killed pids.

    Only QEMU's own processes are signalled; those that have not ended after SECONDS are killed.
    Raises a `HostError` that names what continues nevertheless; the run is released even then.
    """
    owner = owners.read(state, run)
    killed = []
    if owner is not None:
        killed = processes.stop(
            lambda known: _mortal(owner, run, owners.Family(state), known), seconds
        )
        if owners.read(state, run) not in (None, owner):
            return killed  # that run is over, and another one already has its name
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

    Not pid 1, whose end is that of the whole container or host; nor this process.
    """
    spared = (1, os.getpid())
    return [each for each in family.of(owner, run, known) if each.pid not in spared]


def _refuse_what_cannot_be_ended(state: StateDir, run: str) -> None:
    """Raise `HostError` if QEMU cannot be ended: it is pid 1, or in another pid namespace."""
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
    """Wait until the run's lock or tap is free after QEMU's end; return what has it, as text."""
    if state.tap(run) is None:
        # Most teardowns are over by then, and no holder has to be searched for.
        if polling.wait_until(
            lambda: not files.is_held(f"{state.run(run)}/lock"), _SETTLE_TIMEOUT, _POLL_INTERVAL
        ):
            return []
        return _until_nothing(lambda: _obstacles(state, run), _RELEASE_TIMEOUT)
    if polling.wait_until(
        lambda: _is_idle(state, run) or not state.tap_lives(run), _RELEASE_TIMEOUT
    ):
        return [holders.named(pid) for pid in _with_tap(state, run)]
    return _tap_holders(state, run)


def _tap_holders(state: StateDir, run: str) -> list[str]:
    """Return what has open the tap that keeps a run alive, as text; empty if the tap is gone."""
    named = [holders.named(pid) for pid in _with_tap(state, run)]
    return named or ([owners.UNSEEN] if state.tap_lives(run) else [])


def _with_tap(state: StateDir, run: str) -> list[int]:
    """Return the pids that have open the tap that keeps a run alive."""
    tap = state.tap(run)
    return list(holders.holders_of_tap(name_of(tap.index))) if tap is not None else []


def _release_from(state: StateDir, run: str) -> list[NetwrapError]:
    """Release a run although others have its lock or tap; return the errors."""
    if state.tap(run) is not None:
        return runs.end(state, run)
    return owners.take_over(state, run, lambda _: None)


def _await_teardown(state: StateDir, run: str) -> None:
    """Wait until the keeper has released a run whose QEMU is gone; release it if the keeper died.

    Raises `HostError` if the teardown does not end in time.
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
    """Wait until a run's teardown is over, and release it if its keeper has died.

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
    """Release dead runs, networks without a living member, strays; return lines, and errors."""
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
    """Return an error for each run whose QEMU is gone and that other processes keep alive."""
    family = owners.Family(state)
    return [
        HostError(f"run {run}: {held}", f"qemu-netwrap stop {run} releases it all the same")
        for run in state.runs()
        if not family.qemu(run) and (held := _held(state, run))
    ]


def _held(state: StateDir, run: str) -> str:
    """Return what keeps a run alive whose QEMU is not found; "" if nothing does for long.

    Neither a tap that was put on its network by hand counts, nor a run in another pid namespace,
    where its QEMU can be found.
    """
    named = _until_nothing(lambda: _holding(state, run), _SETTLE_TIMEOUT)
    if named == [owners.UNSEEN]:
        # On a busy host a process that is ending, and is not seen any more, has it for longer.
        named = _until_nothing(lambda: _holding(state, run), _RELEASE_TIMEOUT)
    return f"QEMU is gone, but what it lived by is held by {', '.join(named)}" if named else ""


def _until_nothing(look: Callable[[], list[str]], timeout: float) -> list[str]:
    """Call LOOK until it returns nothing, for at most TIMEOUT seconds; return its last answer.

    Looking once more afterwards might find what has only just come.
    """
    found: list[str] = []

    def is_over() -> bool:
        found[:] = look()
        return not found

    polling.wait_until(is_over, timeout)
    return found


def _holding(state: StateDir, run: str) -> list[str]:
    """Return what has the lock or the tap that keeps a run alive, as text."""
    if state.tap(run) is None:
        return [] if owners.is_elsewhere(state, run) else _obstacles(state, run)
    if _is_by_hand(state, run) or not state.tap_lives(run) or owners.is_starting(state, run):
        return []
    return _tap_holders(state, run)


def _obstacles(state: StateDir, run: str) -> list[str]:
    """Return what keeps a run's lock from its keeper, as text; what starts the run does not."""
    return [] if owners.is_starting(state, run) else owners.obstacles(state, run)


def _is_by_hand(state: StateDir, run: str) -> bool:
    """Whether a run lasts as long as a tap, and it is unknown which QEMU will use that."""
    return state.tap(run) is not None and not runs.has_owner(state, run)


def leases(state: StateDir, bridge: str) -> tuple[Lease, ...]:
    """Return the leases of a network's dnsmasq (its lease file: expiry, MAC, address, name, id).

    The DHCPv6 leases after them contain no MACs: see `_nic`.
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
    """Return the status of one run, even if its files cannot be read."""
    try:
        return _run(state, run, family)
    except HostError as error:
        return RunStatus(run, "", UNREADABLE, 0, 0.0, 0.0, 0, "", (), (), (error.message,))


def _run(state: StateDir, run: str, family: owners.Family) -> RunStatus:
    """Return the status of one run."""
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
    elif owners.is_starting(state, run):
        phase = STARTING
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
    """Return what a run's QEMU has used; for a tap put there by hand, what its holder has used."""
    main = family.main(run)
    pids = [main.pid] if main else [process.pid for process in family.qemu(run)]
    if not pids and _is_by_hand(state, run):
        pids = _with_tap(state, run)
    return next((u for u in map(processes.usage, pids) if u is not None), None)


def _outlived(used: processes.Usage, main: Process | None) -> tuple[str, ...]:
    """Return the fault, if so, that the started program has ended and another process goes on."""
    if main is not None:
        return ()
    return (f"the program that was started has ended; {holders.named(used.pid)} goes on",)


def _is_idle(state: StateDir, run: str) -> bool:
    """Whether a run lasts as long as a tap that no process held when the run began."""
    tap = state.tap(run)
    return tap is not None and not tap.held and state.tap_lives(run)


def _nic(state: StateDir, nic: runs.NicInfo, link: link_stats.Port | None) -> NicStatus:
    """Return the status of one NIC."""
    macs = tuple(nic.macs.split())
    known = [(lease.mac, lease.address) for lease in leases(state, nic.bridge)]
    known += link_stats.neighbours6(nic.bridge)
    addresses = tuple(address for mac, address in known if mac in macs)
    counters = (link.received, link.sent) if link else (0, 0)
    forwards = hostfwd.known(nic.forwards.split())
    where = (nic.label, nic.tap, nic.network, nic.bridge)
    return NicStatus(*where, macs, addresses, *counters, forwards)


def _network(state: StateDir, bridge: str, rules: str | None) -> NetworkStatus:
    """Return the status of one network."""
    work = Context(state)
    info = membership.peek_info(work, bridge) or membership.NetworkInfo(bridge, "bridge", bridge)
    entries, faults = runs.read_journal(membership.journal_of(work, bridge))
    folder = state.network(bridge)
    server = dnsmasq.find(folder)
    members = membership.members(bridge, work)
    faults += _unreadable(info, entries)
    if work.rtnl.link(bridge) is not None:
        taps = list(_taps(state, bridge, members, work))
        faults += [f"{tap.name} has been unplugged" for _, tap in taps if not tap.master]
        faults += _mac_faults(taps, bridge, work)
        faults += _ip_faults(taps, work)
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
    faults += [f"{lost}{REMEDY}" for lost in _losses(members, bridge, work)]
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
        _way_out(state) if traits(info.mode).has_way_out else "",
        tuple(faults),
    )


def _losses(members: tuple[str, ...], bridge: str, work: Context) -> Iterator[str]:
    """Yield what has died of the living runs on a network; each run counts for its first one."""
    for run in filter(work.state.is_alive, members):
        if bridge in [nic.bridge for nic in runs.read_info(work.state, run)[1]][:1]:
            entries = Journal(f"{work.state.run(run)}/journal").peek()
            yield from filter(None, (entry.resource.loss(work) for entry in entries))


def _way_out(state: StateDir) -> str:
    """Return the program that leads out of the user's realm; empty if none does."""
    found = None if realm.is_system() else way_out.alive(realm.way_out_of(state.base))
    return found.program if found is not None else ""


def _unreadable(info: membership.NetworkInfo, entries: list[Resource]) -> list[str]:
    """Return a fault for each part of a network's files that this version cannot read."""
    found = runs.unreadable(entries)
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
    if realm.has_way_out(work.state.base) and not _way_out(work.state):
        yield f"the program that led out has died: guests are cut off{REMEDY}"
    if membership.follows(info.bridge, work) and lookout.find(folder) is None:
        yield f"nothing has it follow the host's way out any more{REMEDY}"


def _mac_faults(taps: list[tuple[str, Link]], bridge: str, work: Context) -> Iterator[str]:
    """Yield what is wrong with the MACs of a bridge's taps and forwarding database."""
    for run, tap in taps:
        if tap.mac[:1] != TAP_PREFIX:
            yield (
                f"{tap.name} has the MAC {unpack(tap.mac)}, which may be a neighbour's: the QEMU of"
                f" run {run} has set it, unless root did by hand; qemu-netwrap stop {run}"
            )
    for run, mac in dhcp_hosts.missing(bridge, work):
        yield f"run {run} is not reached: the bridge has lost its MAC {mac}{REMEDY}"


def _ip_faults(taps: list[tuple[str, Link]], work: Context) -> Iterator[str]:
    """Yield the taps whose guests have sent frames that a network's guests must not send."""
    for _, tap in taps:
        count = work.rtnl.dropped(tap.index)
        if count:
            yield (
                f"{tap.name}: {count} frames of its guest were dropped: DHCP under another MAC, or"
                " what a server, a router or a neighbor says; ip_filter = false lets them pass"
            )


def _taps(
    state: StateDir, bridge: str, members: tuple[str, ...], work: Context
) -> Iterator[tuple[str, Link]]:
    """Yield (run, tap) for each tap that a network's runs have there."""
    for run in members:
        for nic in runs.read_info(state, run)[1]:
            tap = work.rtnl.link(nic.tap) if nic.bridge == bridge else None
            if tap is not None and not _is_anothers(state, run, tap):
                yield run, tap


def _is_anothers(state: StateDir, run: str, tap: Link) -> bool:
    """Whether a tap is not the run's, but only has the same name."""
    try:
        lived_by = state.tap(run)
    except HostError:
        return False
    return lived_by is not None and lived_by.index != tap.index
