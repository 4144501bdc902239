"""Rtnetlink messages as the kernel dumps them, and the requests that recreate them elsewhere.

A dumped message can be sent back as a request after replacing the ifindex: so attributes that are
unknown here survive.
Layouts are those of linux/if_addr.h, linux/rtnetlink.h, linux/neighbour.h, linux/nexthop.h and
linux/fib_rules.h.
"""

from __future__ import annotations

import _socket
import errno
import struct

from qemu_netwrap.linux.netlink import (
    KIND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    attribute,
    attributes,
    raw_attributes,
    u32,
)
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from qemu_netwrap.linux.netlink.links import Link

RTM_SETLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE = 19, 20, 21, 24, 25
RTM_NEWNEIGH, RTM_NEWRULE, RTM_DELRULE, RTM_NEWNEXTHOP = 28, 32, 33, 104
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 3, 6, 8
# The flags that a request may have; the kernel sets the others itself.
IFA_F_NODAD, IFA_F_NOPREFIXROUTE, IFA_F_DADFAILED = 0x02, 0x200, 0x08
IFA_F_SETTABLE = IFA_F_NODAD | 0x10 | 0x100 | IFA_F_NOPREFIXROUTE | 0x400
RTA_DST, RTA_SRC, RTA_IIF, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 2, 3, 4, 5, 6
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_EXPIRES, RTA_NH_ID = 9, 12, 15, 18, 23, 30
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_KERNEL, RTN_UNICAST, RT_SCOPE_LINK = 254, 255, 2, 1, 253
RTNH_F_ONLINK = 4
NDA_DST, NDA_CACHEINFO, NDA_PROBES = 1, 3, 4
NUD_REACHABLE, NUD_STALE, NUD_PROBE, NUD_FAILED, NUD_PERMANENT = 0x02, 0x04, 0x10, 0x20, 0x80
NUD_KNOWN = NUD_REACHABLE | NUD_STALE | 0x08 | NUD_PROBE  # 0x08: a probe is due
NTF_USE, NTF_PROXY, NTF_ROUTER = 0x01, 0x08, 0x80
NHA_OIF = 5
FRA_IIFNAME, FRA_OIFNAME, FRA_PROTOCOL, FIB_RULE_INVERT = 3, 17, 21, 2
IFLA_MASTER, IFF_UP, IFF_RUNNING = 10, 1, 0x40
FOREVER = 0xFFFFFFFF  # a lifetime
USER_HZ = 100  # the unit of a route's lifetime
AF_INET, AF_INET6 = _socket.AF_INET, _socket.AF_INET6

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBi")
RTMSG = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr has the same layout
_RTNH = struct.Struct("=HBBi")
NDMSG = struct.Struct("=BxxxiHBB")
NHMSG = struct.Struct("=BBBBI")
_LIFETIMES = struct.Struct("=II")  # of struct ifa_cacheinfo: preferred, valid
_U16 = struct.Struct("=H")
U32 = struct.Struct("=I")


class Message(Record):
    """One request of a batch; the errnos in PARDONED mean that there was nothing to do."""

    kind: int
    flags: int
    body: bytes
    pardoned: tuple[int, ...] = ()


