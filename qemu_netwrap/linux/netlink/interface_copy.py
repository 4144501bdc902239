"""The configuration of an interface, and the messages that move it to another interface.

A batch of messages goes to the kernel in one call, which no signal interrupts (net/netlink/
af_netlink.c, `netlink_rcv_skb`). pyroute2 would decode and encode again what is only copied.
"""

from __future__ import annotations

import _socket
import collections
import errno
import os
import time

from qemu_netwrap.linux.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    error_of,
    message,
)
from qemu_netwrap.linux.netlink import messages as rt
from qemu_netwrap.linux.netlink.links import RTM_GETLINK, RTM_GETROUTE, RTM_NEWLINK, Rtnl
from qemu_netwrap.linux.netlink.messages import Address, Message, Neighbour, Nexthop, Route, Rule
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_netwrap.linux.netlink.links import Link

RTM_GETADDR, RTM_GETNEIGH, RTM_GETRULE, RTM_GETNEXTHOP = 22, 30, 34, 106
_BUFFER = 1 << 23  # bytes: room for an error for each message in a batch
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
# The errnos for a route whose gateway, source or nexthop object does not exist.
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)
_DUMPS = 10  # attempts at a dump during which nothing changes


class InterfaceConfig(Record):
    """The configuration of one interface: addresses, routes, nexthops, neighbours."""

    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()  # without those that the kernel creates with addresses
    by_object: tuple[Route, ...] = ()  # routes by one of its nexthop objects
    contested: frozenset[tuple[object, ...]] = frozenset()  # `Route.key`s of other routes too
    nexthops: tuple[Nexthop, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    unmade: tuple[tuple[int, int, bytes], ...] = ()  # `Address.prefix`es without a route

    @property
    def movable(self) -> tuple[Address, ...]:
        """The addresses that another interface can have: all but link-local ones."""
        return tuple(address for address in self.addresses if not address.is_link_local)

    @property
    def is_bare(self) -> bool:
        """Whether it is unconfigured: the kernel has created all that there is by itself."""
        return not (self.movable or self.routes or self.nexthops)

    @property
    def every_route(self) -> tuple[Route, ...]:
        """The routes through it, without those that the kernel creates with its addresses."""
        return (*self.routes, *self.by_object)

    def gateways(self, index: int) -> tuple[tuple[int, bytes], ...]:
        """Return family and packed address of the default gateways by the interface INDEX."""
        found = (w for r in self.every_route if r.is_default for w in r.gateways(index))
        return tuple(dict.fromkeys(found))


class InterfaceNetlink(Rtnl):
    """A netlink socket that reads an interface's configuration, and sends batches."""

    def __init__(self) -> None:
        """Open the socket, with room for large batches."""
        super().__init__()
        try:
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                self._socket.setsockopt(_socket.SOL_SOCKET, option, _BUFFER)
        except PermissionError:
            pass  # `plan` only reads, as any user

    def belongings(self, index: int) -> InterfaceConfig:
        """Return the configuration of the interface INDEX."""
        addresses = [a for a in self.addresses() if a.index == index]
        addresses = [a for a in addresses if not a.flags & rt.IFA_F_DADFAILED]
        routes = [
            Route(body)
            for family in (rt.AF_INET, rt.AF_INET6)
            for body in self._dump(RTM_GETROUTE, rt.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        ]
        through = [route for route in routes if route.leaves_by(index)]
        own = [route for route in through if rt.RTA_NH_ID not in route.values]
        kernels = [route for route in own if route.is_kernels(addresses)]
        keys = collections.Counter(route.key for route in routes)
        made = {(r.body[0], r.body[1], r.values.get(rt.RTA_DST, b"")) for r in kernels}
        return InterfaceConfig(
            tuple(addresses),
            tuple(sorted((r for r in own if r not in kernels), key=lambda r: -r.body[6])),
            tuple(route for route in through if rt.RTA_NH_ID in route.values),
            frozenset(key for key, count in keys.items() if count > 1),
            tuple(nexthop for nexthop in self._nexthops() if nexthop.index == index),
            tuple(n for n in self.neighbours() if n.index == index),
            tuple(a.prefix for a in addresses if a.has_route and a.prefix not in made),
        )

    def addresses(self) -> list[Address]:
        """Return every address of this host."""
        return [Address(b) for b in self._dump(RTM_GETADDR, rt.IFADDR.pack(0, 0, 0, 0, 0))]

    def neighbours(self) -> Iterator[Neighbour]:
        """Yield every entry of the ARP and ND tables, proxies too."""
        for flags in (0, rt.NTF_PROXY):
            yield from map(Neighbour, self._dump(RTM_GETNEIGH, rt.NDMSG.pack(0, 0, 0, flags, 0)))

    def neighbour(self, index: int, family: int, address: bytes) -> int:
        """Return the state (NUD_…) of a neighbour by the interface INDEX; 0 for no entry."""
        found = (n for n in self.neighbours() if n.index == index)
        return next((n.state for n in found if n.key == (family, address)), 0)

    def rules(self, device: str) -> list[Rule]:
        """Return the policy rules that name an interface, without the kernel's and our own."""
        found = [
            Rule(body)
            for family in (rt.AF_INET, rt.AF_INET6)
            for body in self._dump(RTM_GETRULE, rt.RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        ]
        return [rule for rule in found if rule.names(device) and not rule.is_kernels]

    def is_running(self, index: int) -> bool:
        """Whether an interface is up and has its carrier."""
        flags, _ = self.nature(index)
        return flags & (rt.IFF_UP | rt.IFF_RUNNING) == rt.IFF_UP | rt.IFF_RUNNING

    def nature(self, index: int) -> tuple[int, int]:
        """Return an interface's flags (IFF_…) and hardware type (ARPHRD_…)."""
        answer = next(self._ask(RTM_GETLINK, 0, rt.IFINFO.pack(0, 0, index, 0, 0), RTM_NEWLINK))
        _, hardware, _, flags, _ = rt.IFINFO.unpack_from(answer)
        return flags, hardware

    def batch(self, messages: list[Message]) -> None:
        """Send MESSAGES in one call: all are carried out, in order, even if one fails.

        Raises the first `OSError` that its message does not pardon.
        """
        if not messages:
            return
        first = self._sequence + 1
        self._sequence += len(messages)
        data = b""
        for number, each in enumerate(messages, first):
            flags = NLM_F_REQUEST | each.flags | (NLM_F_ACK if number == self._sequence else 0)
            data += message(each.kind, flags, number, each.body)
        self._socket.sendto(data, (0, 0))
        failed = 0
        for number, code in self._answers(self._sequence):
            if code and code not in messages[number - first].pardoned:
                failed = failed or code
        if failed:
            raise OSError(failed, os.strerror(failed))

    def _answers(self, last: int) -> Iterator[tuple[int, int]]:
        """Yield sequence number and errno of the answers, up to that of LAST."""
        while True:
            for kind, _, number, body in self._receive():
                if kind == NLMSG_ERROR:
                    yield number, error_of(body)
                    if number == last:
                        return

    def _dump(self, kind: int, head: bytes) -> list[bytes]:
        """Return the bodies of a dump, repeated if something changed meanwhile."""
        found: list[bytes] = []
        for _ in range(_DUMPS):
            try:
                # RTM_NEW… is two below RTM_GET… (linux/rtnetlink.h).
                found = list(self._ask(kind, NLM_F_DUMP, head, kind - 2))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                    raise
                return []  # a kernel without IPv6, or without nexthops
            if not self._is_torn:
                break
        return found

    def _nexthops(self) -> Iterator[Nexthop]:
        """Yield the nexthop objects."""
        return map(Nexthop, self._dump(RTM_GETNEXTHOP, rt.NHMSG.pack(0, 0, 0, 0, 0)))


def addresses_given(
    had: InterfaceConfig, has: InterfaceConfig, source: Link, target: Link
) -> list[Message]:
    """Return messages that add SOURCE's addresses to TARGET, without those that it HAS.

    In the order in which they were added: of several IPv4 addresses in a subnet the first is the
    primary one, and IPv6 lists the last one first.
    """
    there = {address.key for address in has.addresses}
    new = [a for a in had.addresses if a.key not in there and a.lifetimes[1]]
    four = [address for address in new if address.body[0] == rt.AF_INET]
    six = [address for address in reversed(new) if address.body[0] == rt.AF_INET6]
    messages = [message for a in (*four, *six) for message in a.added(source, target)]
    return messages + [rt.delete_prefix_route(prefix, target.index) for prefix in had.unmade]


def addresses_taken(had: InterfaceConfig, source: Link) -> list[Message]:
    """Return messages that delete SOURCE's addresses: secondary ones before their primary."""
    return [address.deleted(source) for address in reversed(had.movable)]


def routes_moved(had: InterfaceConfig, source: Link, target: Link) -> list[Message]:
    """Return messages that move SOURCE's routes to TARGET.

    A route is replaced in its place, so that there is always one. If other routes have its key, of
    which one could be replaced instead, it is added after them, and the old one deleted.
    """
    messages = [nexthop.moved(target.index) for nexthop in had.nexthops]
    for route in had.routes:
        if route.key in had.contested:
            messages.append(route.moved(source.index, target.index, NLM_F_APPEND))
            messages.append(route.deleted())
        else:
            messages.append(route.moved(source.index, target.index, NLM_F_REPLACE))
    return messages


def routes_added(had: InterfaceConfig, target: Link) -> list[Message]:
    """Return messages that add routes to TARGET, which had them before: after other routes."""
    messages = [nexthop.moved(target.index) for nexthop in had.nexthops]
    routes = (*had.routes, *had.by_object)
    return messages + [r.moved(target.index, target.index, NLM_F_APPEND) for r in routes]


def excused(had: InterfaceConfig, messages: list[Message]) -> list[Message]:
    """Return MESSAGES, allowed to fail if an address has expired: its routes went with it."""
    if all(address.lifetimes[1] for address in had.addresses):
        return messages
    return [each.replace(pardoned=(*each.pardoned, *_UNREACHABLE)) for each in messages]


def neighbours_told(had: InterfaceConfig, has: InterfaceConfig, target: Link) -> list[Message]:
    """Return messages that copy SOURCE's neighbours to TARGET; learned ones as stale."""
    fixed = {n.key for n in has.neighbours if n.state & rt.NUD_PERMANENT}
    messages = []
    for neighbour in had.neighbours:
        state = neighbour.state
        if state & rt.NUD_PERMANENT or not state:  # without a state it is a proxy entry
            messages.append(neighbour.told(target.index, state, NLM_F_EXCL))
        elif state & rt.NUD_KNOWN and neighbour.key not in fixed:
            messages.append(neighbour.told(target.index, rt.NUD_STALE, NLM_F_REPLACE))
    return messages


def probed(
    had: InterfaceConfig, target: Link, gateways: Iterable[tuple[int, bytes]]
) -> list[Message]:
    """Return messages that make the kernel probe gateways.

    A known gateway stays in use until it fails to answer (Documentation/networking/ip-sysctl.rst,
    ucast_solicit), so no packet waits for that. Permanent entries are skipped: probing would end
    that state (net/core/neighbour.c, NEIGH_UPDATE_F_USE).
    """
    known = {n.key: n for n in had.neighbours if n.state & rt.NUD_KNOWN}
    fixed = {n.key for n in had.neighbours if n.state & rt.NUD_PERMANENT}
    return [
        known[way].told(target.index, rt.NUD_PROBE, NLM_F_REPLACE)
        if way in known
        else rt.probe_request(target.index, *way)
        for way in gateways
        if way not in fixed
    ]


def noted(had: InterfaceConfig) -> dict[str, str]:
    """Return belongings as fields of text: the moment, and each message's body in hexadecimal.

    Of routes that follow a nexthop object nothing is noted: see `interface_state.save`.
    """
    bodies: dict[str, tuple[Address | Route | Nexthop | Neighbour, ...]] = {
        "address": had.addresses,
        "route": had.routes,
        "nexthop": had.nexthops,
        "neighbour": had.neighbours,
    }
    fields = {"at": str(_now())}
    for kind, found in bodies.items():
        fields |= {f"{kind}{number}": each.body.hex() for number, each in enumerate(found)}
    return fields


def of_noted(fields: dict[str, str]) -> InterfaceConfig:
    """Return what `noted` wrote, lifetimes of addresses shortened by the time since.

    Other fields are passed over. Raises `KeyError` or `ValueError` if it is damaged.
    """
    passed = _now() - int(fields["at"])

    def bodies(kind: str) -> Iterator[bytes]:
        return (bytes.fromhex(v) for k, v in fields.items() if k.rstrip("0123456789") == kind)

    return InterfaceConfig(
        addresses=tuple(Address(body).aged(passed) for body in bodies("address")),
        routes=tuple(map(Route, bodies("route"))),
        nexthops=tuple(map(Nexthop, bodies("nexthop"))),
        neighbours=tuple(map(Neighbour, bodies("neighbour"))),
    )


def _now() -> int:
    """Return the seconds since the host was started, those asleep included."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
