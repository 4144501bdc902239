"""Sockets that the kernel wakes: when one interface changes, or when the way out may have changed.

The kernel's messages are for the whole network namespace. A socket filter drops those that do not
matter before they are queued, so that they wake no process.
"""

from __future__ import annotations

import _socket
import errno
import sys

from qemu_netwrap.linux.netlink.links import (
    NETLINK_ROUTE,
    RT_TABLE_LOCAL,
    RTM_DELLINK,
    RTM_NEWLINK,
)
from qemu_netwrap.linux.socket_filter import ACCEPT, IGNORE, attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.bpf import Line

_MESSAGE = 1 << 16  # bytes
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5  # linux/socket.h, linux/netlink.h
# linux/rtnetlink.h: RTNLGRP_LINK, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF and
# IPV6_NETCONF.
_LINK_GROUP, _ROUTE_GROUPS = 1, (1, 7, 8, 11, 19, 24, 25)
_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE, _NEWNETCONF = 24, 25, 32, 33, 80
_FR_ACT_TO_TBL, _IFF_UP, _ALL = 1, 1, 0xFFFFFFFF
# A route to a prefix shorter than this is a default route, or a part of one as VPNs set them.
_WIDE = 8
# Offsets in a message: nlmsg_type; of rtmsg the prefix length and the table; of fib_rule_hdr the
# action; of ifinfomsg index and flags; of a netconf message the index, its first attribute.
_TYPE, _LENGTH, _TABLE, _ACTION, _INDEX, _FLAGS, _NETCONF = 4, 17, 20, 23, 20, 24, 24
_ENDS: list[Line] = [*("pass", ("ret", ACCEPT, "", "")), *("drop", ("ret", IGNORE, "", ""))]


def watch_link(index: int) -> _socket.socket:
    """Return a socket that becomes readable when the interface with that index changes or goes."""
    found = _open()
    attach(
        found,
        [
            ("ldh", _TYPE, "", ""),
            ("jeq", _as_loaded(RTM_NEWLINK, 2), "link", ""),
            ("jeq", _as_loaded(RTM_DELLINK, 2), "link", "drop"),
            *("link", ("ld", _INDEX, "", ""), ("jeq", _as_loaded(index, 4), "pass", "drop")),
            *_ENDS,
        ],
    )
    found.bind((0, 1 << _LINK_GROUP - 1))
    return found


def wait(watched: _socket.socket) -> None:
    """Sleep until a message arrives."""
    try:
        watched.recv(_MESSAGE)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # a message was lost, which is as good as one
            raise


def watch_way_out(ways: tuple[int, int]) -> _socket.socket:
    """Return a socket that becomes readable when the host's way out may have changed.

    That is: a route to a wide part of the world, a policy rule that leads to a table, a device of
    the present way out that goes down, and the switch that makes the host a router. Routes of taps,
    and the program's own rules, are not. WAYS are the ifindexes of the IPv4 and IPv6 default
    routes' devices now, 0 for none. Messages lost when the socket's buffer overflows do not matter,
    since the caller then reads the routes themselves.
    """
    found = _open()
    found.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
    set_ways(found, ways)
    found.bind((0, sum(1 << group - 1 for group in _ROUTE_GROUPS)))
    return found


def set_ways(watched: _socket.socket, ways: tuple[int, int]) -> None:
    """Have a socket of `watch_way_out` watch these devices from now on."""
    attach(watched, _way_out_filter(ways))


def drain(watched: _socket.socket) -> None:
    """Read all messages that have arrived."""
    try:
        while True:
            watched.recv(_MESSAGE, _socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def _open() -> _socket.socket:
    """Open a netlink socket that belongs to no group yet."""
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    return _socket.socket(_socket.AF_NETLINK, kind, NETLINK_ROUTE)


def _way_out_filter(ways: tuple[int, int]) -> list[Line]:
    """Return the filter of `watch_way_out`."""
    kinds = {
        RTM_NEWLINK: "link",
        RTM_DELLINK: "gone",
        _NEWROUTE: "route",
        _DELROUTE: "route",
        _NEWRULE: "rule",
        _DELRULE: "rule",
        _NEWNETCONF: "netconf",
    }
    first, second = (_as_loaded(way, 4) for way in ways)
    return [
        ("ldh", _TYPE, "", ""),
        *(("jeq", _as_loaded(kind, 2), place, "") for kind, place in kinds.items()),
        ("ret", IGNORE, "", ""),
        "link",  # only one that is down: a bridge sends a message for each port
        *(("ld", _FLAGS, "", ""), ("jset", _as_loaded(_IFF_UP, 4), "drop", "")),
        *("gone", ("ld", _INDEX, "", "")),
        *(("jeq", first, "pass", ""), ("jeq", second, "pass", "drop")),
        *("route", ("ldb", _LENGTH, "", ""), ("jge", _WIDE, "drop", "")),
        *(("ldb", _TABLE, "", ""), ("jeq", RT_TABLE_LOCAL, "drop", "pass")),
        *("rule", ("ldb", _ACTION, "", ""), ("jeq", _FR_ACT_TO_TBL, "pass", "drop")),
        *("netconf", ("ld", _NETCONF, "", ""), ("jeq", _ALL, "pass", "drop")),
        *_ENDS,
    ]


def _as_loaded(number: int, size: int) -> int:
    """Return a number of a netlink message as BPF loads it: as if it were big-endian."""
    return int.from_bytes(number.to_bytes(size, sys.byteorder), "big")