class Address(Record):
    """An address, as the body of an RTM_NEWADDR message."""

    body: bytes

    @property
    def index(self) -> int:
        """Its interface's index."""
        found: int = IFADDR.unpack_from(self.body)[4]
        return found

    @property
    def key(self) -> tuple[int, int, bytes, bytes]:
        """What identifies it on its interface: family, prefix length, address, peer."""
        found = dict(attributes(self.body, IFADDR.size))
        peer = found.get(IFA_ADDRESS, b"")
        return self.body[0], self.body[1], found.get(IFA_LOCAL, peer), peer

    @property
    def text(self) -> str:
        """The address as ip(8) shows it: `192.0.2.1/24`."""
        family, length, local, _ = self.key
        return f"{_socket.inet_ntop(family, local)}/{length}"

    @property
    def is_link_local(self) -> bool:
        """Whether it is an IPv6 link-local address: every interface has its own."""
        return self.body[0] == AF_INET6 and self.body[3] == RT_SCOPE_LINK

    @property
    def is_announced(self) -> bool:
        """Whether it is by SLAAC, or looks like it."""
        return self.body[0] == AF_INET6 and self.has_route and self.lifetimes[1] != FOREVER

    @property
    def flags(self) -> int:
        """The flags (IFA_F_…), also those that a request may not have."""
        return u32(dict(attributes(self.body, IFADDR.size)).get(IFA_FLAGS, bytes(4)))

    @property
    def lifetimes(self) -> tuple[int, int]:
        """Its preferred and valid lifetime, in seconds."""
        found = dict(attributes(self.body, IFADDR.size)).get(IFA_CACHEINFO)
        return _LIFETIMES.unpack_from(found) if found else (FOREVER, FOREVER)

    @property
    def prefix(self) -> tuple[int, int, bytes]:
        """The route that the kernel creates with it: family, prefix length, packed network."""
        family, length, _, peer = self.key
        bits = len(peer) * 8
        network = int.from_bytes(peer, "big") >> (bits - length) << (bits - length)
        return family, length, network.to_bytes(len(peer), "big")

    @property
    def has_route(self) -> bool:
        """Whether the kernel creates a route to its prefix when it is added."""
        is_alone = self.body[0] == AF_INET and self.body[1] == 32
        return not (is_alone or self.is_link_local or self.flags & IFA_F_NOPREFIXROUTE)

    def aged(self, seconds: int) -> Address:
        """Return it as it is SECONDS later; with a valid lifetime of 0 it has expired."""
        left = [life if life == FOREVER else max(0, life - seconds) for life in self.lifetimes]
        info = {IFA_CACHEINFO: _LIFETIMES.pack(*left) + bytes(8)}
        return Address(self.body[: IFADDR.size] + exchanged(self.body, IFADDR.size, info))

    def added(self, source: Link, target: Link) -> list[Message]:
        """Return messages that add it to TARGET, without duplicate detection: the host has it."""
        flags = self.flags & IFA_F_SETTABLE
        once = self._for(source, target, flags | IFA_F_NODAD)
        made = Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, once, (errno.EEXIST,))
        if self.body[0] == AF_INET:
            return [made.replace(body=self._for(source, target, flags))]
        # The flag would stay visible. Replacing an address starts no duplicate detection.
        plain = self._for(source, target, flags)
        return [made, Message(RTM_NEWADDR, NLM_F_REPLACE, plain)]

    def deleted(self, source: Link) -> Message:
        """Return a message that deletes it from SOURCE."""
        drop = dict.fromkeys((IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS))
        rest = exchanged(self.body, IFADDR.size, drop)
        head = IFADDR.pack(self.body[0], self.body[1], 0, self.body[3], source.index)
        gone = errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO  # it, its interface, all of IPv6
        return Message(RTM_DELADDR, 0, head + rest, gone)

    def _for(self, source: Link, target: Link, flags: int) -> bytes:
        """Return the body of a request for TARGET."""
        family, length, _, scope, _ = IFADDR.unpack_from(self.body)
        changes = {IFA_FLAGS: U32.pack(flags)}
        label = dict(attributes(self.body, IFADDR.size)).get(IFA_LABEL)
        if label:
            changes[IFA_LABEL] = _relabelled(label, source.name, target.name)
        head = IFADDR.pack(family, length, flags & 0xFF, scope, target.index)
        return head + exchanged(self.body, IFADDR.size, changes)


