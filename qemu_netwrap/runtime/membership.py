"""Networks that runs share: the first run to need one creates it, the last takes it down."""

from __future__ import annotations

import _socket
import os

from qemu_netwrap import linux, realm, record_text, resources, runtime
from qemu_netwrap.errors import HostError, NetwrapError
from qemu_netwrap.linux import child, files, host_facts, sysctl
from qemu_netwrap.model.host import WayOut
from qemu_netwrap.model.network import Network, traits
from qemu_netwrap.networks import base
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import ALL, Commands, Resource, Unreadable
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import executor, repair

_WAY_OUT_TIMEOUT, _WAY_OUT_INTERVAL = 10.0, 0.002  # seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Ipv6Facts
    from qemu_netwrap.resources.base import Context, Saved
    from qemu_netwrap.resources.journal import Entry


class Membership(Resource):
    """A run's use of a network: the first creates the network, the last takes it down.

    `join` acquires it; releasing the last one releases the network's own journal.
    """

    kind = "Membership"

    bridge: str
    run: str

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Leave the network as a step of releasing a run."""
        had_uplink = has_uplink(self.bridge, context)
        _raise_first(leave(self.bridge, self.run, context))
        if had_uplink:
            follow_uplinks(context)
        put_back(self.bridge, context)
        yield

    def explain(self) -> Commands:
        """Return comments: no command joins or leaves a network."""
        return Commands(
            (f"# run {self.run} joins {self.bridge}",), (f"# run {self.run} leaves {self.bridge}",)
        )


class NetworkInfo(Record):
    """A network that is up. Its file is written last: where it exists, the network is complete."""

    name: str
    mode: str
    bridge: str
    address: str = ""  # the gateway's, with its prefix length
    address6: str = ""  # the same for IPv6; empty without


def journal_of(work: Context, bridge: str) -> Journal:
    """Return a network's journal."""
    return Journal(f"{work.state.network(bridge)}/journal")


def read_info(work: Context, bridge: str) -> NetworkInfo | None:
    """Return what is recorded of the network on BRIDGE; None if it is not up.

    Raises `HostError` if the record is damaged.
    """
    path = f"{work.state.network(bridge)}/info"
    line = files.read(path).rstrip("\n")
    try:
        return record_text.fill(NetworkInfo, record_text.read(line)[1]) if line else None
    except ValueError as error:
        raise HostError(
            f"{path} is damaged: {error}",
            "stop the runs that use that network (qemu-netwrap ps), and remove the file",
        ) from error


def peek_info(work: Context, bridge: str) -> NetworkInfo | None:
    """Return the same; if the record is damaged, one with the bridge alone."""
    try:
        return read_info(work, bridge)
    except HostError:
        return NetworkInfo("", "", bridge)


def join(
    network: Network, run: str, work: Context, reserved: tuple[Subnet, ...] = ()
) -> NetworkInfo:
    """Make RUN a member of NETWORK, which is created if necessary.

    RESERVED are subnets that must not be chosen. Raises `NetwrapError`; what was made by then is
    for `leave` to release.
    """
    folder = work.state.network(network.bridge)
    with files.Lock(work.state.network_lock(network.bridge)):
        journal = journal_of(work, network.bridge)
        entries = _readable(network, journal)
        files.make_folder(f"{folder}/members")
        files.write(work.state.member(network.bridge, run), "")
        info = read_info(work, network.bridge)
        if info is None or not _stands(entries, work):
            with files.Lock(work.state.host_lock):
                # Only part of the network is left: its creator died, or its bridge was removed.
                files.remove(f"{folder}/info")
                _raise_first(executor.release_all(journal, work))
                return _make(network, journal, work, reserved)
        _check_same(network, info, entries)
        repair.restore(entries, journal, work)
        if traits(info.mode).has_way_out:
            _follow_uplink(info, entries, journal, work)
            _follow_uplink6(info, entries, journal, work)
        return info


