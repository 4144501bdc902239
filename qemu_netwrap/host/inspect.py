"""Looking at links in full, by pyroute2: for commands that are asked, never for a launch."""

from __future__ import annotations

from pyroute2 import IPRoute

from qemu_netwrap.core.record import Record


class Port(Record):
    """A port of a bridge, with its counters in bytes as the guest's NIC would count them."""

    name: str
    up: bool
    received: int
    sent: int


def ports(bridge: str) -> list[Port]:
    """Return a bridge's ports; none when there is no such bridge."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=bridge)
        if not index:
            return []
        return [_port(link) for link in ip.get_links(master=index[0])]


def links(names: list[str]) -> dict[str, Port]:
    """Return those of the named interfaces that are there."""
    found = {}
    with IPRoute() as ip:
        for name in names:
            for index in ip.link_lookup(ifname=name):
                found[name] = _port(ip.link("get", index=index)[0])
    return found


def _port(link: object) -> Port:
    """Read what pyroute2 says of a link. What the host sends into a tap, the guest receives."""
    get = link.get_attr  # type: ignore[attr-defined] # pyroute2 is untyped
    stats = get("IFLA_STATS64") or {}
    return Port(
        get("IFLA_IFNAME"),
        get("IFLA_OPERSTATE") == "UP",
        stats.get("tx_bytes", 0),
        stats.get("rx_bytes", 0),
    )