class Route(Record):
    """A route of either family, as the body of an RTM_NEWROUTE message."""

    body: bytes

    @property
    def values(self) -> dict[int, bytes]:
        """Its attributes by type."""
        return dict(attributes(self.body, RTMSG.size))

    @property
    def key(self) -> tuple[object, ...]:
        """What two alternative routes have in common: the kernel replaces one by the other."""
        family, length, src_length, tos, table, *_ = RTMSG.unpack_from(self.body)
        found = self.values
        table = u32(found[RTA_TABLE]) if RTA_TABLE in found else table
        where = found.get(RTA_DST, b""), found.get(RTA_SRC, b""), found.get(RTA_PRIORITY, bytes(4))
        return family, table, length, src_length, tos, *where

    @property
    def is_default(self) -> bool:
        """Whether it is a default route."""
        return self.body[1] == 0 and self.body[7] == RTN_UNICAST

    def leaves_by(self, index: int) -> bool:
        """Whether it leaves by the interface INDEX, or one of its paths does."""
        found = self.values
        if RTA_OIF in found:
            return u32(found[RTA_OIF]) == index
        return any(hop[3] == index for hop, _ in _hops(found.get(RTA_MULTIPATH, b"")))

    def gateways(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Yield family and packed address of its gateways by the interface INDEX."""
        found = self.values
        ways = [found] if RTA_OIF in found else []
        for hop, rest in _hops(found.get(RTA_MULTIPATH, b"")):
            ways += [dict(attributes(rest, 0))] if hop[3] == index else []
        for way in ways:
            if RTA_GATEWAY in way:
                yield self.body[0], way[RTA_GATEWAY]
            elif RTA_VIA in way:
                yield _U16.unpack_from(way[RTA_VIA])[0], way[RTA_VIA][2:]

    def is_kernels(self, addresses: Iterable[Address]) -> bool:
        """Whether the kernel creates it itself for an interface with these addresses."""
        family, length, _, _, table, protocol, *_ = RTMSG.unpack_from(self.body)
        dst = self.values.get(RTA_DST, b"")
        if protocol != RTPROT_KERNEL:
            return False
        if table == RT_TABLE_LOCAL or (family == AF_INET6 and _is_local6(dst)):
            return True
        made = (a for a in addresses if not a.flags & IFA_F_NOPREFIXROUTE)
        return (family, length, dst) in [address.prefix for address in made]

    def moved(self, source: int, target: int, flags: int) -> Message:
        """Return a message that makes it leave by TARGET instead of SOURCE."""
        found = self.values
        changes: dict[int, bytes | None] = {RTA_CACHEINFO: None, RTA_IIF: None}
        if RTA_OIF in found:
            changes[RTA_OIF] = U32.pack(target)
        if RTA_MULTIPATH in found:
            changes[RTA_MULTIPATH] = _moved_hops(found[RTA_MULTIPATH], source, target)
        rest = exchanged(self.body, RTMSG.size, changes)
        seconds = self._expires()
        if seconds:
            rest += attribute(RTA_EXPIRES, U32.pack(seconds))
        return Message(RTM_NEWROUTE, NLM_F_CREATE | flags, self._head() + rest, (errno.EEXIST,))

    def deleted(self) -> Message:
        """Return a message that deletes it, and none of its alternatives."""
        drop = dict.fromkeys((RTA_CACHEINFO, RTA_IIF))
        rest = exchanged(self.body, RTMSG.size, drop)
        return Message(RTM_DELROUTE, 0, self._head() + rest, (errno.ESRCH,))

    def _head(self) -> bytes:
        """Return its header without what only the kernel may set."""
        *head, flags = RTMSG.unpack_from(self.body)
        return RTMSG.pack(*head, flags & RTNH_F_ONLINK)

    def _expires(self) -> int:
        """Return for how many seconds it is valid; 0 if it does not expire."""
        info = self.values.get(RTA_CACHEINFO, b"")
        if self.body[0] != AF_INET6 or len(info) < 12:
            return 0
        left: int = struct.unpack_from("=i", info, 8)[0]
        return -(-left // USER_HZ) if left > 0 else 0


class Neighbour(Record):
    """An entry of the ARP or ND table, as the body of an RTM_NEWNEIGH message."""

    body: bytes

    @property
    def key(self) -> tuple[int, bytes]:
        """Its family and packed address."""
        return self.body[0], dict(attributes(self.body, NDMSG.size)).get(NDA_DST, b"")

    @property
    def index(self) -> int:
        """Its interface's index."""
        found: int = NDMSG.unpack_from(self.body)[1]
        return found

    @property
    def state(self) -> int:
        """Its state (NUD_…)."""
        found: int = NDMSG.unpack_from(self.body)[2]
        return found

    def told(self, target: int, state: int, flags: int) -> Message:
        """Return a message that adds it to TARGET in STATE."""
        kept = NDMSG.unpack_from(self.body)[3] & (NTF_PROXY | NTF_ROUTER)
        head = NDMSG.pack(self.body[0], target, state, kept, 0)
        rest = exchanged(self.body, NDMSG.size, dict.fromkeys((NDA_CACHEINFO, NDA_PROBES)))
        return Message(RTM_NEWNEIGH, NLM_F_CREATE | flags, head + rest, (errno.EEXIST,))


class Nexthop(Record):
    """A nexthop object, which routes may share, as the body of an RTM_NEWNEXTHOP message."""

    body: bytes

    @property
    def index(self) -> int:
        """Its interface's index; 0 for a group or a blackhole."""
        return u32(dict(attributes(self.body, NHMSG.size)).get(NHA_OIF, bytes(4)))

    def moved(self, target: int) -> Message:
        """Return a message that moves it to TARGET, and with it every route that uses it."""
        family, _, protocol, _, flags = NHMSG.unpack_from(self.body)
        head = NHMSG.pack(family, 0, protocol, 0, flags & RTNH_F_ONLINK)
        rest = exchanged(self.body, NHMSG.size, {NHA_OIF: U32.pack(target)})
        return Message(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE, head + rest)


class Rule(Record):
    """A policy rule, as the body of an RTM_NEWRULE message."""

    body: bytes

    def names(self, device: str) -> bool:
        """Whether its iif or oif is that interface."""
        found = dict(attributes(self.body, RTMSG.size))
        return _raw_name(device) in (found.get(FRA_IIFNAME), found.get(FRA_OIFNAME))

    @property
    def is_kernels(self) -> bool:
        """Whether it has the kernel's protocol, as `links.PolicyRule` has too."""
        found = dict(attributes(self.body, RTMSG.size))
        return found.get(FRA_PROTOCOL) == bytes([RTPROT_KERNEL])

    def renamed(self, source: str, target: str) -> Rule:
        """Return the same rule for another interface."""
        *head, flags = RTMSG.unpack_from(self.body)
        found = dict(attributes(self.body, RTMSG.size))
        names = (k for k in (FRA_IIFNAME, FRA_OIFNAME) if found.get(k) == _raw_name(source))
        rest = exchanged(self.body, RTMSG.size, dict.fromkeys(names, _raw_name(target)))
        return Rule(RTMSG.pack(*head, flags & FIB_RULE_INVERT) + rest)

    @property
    def added(self) -> Message:
        """Return a message that adds it."""
        return Message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, self.body, (errno.EEXIST,))

    @property
    def deleted(self) -> Message:
        """Return a message that deletes it."""
        return Message(RTM_DELRULE, 0, self.body, (errno.ENOENT,))


