"""Links with their counters, by pyroute2: for commands, never for a launch."""

from __future__ import annotations

import errno
import socket
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from qemu_netwrap.record import Record

__all__ = ["IPRoute", "NetlinkError", "Port", "links", "ports"]


class Port(Record):
    """A port of a bridge. Its counters, in bytes, are from the guest's point of view."""

    name: str
    up: bool
    received: int
    sent: int


def ports(bridge: str) -> list[Port]:
    """Return a bridge's ports; none if there is no such bridge."""
    with IPRoute() as ip:
        found = _get(ip, bridge)
        if found is None:
            return []
        index = found["index"]
        return [_port(link) for link in ip.get_links(master=index)]


def links(names: list[str]) -> dict[str, Port]:
    """Return those of the named interfaces that exist, by name."""
    with IPRoute() as ip:
        found = ((name, _get(ip, name)) for name in names)
        return {name: _port(link) for name, link in found if link is not None}


def neighbours6(bridge: str) -> list[tuple[str, str]]:
    """Return MAC and IPv6 address of the host's neighbours on a bridge, without link-local ones.

    The addresses that guests get by SLAAC are recorded nowhere else.
    """
    with IPRoute() as ip:
        found = _get(ip, bridge)
        if found is None:
            return []
        entries = ip.get_neighbours(family=socket.AF_INET6, ifindex=found["index"])
        pairs = [(e.get_attr("NDA_LLADDR"), e.get_attr("NDA_DST")) for e in entries]
        return [(mac, address) for mac, address in pairs if mac and not _is_local(address)]


def _is_local(address: str) -> bool:
    """Whether an IPv6 address is link-local or multicast."""
    return address.startswith(("fe8", "fe9", "fea", "feb", "ff"))


def _get(ip: IPRoute, name: str) -> Any:  # noqa: ANN401 - pyroute2 is untyped
    """Return pyroute2's message about an interface; None if there is none with that name."""
    try:
        return ip.link("get", ifname=name)[0]
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return None


def _port(link: object) -> Port:
    """Convert pyroute2's message about a link. What the host sends by a tap the guest receives."""
    get = link.get_attr  # type: ignore[attr-defined] # pyroute2 is untyped
    stats = get("IFLA_STATS64") or {}
    return Port(
        get("IFLA_IFNAME"),
        get("IFLA_OPERSTATE") == "UP",
        stats.get("tx_bytes", 0),
        stats.get("rx_bytes", 0),
    )
