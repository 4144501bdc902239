"""Being woken when the host may reach the world by another device than before.

The kernel tells of a route to a wide part of the world, of a policy rule that leads to a table, of
a device of the present way out that goes down, and of the switch that makes the host a router. A
socket filter drops the rest before it is queued: routes of taps, and the rules of ours.
"""

from __future__ import annotations

import _socket

from qemu_netwrap.linux.netlink.link_watch import as_loaded, attach
from qemu_netwrap.linux.netlink.links import NETLINK_ROUTE, RT_TABLE_LOCAL, RTM_DELLINK, RTM_NEWLINK

# A route as wide as this is a default route, or a part of one as VPNs set them.
_WIDE = 8
_MESSAGE = 1 << 16
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5  # linux/socket.h, linux/netlink.h
# linux/rtnetlink.h: RTNLGRP_LINK, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF and
# IPV6_NETCONF.
_GROUPS = (1, 7, 8, 11, 19, 24, 25)
_NEWROUTE, _DELROUTE, _NEWRULE, _DELRULE, _NEWNETCONF = 24, 25, 32, 33, 80
_FR_ACT_TO_TBL, _IFF_UP, _ALL = 1, 1, 0xFFFFFFFF
# Where a message has them: nlmsg_type; of rtmsg the prefix length and the table; of fib_rule_hdr
# the action; of ifinfomsg index and flags; of a netconf message the index, its first attribute.
_TYPE, _LENGTH, _TABLE, _ACTION, _INDEX, _FLAGS, _NETCONF = 4, 17, 20, 23, 20, 24, 24
# Classic BPF (linux/bpf_common.h, linux/filter.h).
_HALF, _WORD, _BYTE, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x28, 0x20, 0x30, 0x15, 0x35, 0x45, 0x06
_PASS, _DROP = "pass", "drop"


def watch(ways: tuple[int, int]) -> _socket.socket:
    """Return a socket that can be read when the way out may have changed.

    WAYS are the devices of the default routes as they are now, by number. A socket that overflows
    only loses what is to be looked at anyway.
    """
    found = _socket.socket(
        _socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE
    )
    found.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
    heed(found, ways)
    found.bind((0, sum(1 << group - 1 for group in _GROUPS)))
    return found


def heed(watched: _socket.socket, ways: tuple[int, int]) -> None:
    """Have a socket be woken by what becomes of these devices from now on."""
    attach(watched, _program(ways))


def drain(watched: _socket.socket) -> None:
    """Take what has come."""
    try:
        while True:
            watched.recv(_MESSAGE, _socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def _program(ways: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    """Return the filter. A step is what it does, a number, and where it goes on: next if empty."""
    kinds = {
        RTM_NEWLINK: "link",
        RTM_DELLINK: "gone",
        _NEWROUTE: "route",
        _DELROUTE: "route",
        _NEWRULE: "rule",
        _DELRULE: "rule",
        _NEWNETCONF: "netconf",
    }
    first, second = (as_loaded(way, 4) for way in ways)
    parts: dict[str, list[tuple[int, int, str, str]]] = {
        "": [
            (_HALF, _TYPE, "", ""),
            *((_EQUAL, as_loaded(kind, 2), place, "") for kind, place in kinds.items()),
            (_RETURN, 0, "", ""),
        ],
        # Only one that is no longer up: bridges tell of themselves with each port.
        "link": [(_WORD, _FLAGS, "", ""), (_BITS, as_loaded(_IFF_UP, 4), _DROP, "")],
        "gone": [
            (_WORD, _INDEX, "", ""),
            (_EQUAL, first, _PASS, ""),
            (_EQUAL, second, _PASS, _DROP),
        ],
        "route": [
            (_BYTE, _LENGTH, "", ""),
            (_AT_LEAST, _WIDE, _DROP, ""),
            (_BYTE, _TABLE, "", ""),
            (_EQUAL, RT_TABLE_LOCAL, _DROP, _PASS),
        ],
        "rule": [(_BYTE, _ACTION, "", ""), (_EQUAL, _FR_ACT_TO_TBL, _PASS, _DROP)],
        "netconf": [(_WORD, _NETCONF, "", ""), (_EQUAL, _ALL, _PASS, _DROP)],
        _PASS: [(_RETURN, 0xFFFFFFFF, "", "")],
        _DROP: [(_RETURN, 0, "", "")],
    }
    places: dict[str, int] = {}
    steps: list[tuple[int, int, str, str]] = []
    for name, part in parts.items():
        places[name] = len(steps)
        steps += part

    def skipped(to: str, at: int) -> int:
        return places[to] - at - 1 if to else 0

    return tuple(
        (what, skipped(yes, at), skipped(no, at), number)
        for at, (what, number, yes, no) in enumerate(steps)
    )
