"""The guest's NICs: where each stands in the command line, its MAC, and what it is plugged into.

QEMU makes those of -nic first, then those of -net nic, then the -device ones (system/vl.c).
"""

from __future__ import annotations

from qemu_netwrap.core import mac, numbers
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from qemu_netwrap.core.groups import Entry, Groups
    from qemu_netwrap.core.netoption import NetOption
    from qemu_netwrap.core.words import CommandLine, Option

HUB = "hub 0"  # what -net puts its netdevs and NICs on (net/hub.c)


class GuestNic(Record):
    """One NIC: what made it, the key of its MAC there, the user's MAC, what is wrong with that."""

    entry: Entry
    key: str
    segment: str  # see `Wiring.segment`
    mac: str = ""  # empty: none, or all zero, which is QEMU's word for a default
    fault: str = ""

    @property
    def model(self) -> str:
        """The model as typed, empty where QEMU chooses it."""
        key = "driver" if self.entry.group == "device" else "model"
        return self.entry.opts.get(key) or ""


class Wiring(Record):
    """Netdevs, the NICs on them, and what cannot be plugged as it was typed."""

    netdevs: tuple[NetOption, ...] = ()
    nics: tuple[GuestNic, ...] = ()
    has_default: bool = False  # QEMU adds a NIC and a `user` netdev on hub 0
    faults: tuple[tuple[Option, str], ...] = ()

    def segment(self, net: NetOption) -> str:
        """Return a name for what a netdev is on, the same for all that is on it: a hub, or itself.

        A netdev is on a hub by -net, as a hubport, or by a hubport's netdev=.
        """
        return _segment(net, self.netdevs)

    def sharing(self, net: NetOption) -> tuple[NetOption, ...]:
        """Return the netdevs whose packets a netdev carries: itself, and the others on its hub."""
        where = self.segment(net)
        return tuple(n for n in self.netdevs if n.type != "hubport" and self.segment(n) == where)

    def on(self, net: NetOption) -> tuple[GuestNic, ...]:
        """Return the NICs that a netdev carries the packets of."""
        where = self.segment(net)
        return tuple(nic for nic in self.nics if nic.segment == where)


def wire(line: CommandLine, groups: Groups, nets: tuple[NetOption, ...]) -> Wiring:
    """Plug the NICs of the groups into the netdevs among NETS.

    QEMU adds a NIC and a netdev where nothing typed speaks of the network: what -readconfig
    brings does not count, nor does a -device (system/vl.c, `default_net`).
    """
    has_default = next(line.named("netdev", "nic", "net", "nodefaults"), None) is None
    netdevs = tuple(net for net in nets if net.is_backend)
    nics = [_nic(net, "mac", _segment(net, netdevs)) for net in netdevs if net.form == "nic"]
    ports = [net for net in netdevs if net.type == "hubport" and net.has("netdev")]
    faults = [
        (port.option, f"netdev '{port.value('netdev')}' not found")
        for port in ports
        if _find(netdevs, port) is None
    ]
    # A netdev has one peer: the NIC that comes with it, a hub's port, or one that names it.
    taken = {net.option for net in netdevs if net.form != "netdev"}
    taken |= {peer.option for port in ports if (peer := _find(netdevs, port))}
    for entry, key in _plugged(groups, nets):
        peer = _find(netdevs, entry)
        wrong = _plug_fault(entry, peer, taken)
        if wrong:
            faults.append((entry.option, wrong))
            continue
        if peer is not None:
            taken.add(peer.option)
        nics.append(_nic(entry, key, HUB if peer is None else _segment(peer, netdevs)))
    return Wiring(netdevs, tuple(nics), has_default, tuple(faults))


def _plugged(groups: Groups, nets: Iterable[NetOption]) -> Iterator[tuple[Entry, str]]:
    """Yield what makes a NIC and may name its netdev, with the key of its MAC."""
    for net in nets:
        if net.form == "net" and net.type == "nic":
            yield net, "macaddr"
    for entry in groups.of("device"):
        if entry.opts.get("netdev") is not None:
            yield entry, "mac"


def _find(netdevs: Iterable[NetOption], entry: Entry) -> NetOption | None:
    """Return the netdev that an entry names."""
    name = entry.opts.get("netdev")
    return next((net for net in netdevs if net.has("id") and net.id == name), None)


def _plug_fault(entry: Entry, peer: NetOption | None, taken: Container[Option]) -> str:
    """Say why a NIC cannot have the netdev that it names."""
    name = entry.opts.get("netdev")
    if name is None:
        return ""
    what = f"Property '{entry.opts.get('driver') or 'nic'}.netdev' can't"
    if peer is None:
        return (
            f"netdev '{name}' not found" if entry.group == "net" else f"{what} find value '{name}'"
        )
    return f"{what} take value '{name}', it's in use" if peer.option in taken else ""


def _segment(net: NetOption, netdevs: tuple[NetOption, ...]) -> str:
    """Return a name for what a netdev is on: see `Wiring.segment`."""
    if net.form == "net":
        return HUB
    ports = [port for port in netdevs if port.type == "hubport"]
    port = net if net.type == "hubport" else None
    for other in ports:
        if net.has("id") and other.has("netdev") and other.value("netdev") == net.id:
            port = other
    if port is not None:
        return f"hub {numbers.integer(port.value('hubid'))}"
    return f"netdev {netdevs.index(net)}"


def _nic(entry: Entry, key: str, segment: str) -> GuestNic:
    """Return the NIC that an entry makes."""
    typed = entry.opts.get(key)
    if typed is None:
        return GuestNic(entry, key, segment)
    try:
        return GuestNic(entry, key, segment, mac.parse(typed, strict=entry.group == "device"))
    except ValueError as error:
        return GuestNic(entry, key, segment, fault=str(error))
