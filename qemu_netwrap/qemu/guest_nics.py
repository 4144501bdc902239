"""The guest's NICs: their place in the command line, their MACs, and the netdevs they connect to.

QEMU creates those of -nic first, then those of -net nic, then the -device ones (system/vl.c).
"""

from __future__ import annotations

from qemu_netwrap.model import mac, numbers
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from typing import TypeVar

    from qemu_netwrap.qemu.command_line import CommandLine, Option
    from qemu_netwrap.qemu.netdev_options import NetOption
    from qemu_netwrap.qemu.option_groups import Entry, Groups

    T = TypeVar("T")

_ALIASES = {"virtio-net": "virtio-net-pci"}  # system/qdev-monitor.c
HUB = "hub 0"  # the hub that -net connects netdevs and NICs to (net/hub.c)


class GuestNic(Record):
    """One NIC: the entry that makes it, the key of its MAC there, the user's MAC, a fault in it."""

    entry: Entry
    key: str
    segment: str  # see `Wiring.segment`
    mac: str = ""  # empty: none, or all zero, by which QEMU means its default
    fault: str = ""

    @property
    def model(self) -> str:
        """The model as typed, empty where QEMU chooses it."""
        key = "driver" if self.entry.group == "device" else "model"
        return self.entry.opts.get(key) or ""


class Wiring(Record):
    """Netdevs, the NICs on them, and what QEMU cannot connect as typed."""

    netdevs: tuple[NetOption, ...] = ()
    nics: tuple[GuestNic, ...] = ()
    has_default: bool = False  # QEMU adds a NIC and a `user` netdev on hub 0
    faults: tuple[tuple[Option, str], ...] = ()
    segments: Mapping[Option, str] = {}  # of the netdevs
    carriers: Mapping[str, tuple[NetOption, ...]] = {}  # the netdevs on a segment, without hubports
    guests: Mapping[str, tuple[GuestNic, ...]] = {}  # the NICs on a segment

    def segment(self, net: NetOption) -> str:
        """Return a name for a netdev's segment, the same for all that is on it: a hub, or itself.

        A netdev is on a hub by -net, as a hubport, or if a hubport's netdev= names it.
        """
        return self.segments[net.option]

    def sharing(self, net: NetOption) -> tuple[NetOption, ...]:
        """Return the netdevs whose packets a netdev carries: itself, and the others on its hub."""
        return self.carriers.get(self.segment(net), ())

    def on(self, net: NetOption) -> tuple[GuestNic, ...]:
        """Return the NICs whose packets a netdev carries."""
        return self.guests.get(self.segment(net), ())


def wire(line: CommandLine, groups: Groups, nets: tuple[NetOption, ...]) -> Wiring:
    """Connect the NICs of the groups to the netdevs among NETS.

    QEMU adds a NIC and a netdev if no network option was typed: sections of -readconfig files do
    not count, nor does a -device (system/vl.c, `default_net`).
    """
    has_default = next(line.named("netdev", "nic", "net", "nodefaults"), None) is None
    netdevs = tuple(net for net in nets if net.is_backend)
    by_id = _by_id(netdevs)
    segments = _segments(netdevs)
    nics = [_nic(net, "mac", segments[net.option]) for net in netdevs if net.form == "nic"]
    ports = [net for net in netdevs if net.type == "hubport" and net.has("netdev")]
    faults = [
        (port.option, f"netdev '{port.value('netdev')}' not found")
        for port in ports
        if _find(by_id, port) is None
    ]
    # A netdev has one peer: the NIC that comes with it, a hub's port, or one that names it.
    taken = {net.option for net in netdevs if net.form != "netdev"}
    taken |= {peer.option for port in ports if (peer := _find(by_id, port))}
    own_macs = _global_macs(line)
    for entry, key in _plugged(groups, nets):
        peer = _find(by_id, entry)
        wrong = _plug_fault(entry, peer, taken)
        if wrong:
            faults.append((entry.option, wrong))
            continue
        if peer is not None:
            taken.add(peer.option)
        nic = _nic(entry, key, HUB if peer is None else segments[peer.option])
        nics.append(_by_global(nic, own_macs) if own_macs else nic)
    carriers = _grouped((segments[n.option], n) for n in netdevs if n.type != "hubport")
    guests = _grouped((nic.segment, nic) for nic in nics)
    return Wiring(netdevs, tuple(nics), has_default, tuple(faults), segments, carriers, guests)