def set_master(index: int, master: int, *, up: bool = True) -> Message:
    """Return a message that makes an interface a port of MASTER (0 for none), and sets it UP."""
    head = IFINFO.pack(0, 0, index, IFF_UP if up else 0, IFF_UP)
    return Message(RTM_SETLINK, 0, head + attribute(IFLA_MASTER, U32.pack(master)))


def delete_prefix_route(prefix: tuple[int, int, bytes], target: int) -> Message:
    """Return a message that deletes the route that the kernel has created with an address."""
    family, length, network = prefix
    scope = RT_SCOPE_LINK if family == AF_INET else 0
    numbers = (family, length, 0, 0, RT_TABLE_MAIN, RTPROT_KERNEL, scope, RTN_UNICAST, 0)
    rest = attribute(RTA_DST, network) + attribute(RTA_OIF, U32.pack(target))
    return Message(RTM_DELROUTE, 0, RTMSG.pack(*numbers) + rest, (errno.ESRCH,))


def probe_request(index: int, family: int, address: bytes) -> Message:
    """Return a message that makes the kernel probe a neighbour."""
    head = NDMSG.pack(family, index, 0, NTF_USE, 0)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE, head + attribute(NDA_DST, address))


def exchanged(body: bytes, start: int, changes: Mapping[int, bytes | None]) -> bytes:
    """Return the attributes in BODY from START on, with CHANGES; None leaves one out."""
    return b"".join(
        attribute(kind, new)
        for kind, value in raw_attributes(body, start)
        if (new := changes.get(kind & KIND, value)) is not None
    )


def _hops(raw: bytes) -> Iterator[tuple[tuple[int, int, int, int], bytes]]:
    """Yield the paths of a multipath route: (size, flags, weight, ifindex) and attributes."""
    at = 0
    while at + _RTNH.size <= len(raw):
        size, flags, weight, index = _RTNH.unpack_from(raw, at)
        yield (size, flags, weight, index), raw[at + _RTNH.size : at + size]
        at += max(size, _RTNH.size) + 3 & ~3


def _moved_hops(raw: bytes, source: int, target: int) -> bytes:
    """Return the paths of a multipath route, with SOURCE replaced by TARGET."""
    out = b""
    for (size, flags, weight, index), rest in _hops(raw):
        by = target if index == source else index
        out += _RTNH.pack(size, flags & RTNH_F_ONLINK, weight, by) + rest + bytes(-size % 4)
    return out


def _is_local6(dst: bytes) -> bool:
    """Whether an IPv6 destination is link-local or multicast: each interface has such routes."""
    return dst[:1] == b"\xff" or (dst[:1] == b"\xfe" and dst[1:2] >= b"\x80" and dst[1] < 0xC0)


def _relabelled(label: bytes, source: str, target: str) -> bytes:
    """Return an IPv4 address's label with the name of its interface replaced."""
    text = label.rstrip(b"\0").decode("utf-8", "surrogateescape")
    name, colon, rest = text.partition(":")
    new = f"{target}{colon}{rest}" if name == source else text
    raw = new.encode("utf-8", "surrogateescape")
    return (raw if len(raw) < 16 else label.rstrip(b"\0")) + b"\0"


def _raw_name(device: str) -> bytes:
    """Return an interface's name as an attribute's value."""
    return f"{device}\0".encode("utf-8", "surrogateescape")
