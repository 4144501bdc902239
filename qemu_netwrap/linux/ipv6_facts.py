"""The facts about the host's IPv6 that matter for creating a network (model.ipv6).

The routes are one dump. The kernel leaves out most of the others, since strict requests name the
type of route (Linux 4.20; older kernels send all).
"""

from __future__ import annotations

import _socket
import struct

from qemu_netwrap.linux import sysctl
from qemu_netwrap.linux.netlink import NLM_F_DUMP, Netlink, attributes, u32
from qemu_netwrap.linux.netlink.links import (
    NETLINK_ROUTE,
    RT_TABLE_LOCAL,
    RTA_DST,
    RTA_TABLE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    name_of,
    out_devices,
)
from qemu_netwrap.model.ipv6 import Ipv6Facts, Prefix, Route6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FORCE = "force_forwarding"
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12  # linux/socket.h, linux/netlink.h
_RTPROT_KERNEL, _RTPROT_RA = 2, 9
_RTA_CACHEINFO = 12
_LINK_LOCAL = Prefix(0xFE80 << 112, 10)
# linux/netconf.h; `all` and `default` have negative ifindexes.
_RTM_NEWNETCONF, _RTM_GETNETCONF = 80, 82
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2

_RTMSG = struct.Struct("=BBBBBBBBI")
_NETCONF = struct.Struct("=Bxxx")
_INT = struct.Struct("=i")
_CACHEINFO = struct.Struct("=IIi")


def around(switched: frozenset[str]) -> Ipv6Facts:
    """Return the facts. SWITCHED: devices that qemu-netwrap made forward (`StateDir.switched`)."""
    missing = why_missing()
    if missing:
        return Ipv6Facts(missing)
    asking = Rtnl6()
    try:
        routes = tuple(asking.routes())
    finally:
        asking.close()
    devices = dict.fromkeys(route.device for route in routes)
    learners = dict.fromkeys(route.device for route in routes if route.learned)
    return Ipv6Facts(
        routes=routes,
        by_device=forwards_by_device(),
        is_router=sysctl.read("ipv6", "all", "forwarding") == "1" and "all" not in switched,
        routers=tuple(
            d for d in devices if d not in switched and sysctl.read("ipv6", d, FORCE) == "1"
        ),
        is_fixed=not sysctl.is_writable(),
        listeners=tuple(d for d in learners if sysctl.read("ipv6", d, "accept_ra") in ("1", "2")),
    )


def forwards_by_device() -> bool:
    """Whether forwarding can be switched on by device (Linux 6.17)."""
    return bool(sysctl.read("ipv6", "default", FORCE))


def why_missing() -> str:
    """Return why this host has no IPv6; empty if it has.

    A new device is as `default` says; setting `all` sets `default` too.
    """
    disabled = sysctl.read("ipv6", "default", "disable_ipv6")
    if disabled == "1":
        return "net.ipv6.conf.default.disable_ipv6 is 1"
    return "" if disabled else "this host's kernel has none"


def forwarders() -> list[int]:
    """Return the ifindexes of the devices whose `forwarding` is on, even without effect."""
    asking = Rtnl6()
    try:
        return list(asking.forwarders())
    finally:
        asking.close()


class Rtnl6(Netlink):
    """A netlink socket for IPv6 routes and the settings of devices."""

    def __init__(self) -> None:
        """Open the socket in this process's network namespace."""
        super().__init__(NETLINK_ROUTE)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        except OSError:
            pass  # an old kernel sends all: the rest is skipped here

    def routes(self) -> Iterator[Route6]:
        """Yield the unicast routes of every table but `local`, without link-local ones."""
        head = _RTMSG.pack(_socket.AF_INET6, 0, 0, 0, 0, 0, 0, RTN_UNICAST, 0)
        names: dict[int, str] = {}
        for body in self._ask(RTM_GETROUTE, NLM_F_DUMP, head, RTM_NEWROUTE):
            _, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
            if kind != RTN_UNICAST or table == RT_TABLE_LOCAL:
                continue
            found = dict(attributes(body, _RTMSG.size))
            prefix = Prefix(int.from_bytes(found.get(RTA_DST, bytes(16)), "big"), length)
            if length and prefix.overlaps(_LINK_LOCAL):
                continue
            table = u32(found[RTA_TABLE]) if RTA_TABLE in found else table
            is_learned = protocol == _RTPROT_RA or (protocol == _RTPROT_KERNEL and _expires(found))
            for index in out_devices(found):
                if index not in names:
                    names[index] = name_of(index)
                if names[index]:
                    yield Route6(prefix, names[index], table, is_learned)

    def forwarders(self) -> Iterator[int]:
        """Yield the ifindexes of devices whose `forwarding` is on."""
        head = _NETCONF.pack(_socket.AF_INET6)
        for body in self._ask(_RTM_GETNETCONF, NLM_F_DUMP, head, _RTM_NEWNETCONF):
            found = dict(attributes(body, _NETCONF.size))
            index = _INT.unpack(found[_NETCONFA_IFINDEX])[0]
            if index > 0 and _INT.unpack(found[_NETCONFA_FORWARDING])[0]:
                yield index


def _expires(route: dict[int, bytes]) -> bool:
    """Whether a route expires. Of the kernel's own routes, only those by SLAAC do."""
    times = route.get(_RTA_CACHEINFO, b"")
    return len(times) >= _CACHEINFO.size and bool(_CACHEINFO.unpack_from(times)[2])
