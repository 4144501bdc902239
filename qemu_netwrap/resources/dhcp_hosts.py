"""The DHCP and DNS entries of a network's guests, and which run has a MAC or a name.

Several runs may claim a MAC on a network, or a guest's name. The first living run has it; when that
run ends, the next one gets it. An entry that a bridge has lost is restored.
"""

from __future__ import annotations

import os

from qemu_netwrap import linux, resources
from qemu_netwrap.model import mac, plain_text
from qemu_netwrap.resources.base import Commands, Resource
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.uses import claim, disclaim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.resources.base import Context, Saved


class DhcpHost(Resource):
    """The DNS name of a guest's NIC on a network, and the address reserved for it."""

    kind = "HostName"

    bridge: str
    run: str
    mac: str
    name: str
    address: str = ""  # empty: any address of DHCP's range
    address6: str = ""  # the same for DHCPv6
    guarded: bool = False  # no other guest of the network can use these addresses

    def claim_again(self, run: str, bridge: str, context: Context) -> None:
        """Claim its address and name."""
        if self.bridge == bridge and self.address:
            claim(context.state.address(bridge, self.address), run, self.mac)
        if self.bridge == bridge and self.name:
            claim(context.state.name(bridge, self.name), run, self.mac)

    def acquire(self, context: Context) -> Iterator[None]:
        """Claim the MAC on its network, and give the network's dnsmasq its name and address.

        An earlier living run keeps what it has claimed: this run gets it when that one ends.
        """
        state = context.state
        claim(state.mac(self.mac), self.run, self.bridge)
        if os.path.isdir(f"{state.network(self.bridge)}/hosts"):
            owns_mac = state.owns_mac(self.mac, self.run, self.bridge)
            if self.address:
                claim(state.address(self.bridge, self.address), self.run, self.mac)
            if self.name:
                claim(state.name(self.bridge, self.name), self.run, self.mac)
                if owns_mac and not state.owns_name(self.name, self.run, self.bridge, self.mac):
                    context.say(
                        f"{self.name}: another run's guest on {self.bridge} has that name until it"
                        " ends"
                    )
            if owns_mac:
                _write_host(self, context)
        if self.guarded:
            addresses = (self.address, self.address6)
            resources.port_filters.guard_addresses(
                self.bridge, mac.pack(self.mac), addresses, context
            )
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Drop the claims; the MAC and the name pass to the next living run that claims them."""
        state, folder = context.state, context.state.network(self.bridge)
        with linux.files.Lock(state.macs_lock):
            linux.files.remove_scratch(state.macs_folder)
            for scratched in ("hosts", "names", "addresses"):
                linux.files.remove_scratch(f"{folder}/{scratched}")
            if self.address:
                disclaim(state.address(self.bridge, self.address), self.run, self.mac)
            had_name = bool(self.name) and disclaim(
                state.name(self.bridge, self.name), self.run, self.mac
            )
            if disclaim(state.mac(self.mac), self.run, self.bridge) or had_name:
                _pass_on(self, context)
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        known = [self.name] if self.name else []
        known += [f"at {self.address}"] if self.address else []
        known += ["and", self.address6] if self.address6 else []
        told = f"dnsmasq of {self.bridge}: {self.mac} is {' '.join(known)}"
        entry = told if known else f"{self.mac} on {self.bridge}"
        if not self.guarded:
            return Commands((f"# {entry}",), (f"# {self.mac} is forgotten",))
        which = f"handle {linux.frame_filter.claim_handle(mac.pack(self.mac)):#x}"
        where = f"block {linux.frame_filter.block(self.bridge)} protocol all pref 2 {which} bpf"
        whose = f"# ARP and ND for {self.address or 'its addresses'} from {self.mac} alone"
        do = f"tc filter replace {where} da bytecode-file PROGRAM  {whose}"
        undo = (f"tc filter del {where}", f"# {self.mac} is forgotten")
        return Commands((f"# {entry}", do), undo)


class AnyClient(Resource):
    """A tap whose guests' MACs are unknown: while it is up, DHCP serves every MAC."""

    kind = "AnyClient"

    bridge: str
    tap: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Make the network's dnsmasq treat every MAC as known.

        By the lock no other run's end takes the file being written for what a crash has left.
        """
        folder = context.state.network(self.bridge)
        if os.path.isdir(f"{folder}/hosts"):
            with linux.files.Lock(context.state.macs_lock):
                linux.files.write(_any_client(folder, self), "*:*:*:*:*:*\n", 0o644)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the entry of this tap, and reload dnsmasq."""
        folder = context.state.network(self.bridge)
        path = _any_client(folder, self)
        linux.files.remove_scratch(f"{folder}/hosts", os.path.basename(path))
        if os.path.exists(path):
            linux.files.remove(path)
            linux.dnsmasq.reload(folder)
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        what = f"serves every MAC, for those on {self.tap} are not known"
        return Commands((f"# dnsmasq of {self.bridge} {what}",))