def leave(bridge: str, run: str, work: Context) -> list[NetwrapError]:
    """End a run's membership; take the network down if no living member is left.

    With an empty RUN no member leaves: a network whose members are all dead is taken down.
    Returns the errors; after an error the network stays for the next try.
    """
    folder = work.state.network(bridge)
    if not os.path.exists(folder):
        return []
    with files.Lock(work.state.network_lock(bridge)):
        files.remove_scratch(f"{folder}/members")
        others = (member for member in work.state.members(bridge) if member != run)
        if not (is_kept(bridge, work) or any(map(work.state.is_alive, others))):
            journal = journal_of(work, bridge)
            if os.path.exists(journal.path):
                with files.Lock(work.state.host_lock):
                    errors = executor.release_all(journal, work)
                    files.remove_scratch(work.state.shared_folder)
                if errors:
                    return [] if _was_refused(bridge, run, work) else errors
            files.remove_folder(folder)
            files.remove(work.state.network_lock(bridge))
        elif run:
            files.remove(work.state.member(bridge, run))
    return []


def keep(bridge: str, work: Context) -> None:
    """Keep the network on BRIDGE up when its last run has left; the caller is a member."""
    with files.Lock(work.state.network_lock(bridge)):
        files.write(work.state.kept(bridge), "")


def keep_no_longer(bridge: str, run: str, work: Context) -> bool:
    """Undo `keep`, with RUN as a member until it leaves; return whether the network was kept.

    Raises `HostError` for a network of a newer version, which is left unchanged.
    """
    with files.Lock(work.state.network_lock(bridge)):
        journal_of(work, bridge).check()
        was_kept = is_kept(bridge, work)
        files.write(work.state.member(bridge, run), "")
        files.remove(work.state.kept(bridge))
    return was_kept


def is_kept(bridge: str, work: Context) -> bool:
    """Whether the network on BRIDGE stays up without a run."""
    return os.path.exists(work.state.kept(bridge))


def members(bridge: str, work: Context) -> tuple[str, ...]:
    """Return the runs that use the network on BRIDGE, including dead ones not yet released."""
    return tuple(work.state.members(bridge))


def follow_uplinks(work: Context) -> None:
    """Make every nat network use the default route's current device; the caller holds no lock.

    To be called when a NIC has joined or left a bridge: the default route's device changes then.
    """
    for bridge in work.state.networks():
        try:
            journal_of(work, bridge).check()
        except HostError:
            continue  # made by a newer version, whose own process follows
        follow(bridge, work)


def follow(bridge: str, work: Context) -> bool:
    """Make the network on BRIDGE use the host's current way out, if it is a nat network.

    Releases what was set up for devices that no route leaves by any more, and recreates what others
    removed. Returns whether such a network is up.
    """
    if not os.path.exists(work.state.network(bridge)):
        return False  # it went while this process started: a lock would be left in its place
    with files.Lock(work.state.network_lock(bridge)):
        info = peek_info(work, bridge)
        if info is None or not traits(info.mode).has_way_out:
            return False
        _restore(info, work)
        return True


def mend(bridge: str, work: Context) -> None:
    """Recreate what has died of the network on BRIDGE, of whatever mode, if it is up."""
    if not os.path.exists(work.state.network(bridge)):
        return  # a lock is not created for a network that is gone
    with files.Lock(work.state.network_lock(bridge)):
        info = peek_info(work, bridge)
        if info is not None:
            _restore(info, work)


def _restore(info: NetworkInfo, work: Context) -> None:
    """Recreate what others removed of a network, whose lock the caller holds."""
    journal = journal_of(work, info.bridge)
    entries = journal.live()
    if not _stands(entries, work):
        return
    if not traits(info.mode).has_way_out:
        repair.restore(entries, journal, work)
        return
    entries = runtime.way_out.give_up(entries, journal, work)
    repair.restore(entries, journal, work)
    _follow_uplink(info, entries, journal, work)
    _follow_uplink6(info, entries, journal, work)


def follows(bridge: str, work: Context) -> bool:
    """Whether a lookout process makes the network on BRIDGE follow the host's way out."""
    return os.path.exists(f"{work.state.network(bridge)}/lookout")


def put_back(bridge: str, work: Context) -> None:
    """Restore the living members' MACs that a bridge has lost; the caller holds no lock."""
    if len(members(bridge, work)) > 0:
        resources.dhcp_hosts.put_back(bridge, work)