def _grouped(pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    """Return what is on each segment, in order."""
    found: dict[str, list[T]] = {}
    for segment, what in pairs:
        found.setdefault(segment, []).append(what)
    return {segment: tuple(each) for segment, each in found.items()}


def _plugged(groups: Groups, nets: Iterable[NetOption]) -> Iterator[tuple[Entry, str]]:
    """Yield the entries that make a NIC and may name its netdev, with the key of its MAC."""
    for net in nets:
        if net.form == "net" and net.type == "nic":
            yield net, "macaddr"
    for entry in groups.of("device"):
        if entry.opts.get("netdev") is not None:
            yield entry, "mac"


def _by_id(netdevs: Iterable[NetOption]) -> dict[str, NetOption]:
    """Return the netdevs by id; the first one with an id counts."""
    found: dict[str, NetOption] = {}
    for net in netdevs:
        if net.has("id"):
            found.setdefault(net.id, net)
    return found


def _find(by_id: Mapping[str, NetOption], entry: Entry) -> NetOption | None:
    """Return the netdev that an entry names; None if it names none, or an unknown one."""
    name = entry.opts.get("netdev")
    return None if name is None else by_id.get(name)


def _plug_fault(entry: Entry, peer: NetOption | None, taken: Container[Option]) -> str:
    """Return QEMU's message if a NIC cannot have the netdev that it names, else ""."""
    name = entry.opts.get("netdev")
    if name is None:
        return ""
    what = f"Property '{entry.opts.get('driver') or 'nic'}.netdev' can't"
    if peer is None:
        return (
            f"netdev '{name}' not found" if entry.group == "net" else f"{what} find value '{name}'"
        )
    return f"{what} take value '{name}', it's in use" if peer.option in taken else ""


def _segments(netdevs: tuple[NetOption, ...]) -> dict[Option, str]:
    """Return the segment of each netdev: see `Wiring.segment`."""
    ports = [port for port in netdevs if port.type == "hubport"]
    of_peer = {port.value("netdev"): port for port in ports if port.has("netdev")}
    return {net.option: _segment(net, number, of_peer) for number, net in enumerate(netdevs)}


def _segment(net: NetOption, number: int, of_peer: Mapping[str, NetOption]) -> str:
    """Return the segment of netdev NUMBER; OF_PEER are the hubports by the id of their peer."""
    if net.form == "net":
        return HUB
    port = of_peer.get(net.id) if net.has("id") else None
    if port is None and net.type == "hubport":
        port = net
    if port is not None:
        return f"hub {numbers.integer(port.value('hubid'))}"
    return f"netdev {number}"


def _global_macs(line: CommandLine) -> dict[str, str]:
    """Return the MACs that -global sets, by driver; the last one counts."""
    found: dict[str, str] = {}
    for option in line.named("global"):
        text = option.value or ""
        if text.startswith("driver="):
            opts = OptList.parse(text, "driver")
            driver, key, typed = (opts.get(k) or "" for k in ("driver", "property", "value"))
        else:
            path, _, typed = text.partition("=")
            driver, _, key = path.partition(".")
        if key == "mac":
            found[driver] = typed
    return found


def _by_global(nic: GuestNic, macs: Mapping[str, str]) -> GuestNic:
    """Return NIC with its driver's MAC from -global, if it is a -device without its own MAC."""
    driver = _ALIASES.get(nic.model, nic.model)
    if nic.entry.group != "device" or nic.entry.opts.get("mac") is not None or driver not in macs:
        return nic
    try:
        return nic.replace(mac=mac.parse(macs[driver], strict=True))
    except ValueError:
        return nic  # QEMU has its own message for it


def _nic(entry: Entry, key: str, segment: str) -> GuestNic:
    """Return the NIC that an entry makes."""
    typed = entry.opts.get(key)
    if typed is None:
        return GuestNic(entry, key, segment)
    try:
        return GuestNic(entry, key, segment, mac.parse(typed, strict=entry.group == "device"))
    except ValueError as error:
        return GuestNic(entry, key, segment, fault=str(error))