def _write_host(n: DhcpHost, context: Context) -> bool:
    """Write dnsmasq's entry for a guest's NIC; return whether it has changed.

    An entry with the MAC alone is enough for the guest to be served.
    """
    owns_name = n.name and context.state.owns_name(n.name, n.run, n.bridge, n.mac)
    name = n.name if owns_name else ""
    address6 = f"[{n.address6}]" if n.address6 else ""
    known = [word for word in (n.address, address6, name) if word]
    path = f"{context.state.network(n.bridge)}/hosts/{n.mac}"
    line = plain_text.lease_words((n.mac, *known)) + "\n"
    if line == linux.files.read(path):
        return False
    linux.files.write(path, line, 0o644)
    return True


def _any_client(folder: str, c: AnyClient) -> str:
    """Return the path of a tap's entry; in hex, for dnsmasq does not read files of every name."""
    return f"{folder}/hosts/any-{os.fsencode(c.tap).hex()}"


def _pass_on(gone: DhcpHost, context: Context) -> None:
    """Pass the MAC and name of GONE to the next run that claims them, or remove the entries.

    The caller holds the lock of the MACs and has removed the claims of GONE.
    """
    state, folder = context.state, context.state.network(gone.bridge)
    heirs = [run for run, bridge in state.holders(state.mac(gone.mac)) if bridge == gone.bridge]
    namesakes = state.holders(state.name(gone.bridge, gone.name)) if gone.name else []
    is_changed = not heirs and bool(linux.files.read(f"{folder}/hosts/{gone.mac}"))
    if not heirs:
        linux.files.remove(f"{folder}/hosts/{gone.mac}")
        if gone.guarded:
            resources.port_filters.unguard_addresses(gone.bridge, mac.pack(gone.mac), context)
    for run, own in [*((run, gone.mac) for run in heirs[:1]), *namesakes[:1]]:
        if state.owns_mac(own, run, gone.bridge):
            is_changed |= _restore(run, own, gone.bridge, context)
    if is_changed:
        linux.dnsmasq.reload(folder)


def put_back(bridge: str, context: Context) -> None:
    """Restore the entries of MACs that a bridge has lost.

    A QEMU that gives its tap the MAC of a neighbour makes the bridge forget the neighbour's entry
    (net/bridge/br_fdb.c, `br_fdb_changeaddr`).
    """
    with linux.files.Lock(context.state.macs_lock):
        for run, own in missing(bridge, context):
            _restore(run, own, bridge, context)


def missing(bridge: str, context: Context) -> Iterator[tuple[str, str]]:
    """Yield (run, MAC) for each MAC of a living run whose entry in a bridge is missing.

    Only for taps that are still ports of that bridge.
    """
    state, master = context.state, context.rtnl.link(bridge)
    if master is None:
        return
    there = {mac.unpack(raw) for raw in context.rtnl.stuck(master.index)}
    for own in linux.files.listdir(state.macs_folder):
        run, where = ("", "") if own in there else state.mac_holder(own, bridge)
        if run and where == bridge and any(_filtered_ports(run, own, bridge, context)):
            yield run, own


def _restore(run: str, own: str, bridge: str, context: Context) -> bool:
    """Restore a MAC's entries in bridge and dnsmasq; return whether dnsmasq's has changed."""
    for tap in _filtered_ports(run, own, bridge, context):
        try:
            context.rtnl.stick(tap.index, mac.pack(own))
        except OSError:
            continue  # its run is just ending
    has_dnsmasq = os.path.isdir(f"{context.state.network(bridge)}/hosts")
    hosts = (each for each in _resources(run, context) if isinstance(each, DhcpHost))
    found = [each for each in hosts if (each.mac, each.bridge) == (own, bridge)]
    return has_dnsmasq and any(_write_host(each, context) for each in found)


def _filtered_ports(run: str, own: str, bridge: str, context: Context) -> Iterator[Link]:
    """Yield the taps of a run that are ports of BRIDGE and whose MAC filter admits OWN."""
    master = context.rtnl.link(bridge)
    for each in _resources(run, context):
        if not isinstance(each, resources.port_filters.MacFilter):
            continue
        if each.bridge == bridge and own in each.macs.split():
            tap = context.rtnl.link(each.tap)
            if tap is not None and master is not None and tap.master == master.index:
                yield tap


def _resources(run: str, context: Context) -> Iterator[Resource]:
    """Yield the resources in a run's journal."""
    return (entry.resource for entry in Journal(f"{context.state.run(run)}/journal").peek())