def has_uplink(bridge: str, work: Context) -> bool:
    """Whether the network on BRIDGE has made a NIC of the host a port of its bridge."""
    return any(e.resource.nic_taken for e in journal_of(work, bridge).peek())


def resources_of(
    network: Network, work: Context, reserved: tuple[Subnet, ...]
) -> tuple[Resource, ...]:
    """Return the resources that creating NETWORK would need on this host. Raises `HostError`."""
    needs = base.driver(network.mode).needs(network)
    if needs.way_out and not realm.is_system():
        await_way_out(work)
    around = host_facts.surroundings(
        network.bridge,
        places=needs.places,
        forwarding=work.state.forwarding_devices(),
        inner=_closed(work),
        resolv_conf="" if realm.is_system() else realm.resolv_conf_of(work.state.base),
    )
    if needs.way_out:
        way_out = work.rtnl.default_link()
        around = around.replace(mtu=way_out.mtu if way_out else 0)
    if needs.ipv6:
        around = around.replace(ipv6=_around6(work))
    if needs.uplink:
        around = around.replace(uplink=linux.uplinks.look(needs.uplink))
    return base.network_resources(network, around.replace(reserved=reserved))


def await_way_out(work: Context) -> None:
    """Wait until the way out of a user's realm is there: what is made for it must know its device.

    If its program ends meanwhile, this tells the user that guests reach only each other.
    """
    file = realm.way_out_of(work.state.base)
    started = linux.way_out.read(file)

    def is_there() -> bool:
        return bool(work.rtnl.default_device()) or linux.way_out.alive(file) is None

    if started is None:
        return
    linux.polling.wait_until(is_there, _WAY_OUT_TIMEOUT, _WAY_OUT_INTERVAL)
    device = work.rtnl.default_device()
    # slirp4netns advertises IPv6 later, which a host that forwards then heeds only with 2.
    linux.sysctl.give("ipv6", device, "accept_ra", "2")
    if not device:
        work.say(f"guests reach each other only: {linux.way_out.why(file)}")


def gateways(made: tuple[Resource, ...]) -> tuple[str, str]:
    """Return a network's gateway addresses with their prefix lengths: IPv4's, and IPv6's.

    They are empty for a plain bridge; the second also for a network without IPv6.
    """
    found = [r.gateway for r in made if r.gateway]
    four, six = ([a for a in found if (":" in a) is is_six] for is_six in (False, True))
    return next(iter(four), ""), next(iter(six), "")


def _around6(work: Context) -> Ipv6Facts:
    """Return the facts about the host's IPv6."""
    return linux.ipv6_facts.around(work.state.switched(linux.ipv6_facts.FORCE, "forwarding"))


def _closed(work: Context) -> tuple[str, ...]:
    """Return the bridges of our nat and host-only networks, which lead to guests alone."""
    infos = (peek_info(work, bridge) for bridge in work.state.networks())
    return tuple(info.bridge for info in infos if info is not None and traits(info.mode).is_routed)


def _make(
    network: Network, journal: Journal, work: Context, reserved: tuple[Subnet, ...]
) -> NetworkInfo:
    """Create a network; the caller holds its lock and the host's. Raises `NetwrapError`."""
    wanted = resources_of(network, work, reserved)
    for program in (program for resource in wanted for program in resource.programs):
        child.require(program)
    # Create what a release needs before there is anything to release: /run may be full by then.
    files.make_folder(work.state.shared_folder)
    with files.Lock(work.state.nft_lock):
        pass
    executor.acquire_all(wanted, journal, work)
    info = NetworkInfo(network.name, network.mode, network.bridge, *gateways(wanted))
    if wanted:
        repair.reattach_taps(network.bridge, work)
        line = record_text.write("network", info.__dict__)
        files.write(f"{work.state.network(network.bridge)}/info", f"{line}\n", 0o644)
    return info


def _readable(network: Network, journal: Journal) -> list[Entry]:
    """Return the entries of NETWORK's journal. Raises `HostError` if a newer version wrote it."""
    try:
        return journal.live()
    except HostError as error:
        raise HostError(
            f"network {network.name} cannot be joined by this version: {error.message}",
            f"use that version, give the network another bridge, or take it down: {error.hint}",
        ) from error


