"""What is plugged into what: as the real QEMU says it, and as the package has read it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_netwrap.model.numbers import integer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.qemu.network_options import NetworkOptions

DEFAULT_MAC = re.compile(r"52:54:00:12:34:[5-9a-f][0-9a-f]")  # QEMU's pool, net/net.c
ALIASES = {"virtio": "virtio-net-pci", "virtio-net": "virtio-net-pci"}
# What QEMU makes of these is a tap: the bridge helper sends one.
TAPS = {"bridge", "nat", "host-only"}
DEFAULT = "default"
ANY = "any"


@dataclass(frozen=True)
class Netdev:
    """A netdev: `name` is #net if the user gave it none."""

    name: str
    type: str


@dataclass(frozen=True)
class Nic:
    """A guest's NIC; its MAC is `default` if QEMU, or we, gave it one."""

    model: str
    mac: str


Segment = tuple[frozenset[Netdev], tuple[Nic, ...]]


def told(text: str, ours: Iterable[str] = ()) -> dict[str, Segment]:
    """Return the segments in the text of `info network`, by a name: a hub's, or a netdev's.

    MACs of QEMU's pool, and those in OURS, count as not given. A NIC without a netdev is left out.
    """
    segments: dict[str, tuple[list[Netdev], list[tuple[str, Nic]]]] = {}
    current: tuple[list[Netdev], list[tuple[str, Nic]]] = ([], [])
    for line in text.replace("\r", "").splitlines():
        found = re.fullmatch(r"( \\ )?(.*?: |)([^:]*): index=\d+,type=([\w-]+),(.*)", line)
        hub = re.fullmatch(r"hub (-?\d+)", line)
        if hub or not line.startswith(" "):
            name = line if hub else (found[3] if found else line)
            current = segments.setdefault(name, ([], []))
        if not found:
            continue
        name, kind, rest = found[3], found[4], found[5]
        if kind != "nic":
            current[0].append(Netdev(re.sub(r"^#net\d+$", "#net", name), kind))
        elif nic := re.match(r"model=([^,]*),macaddr=([0-9a-f:]{17})", rest):
            mac = DEFAULT if DEFAULT_MAC.fullmatch(nic[2]) or nic[2] in set(ours) else nic[2]
            current[1].append((nic[2], Nic(nic[1], mac)))
    # Of a netdev with several queues, each but the first is told again, alone.
    plugged = {n for netdevs, nics in segments.values() for n in netdevs if nics}
    return _named(
        (name, frozenset(netdevs), tuple(nic for _, nic in sorted(nics, key=lambda n: n[0])))
        for name, (netdevs, nics) in segments.items()
        if nics or name.startswith(("hub ", "#")) or not plugged.intersection(netdevs)
    )


def understood(reading: NetworkOptions) -> dict[str, Segment]:
    """Return the segments that the package sees in a command line."""
    wiring = reading.wiring
    segments: dict[str, tuple[list[Netdev], list[Nic]]] = {}
    for net in wiring.netdevs:
        name, kind = net.id if net.has("id") else "#net", net.type
        netdevs, _ = segments.setdefault(wiring.segment(net), ([], []))
        if kind != "hubport":
            netdevs.append(Netdev(name, "tap" if kind in TAPS else kind))
    for nic in wiring.nics:
        model = ALIASES.get(nic.model, nic.model) or ANY
        segments.setdefault(nic.segment, ([], []))[1].append(Nic(model, nic.mac or DEFAULT))
    if wiring.has_default:
        hub = segments.setdefault("hub 0", ([], []))
        hub[0].append(Netdev("#net", "user"))
        hub[1].append(Nic(ANY, DEFAULT))
    return _named(
        (name, frozenset(netdevs), tuple(nics)) for name, (netdevs, nics) in segments.items()
    )


def same(one: dict[str, Segment], other: dict[str, Segment]) -> bool:
    """Whether both are alike, any model being like another where none was named."""
    if one.keys() != other.keys():
        return False
    return all(
        one[name][0] == other[name][0] and _same_nics(one[name][1], other[name][1]) for name in one
    )


def _same_nics(ones: tuple[Nic, ...], others: tuple[Nic, ...]) -> bool:
    """Whether NICs are alike, in whichever order."""
    left = list(others)
    for nic in sorted(ones, key=lambda n: n.model == ANY):
        fitting = [
            other
            for other in left
            if nic.mac == other.mac
            and (nic.model == other.model or ANY in {nic.model, other.model})
        ]
        if not fitting:
            return False
        left.remove(fitting[0])
    return not left


def _named(
    segments: Iterable[tuple[str, frozenset[Netdev], tuple[Nic, ...]]],
) -> dict[str, Segment]:
    """Return segments by hub, or else by their netdev; those without one are left out."""
    found: dict[str, Segment] = {}
    for name, netdevs, nics in segments:
        if name.startswith("hub "):
            if netdevs or nics:
                found[f"hub {integer(name[4:].removeprefix('-'))}"] = (netdevs, nics)
        elif netdevs:
            key = min(netdev.name for netdev in netdevs)
            while key in found:
                key += "'"
            found[key] = (netdevs, nics)
    return found