def check_joinable(network: Network, work: Context) -> None:
    """Raise `HostError` if joining NETWORK, which is up, would be refused for its journal's format.

    A journal that this user may not read is not checked.
    """
    try:
        _readable(network, journal_of(work, network.bridge))
    except PermissionError:
        return


def _was_refused(bridge: str, run: str, work: Context) -> bool:
    """Whether RUN never became a member, because the network's journal has a newer format."""
    if not run or os.path.exists(work.state.member(bridge, run)):
        return False
    try:
        journal_of(work, bridge).check()
    except HostError:
        return True
    return False


def _stands(entries: list[Entry], work: Context) -> bool:
    """Whether what the network depends on, mostly its bridge, is there. Raises `HostError`."""
    is_made = any(entry.resource.bridge_made for entry in entries)
    if not is_made and any(isinstance(entry.resource, Unreadable) for entry in entries):
        raise HostError(
            "this network was made by another version, whose journal this one cannot read",
            "use that version, or stop the runs that use the network (qemu-netwrap ps)",
        )
    answers = (entry.resource.stands(work, entry.facts) for entry in entries)
    return next((answer for answer in answers if answer is not None), False)


def _check_same(network: Network, info: NetworkInfo, entries: list[Entry]) -> None:
    """Raise `HostError` if a network is up with another mode, subnet or uplink than is wanted."""
    wanted_mode = not network.traits.is_plain and network.mode != info.mode
    there = {entry.resource.gateway for entry in entries}
    wanted = {f"{network.subnet.first}/{network.subnet.length}"} if network.subnet else set()
    if network.subnet6:
        wanted.add(f"{network.subnet6.gateway}/{network.subnet6.length}")
    wanted_subnet = not wanted <= there
    if network.uplink and not any(e.resource.nic_taken == network.uplink for e in entries):
        raise HostError(
            f"network {network.name}: bridge {network.bridge} is up already without uplink"
            f" {network.uplink}",
            "stop the runs that use it (qemu-netwrap ps), or leave uplink out",
        )
    if wanted_mode or wanted_subnet:
        raise HostError(
            f"network {network.name}: bridge {network.bridge} is up already as"
            f" {info.mode} {info.address} {info.address6}".rstrip(),
            "take it down (qemu-netwrap network down), stop the runs that use it (qemu-netwrap ps),"
            " or give the network another bridge",
        )


def _follow_uplink(
    info: NetworkInfo, entries: list[Entry], journal: Journal, work: Context
) -> None:
    """Make a nat network use the default route's device, if that is a new one.

    This takes one look-up; other devices that routes leave by are not looked for.
    """
    device = work.rtnl.default_device()
    if not device or any(e.resource.shared_device == ("ipv4", device) for e in entries):
        return
    forwards = sysctl.read("ipv4", device, "forwarding") == "1"
    if forwards and device not in work.state.forwarding_devices():
        return

    _follow_host(info, WayOut(device), journal, work)


def _follow_uplink6(
    info: NetworkInfo, entries: list[Entry], journal: Journal, work: Context
) -> None:
    """Do the same for IPv6."""
    device = work.rtnl.default_device(_socket.AF_INET6) if info.address6 else ""
    forward = {("ipv6", device), ("ipv6", ALL)}
    if not device or any(e.resource.shared_device in forward for e in entries):
        return
    around = _around6(work)
    if around.is_router or device in (*around.routers, *_closed(work)):
        return

    way_out = tuple(route for route in around.routes if route.device == device)
    _follow_host(info, WayOut(device, around.replace(routes=way_out)), journal, work)


def _follow_host(info: NetworkInfo, came: WayOut, journal: Journal, work: Context) -> None:
    """Acquire what the network's driver wants for a new way out."""
    network = Network(info.name, info.mode, info.bridge)
    with files.Lock(work.state.host_lock):
        late = base.driver(info.mode).follow_host(network, came)
        executor.acquire_all(late, journal, work)


def _raise_first(errors: list[NetwrapError]) -> None:
    """Raise the first error, if there is one."""
    if errors:
        raise errors[0]
