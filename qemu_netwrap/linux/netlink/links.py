"""The rtnetlink requests that launches make, encoded by hand.

Importing pyroute2 costs 125 ms and more; these requests cost 1 ms together (docs/decisions,
0002). Off the launch path pyroute2 is used (`link_stats`, `vf_settings`). Message layouts:
linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, rtnetlink(7). Native byte order. A MAC or an
address is packed `bytes`; what the kernel refuses is raised as `OSError`.
"""

from __future__ import annotations

import _socket
import errno
import struct

from qemu_netwrap.linux.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Netlink,
    attribute,
    attributes,
    u32,
)
from qemu_netwrap.model.host import Route
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.record import Record

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_INGRESS_BLOCK = 1, 2, 7, 13
TCA_BPF_OPS_LEN, TCA_BPF_OPS, TCA_BPF_FLAGS, TCA_STATS_QUEUE = 4, 5, 8, 3
TCA_BPF_FLAG_ACT_DIRECT = 1
TC_H_CLSACT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
BLOCK = -1  # stands for an ifindex: TCM_IFINDEX_MAGIC_BLOCK
ETH_P_ALL = 0x0300  # big-endian
NDA_DST, NUD_VALID = 1, 0xDE  # the states in which a neighbor's MAC is known
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_CARRIER = 20, 26, 27, 33
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_LEARNING, IFLA_BRPORT_ISOLATED, IFLA_BRPORT_LOCKED = 8, 33, 39
IFLA_BR_FORWARD_DELAY, IFLA_BR_HELLO_TIME, IFLA_BR_STP_STATE = 1, 2, 5
IFLA_BR_MCAST_SNOOPING = 23
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 0x02
# Attributes by address family (linux/if_link.h), and numbers of sysctls (linux/ip.h).
IFLA_INET_CONF, IFLA_INET6_ADDR_GEN_MODE = 1, 8
_GENERATE_NONE = 1  # IN6_ADDR_GEN_MODE_NONE
IPV4_SETTINGS = {
    "forwarding": 1, "accept_redirects": 4, "rp_filter": 8, "accept_source_route": 9,
    "src_valid_mark": 24, "route_localnet": 26,
}  # fmt: skip
RTA_DST, RTA_OIF, RTA_MULTIPATH, RTA_TABLE = 1, 4, 9, 15
RTN_UNICAST, RT_TABLE_LOCAL = 1, 255
RTM_F_FIB_MATCH = 0x2000
RTPROT_KERNEL = 2
FRA_DST, FRA_IIFNAME, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK = 1, 3, 4, 6, 10
FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 15, 16, 21
FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_BLACKHOLE = 2, 3, 6
_OUR_ACTIONS = (FR_ACT_GOTO, FR_ACT_NOP, FR_ACT_BLACKHOLE)
RULE_OF_MAIN = 32766  # its preference
IFF_UP = 1
NDA_LLADDR, NUD_NOARP = 2, 0x40
NTF_MASTER, NTF_STICKY = 0x04, 0x40
AF_BRIDGE = 7
_INGRESS = 0, 0xFFFFFFF2, 1 << 16 | ETH_P_ALL  # of `tcmsg`: no handle, clsact's ingress, first
USER_HZ = 100  # the unit of a bridge's timers in netlink
# The errnos for no route, a route that rejects, and no IPv6.
_NO_ROUTE = (
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL),
    *(errno.EOPNOTSUPP, errno.EAFNOSUPPORT),
)
EVERYWHERE = Subnet(0, 0)
# Addresses that only a default route leads to; they are looked up, nothing is sent to them.
_ELSEWHERE = {
    _socket.AF_INET: bytes((1, 1, 1, 1)),
    _socket.AF_INET6: bytes((0x20, *bytes(14), 1)),
}

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_TCMSG = struct.Struct("=BxxxiIII")
_DESTINATION = struct.pack("=HH", 8, RTA_DST)


class Link(Record):
    """A network interface, as far as a launch needs it."""

    index: int
    name: str
    mac: bytes = b""
    mtu: int = 1500
    kind: str = ""  # `bridge`, `tun`, … ; empty for hardware
    master: int = 0
    up: bool = False
    carrier: bool = False  # of a tap: whether a process has it open
    isolated: bool = False  # of a port: from the other isolated ports
    alias: str = ""  # IFLA_IFALIAS, a text for people


class PolicyRule(Record):
    """A policy rule of qemu-netwrap's (linux/fib_rules.h).

    It has the protocol of the kernel's own rules: daemons that remove foreign rules, such as
    systemd-networkd, keep those.
    """

    family: int
    preference: int
    action: int  # FR_ACT_…
    device: str = ""  # by which a packet arrives; `lo` for the host's own packets
    destination: bytes = b""
    length: int = 0
    goto: int = 0
    unmarked: bool = False  # only for packets without a mark

    @property
    def body(self) -> bytes:
        """The body of a request about the rule."""
        head = _RTMSG.pack(self.family, self.length, 0, 0, 0, 0, 0, self.action, 0)
        found = attribute(FRA_PRIORITY, struct.pack("=I", self.preference))
        found += attribute(FRA_PROTOCOL, bytes([RTPROT_KERNEL]))
        if self.device:
            name = self.device.encode("utf-8", "surrogateescape")
            found += attribute(FRA_IIFNAME, name + b"\0")
        if self.length:
            found += attribute(FRA_DST, self.destination)
        if self.goto:
            found += attribute(FRA_GOTO, struct.pack("=I", self.goto))
        if self.unmarked:
            found += attribute(FRA_FWMARK, bytes(4)) + attribute(FRA_FWMASK, b"\xff" * 4)
        return head + found


class Rtnl(Netlink):
    """A netlink socket for links, addresses and routes."""

    def __init__(self) -> None:
        """Open the socket in this process's network namespace."""
        super().__init__(NETLINK_ROUTE)

    def link(self, name: str) -> Link | None:
        """Return the interface with that name; None if there is none."""
        named = attribute(IFLA_IFNAME, name.encode("utf-8", "surrogateescape") + b"\0")
        return self._link(_IFINFO.pack(0, 0, 0, 0, 0) + named)

    def link_at(self, index: int) -> Link | None:
        """Return the interface with that index; None if there is none."""
        return self._link(_IFINFO.pack(0, 0, index, 0, 0))

    def _link(self, which: bytes) -> Link | None:
        """Return the interface that the attribute WHICH identifies; None if there is none."""
        try:
            return _read_link(next(self._ask(RTM_GETLINK, 0, which, RTM_NEWLINK)))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def index_name(self, index: int) -> str:
        """Return the current name of the interface with that index; empty if it is gone."""
        found = self.link_at(index)
        return found.name if found else ""

    def add_bridge(  # noqa: PLR0913 - what a bridge is made with
        self,
        name: str,
        mac: bytes,
        *,
        stp: bool,
        forward_delay: int,
        hello_time: int,
        snooping: bool = True,
        up: bool = True,
    ) -> None:
        """Create a bridge. Times in seconds; a negative one leaves the kernel's default.

        With SNOOPING the kernel's default of multicast snooping stays; without, it is off.
        """
        body = (
            _IFINFO.pack(0, 0, 0, IFF_UP if up else 0, IFF_UP)
            + attribute(IFLA_IFNAME, name.encode() + b"\0")
            + attribute(IFLA_ADDRESS, mac)
            + _bridge_info(stp, forward_delay, hello_time, snooping=snooping)
        )
        self._do(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)

    def set_bridge(self, index: int, *, stp: bool, forward_delay: int, hello_time: int) -> None:
        """Set a bridge's STP and times, which are as in `add_bridge`."""
        body = _IFINFO.pack(0, 0, index, 0, 0) + _bridge_info(stp, forward_delay, hello_time)
        self._do(RTM_NEWLINK, 0, body)

    def plug(self, link: Link, bridge: Link, mac: bytes) -> None:
        """Make LINK a port of the bridge, with a MAC and the bridge's MTU, and bring it up."""
        body = _IFINFO.pack(0, 0, link.index, IFF_UP, IFF_UP) + attribute(IFLA_ADDRESS, mac)
        if link.mtu != bridge.mtu:
            body += attribute(IFLA_MTU, struct.pack("=I", bridge.mtu))
        body += attribute(IFLA_MASTER, struct.pack("=I", bridge.index))
        self._do(RTM_SETLINK, 0, body)

    def unplug(self, link: Link, master: int, mac: bytes, mtu: int, *, up: bool) -> None:
        """Restore LINK's MASTER (0 for none), MAC, MTU, and whether it was UP."""
        body = _IFINFO.pack(0, 0, link.index, IFF_UP if up else 0, IFF_UP)
        body += attribute(IFLA_ADDRESS, mac) + attribute(IFLA_MTU, struct.pack("=I", mtu))
        body += attribute(IFLA_MASTER, struct.pack("=I", master))
        self._do(RTM_SETLINK, 0, body)

    def set_up(self, index: int, mtu: int, group: int) -> None:
        """Bring an interface up, and set its MTU and group, each unless it is 0."""
        body = _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
        for kind, value in ((IFLA_MTU, mtu), (IFLA_GROUP, group)):
            body += attribute(kind, struct.pack("=I", value)) if value else b""
        self._do(RTM_SETLINK, 0, body)

    def generate_addresses(self, index: int, mode: int = _GENERATE_NONE) -> None:
        """Set an interface's IN6_ADDR_GEN_MODE_…; by default it generates no link-local address.

        Without IPv6, and before Linux 3.17, this does nothing.
        """
        spec = attribute(_socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([mode])))
        try:
            self._do(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + _family_spec(spec))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def set_ipv4(self, index: int, settings: tuple[tuple[str, str], ...]) -> None:
        """Set sysctls of net/ipv4/conf, (key, number) each. /proc/sys may be read-only."""
        values = (
            attribute(IPV4_SETTINGS[key], struct.pack("=I", int(value))) for key, value in settings
        )
        spec = attribute(_socket.AF_INET, attribute(IFLA_INET_CONF, b"".join(values)))
        self._do(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + _family_spec(spec))

    def filter_ingress(self, index: int, program: bytes) -> bool:
        """Attach a BPF program to the ingress of an interface.

        Return False if this kernel does not support that.
        """
        qdisc = _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
        place = _TCMSG.pack(0, index, *_INGRESS)
        flags = NLM_F_CREATE | NLM_F_EXCL
        try:
            self._do(RTM_NEWQDISC, flags, qdisc + attribute(TCA_KIND, b"clsact\0"))
            kind = attribute(TCA_KIND, b"bpf\0")
            self._do(RTM_NEWTFILTER, flags, place + kind + _program(program))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                raise
            return False
        return True

    def set_alias(self, index: int, alias: str) -> None:
        """Set an interface's alias, a text for people."""
        body = _IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_IFALIAS, alias.encode())
        self._do(RTM_SETLINK, 0, body)

    def isolate(self, index: int, *, isolated: bool = True) -> None:
        """Isolate a port from the other isolated ports of its bridge, or not (Linux 4.18)."""
        self._set_port(index, attribute(IFLA_BRPORT_ISOLATED, bytes([isolated])))

    def lock_port(self, index: int, macs: tuple[bytes, ...]) -> None:
        """Make a port of a bridge accept frames from these MACs only.

        A locked port drops frames from a MAC without an FDB entry for that port (net/bridge/
        br_input.c, `br_handle_frame_finish`); before Linux 5.16 there is no lock. Learning is off,
        since link-local frames bypass the lock. Sticky entries do not move to another port at which
        such a frame arrives.
        """
        for mac in macs:
            self.stick(index, mac)
        locked = attribute(IFLA_BRPORT_LOCKED, b"\1")
        self._set_port(index, attribute(IFLA_BRPORT_LEARNING, b"\0") + locked)

    def stick(self, index: int, mac: bytes) -> None:
        """Pin a MAC to the port INDEX of its bridge, whatever frames arrive at other ports."""
        head = _NDMSG.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER | NTF_STICKY, 0)
        entry = head + attribute(NDA_LLADDR, mac)
        self._do(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, entry)

    def stuck(self, bridge: int) -> dict[bytes, int]:
        """Return the MACs that `stick` has pinned on a bridge, with the ifindex of the port."""
        body = _IFINFO.pack(AF_BRIDGE, 0, 0, 0, 0)
        body += attribute(IFLA_MASTER, struct.pack("=I", bridge))
        found = {}
        for answer in self._ask(RTM_GETNEIGH, NLM_F_DUMP, body, RTM_NEWNEIGH):
            _, index, _, flags, _ = _NDMSG.unpack_from(answer)
            if flags & NTF_STICKY:
                found[dict(attributes(answer, _NDMSG.size))[NDA_LLADDR]] = index
        return found

    def neighbor(self, index: int, address: bytes) -> bytes:
        """Return the MAC of an IPv4 neighbor behind an interface; b"" if it is not known."""
        body = _NDMSG.pack(_socket.AF_INET, index, 0, 0, 0) + attribute(NDA_DST, address)
        try:
            (answer,) = self._ask(RTM_GETNEIGH, NLM_F_ACK, body, RTM_NEWNEIGH)
        except (OSError, ValueError):
            return b""  # no entry, or a kernel before 5.0, which cannot look one up
        state = _NDMSG.unpack_from(answer)[2]
        found = dict(attributes(answer, _NDMSG.size))
        return found.get(NDA_LLADDR, b"") if state & NUD_VALID else b""

    def bind_block(self, index: int, block: int) -> None:
        """Make the ingress of an interface go through a filter block (tc(8), clsact)."""
        body = _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
        body += attribute(TCA_KIND, b"clsact\0")
        body += attribute(TCA_INGRESS_BLOCK, struct.pack("=I", block))
        self._do(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)

    def unbind_block(self, index: int) -> None:
        """Undo `bind_block`."""
        body = _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
        self._do(RTM_DELQDISC, 0, body + attribute(TCA_KIND, b"clsact\0"))

    def set_filter(self, block: int, priority: int, handle: int, program: bytes) -> None:
        """Add a BPF program, which returns verdicts, to a filter block, or replace it."""
        body = _filter(block, priority, handle) + _program(program)
        self._do(RTM_NEWTFILTER, NLM_F_CREATE, body)

    def has_filter(self, block: int, priority: int, handle: int) -> bool:
        """Whether a filter block has a program at that priority and handle."""
        which = _filter(block, priority, handle)
        try:
            next(self._ask(RTM_GETTFILTER, 0, which, RTM_NEWTFILTER))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            return False
        return True

    def drop_filter(self, block: int, priority: int, handle: int) -> None:
        """Remove a program from a filter block, if both exist."""
        try:
            self._do(RTM_DELTFILTER, 0, _filter(block, priority, handle))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise

    def dropped(self, index: int) -> int:
        """Return how many frames the filter block of an interface has dropped; 0 without one."""
        body = _TCMSG.pack(0, index, CLSACT_HANDLE, TC_H_CLSACT, 0)
        try:
            # Without NLM_F_ECHO the answer goes to listeners only.
            flags = NLM_F_ECHO | NLM_F_ACK
            (answer,) = self._ask(RTM_GETQDISC, flags, body, RTM_NEWQDISC)
        except (OSError, ValueError):
            return 0  # it has none
        statistics = dict(attributes(dict(attributes(answer, _TCMSG.size))[TCA_STATS2], 0))
        return u32(statistics[TCA_STATS_QUEUE][8:12])  # struct gnet_stats_queue

    def _set_port(self, index: int, data: bytes) -> None:
        """Set attributes of a bridge's port."""
        info = attribute(IFLA_INFO_SLAVE_KIND, b"bridge") + attribute(IFLA_INFO_SLAVE_DATA, data)
        body = _IFINFO.pack(0, 0, index, 0, 0) + attribute(IFLA_LINKINFO, info)
        self._do(RTM_NEWLINK, 0, body)

    def ports(self, bridge: int) -> list[Link]:
        """Return a bridge's ports: the kernel sends only those, whatever else there is."""
        body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(IFLA_MASTER, struct.pack("=I", bridge))
        answers = self._ask(RTM_GETLINK, NLM_F_DUMP, body, RTM_NEWLINK)
        return [link for link in map(_read_link, answers) if link.master == bridge]

    def delete_link(self, index: int) -> None:
        """Delete an interface."""
        self._do(RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0))

    def add_address(self, index: int, address: bytes, length: int) -> None:
        """Add an address: IPv4 with its broadcast address, IPv6 without duplicate detection."""
        flags, more = IFA_F_NODAD, b""
        if len(address) == 4:
            host = (1 << 32 - length) - 1
            broadcast = (int.from_bytes(address, "big") | host).to_bytes(4, "big")
            flags, more = 0, attribute(IFA_BROADCAST, broadcast)
        body = _address(index, address, length, flags) + more
        self._do(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)

    def delete_address(self, index: int, address: bytes, length: int) -> None:
        """Remove an address."""
        self._do(RTM_DELADDR, 0, _address(index, address, length))

    def default_device(self, family: int = _socket.AF_INET) -> str:
        """Return the name of the device of a family's default route, empty if there is none."""
        index = self._default_index(family)
        return self.index_name(index) if index else ""

    def default_link(self) -> Link | None:
        """Return the device of the IPv4 default route; None if there is none."""
        index = self._default_index(_socket.AF_INET)
        return self.link_at(index) if index else None

    def default_index(self, version: int) -> int:
        """Return the ifindex of the default route's device for IP VERSION 4 or 6; 0 for none."""
        return self._default_index(_socket.AF_INET if version == 4 else _socket.AF_INET6)

    def _default_index(self, family: int) -> int:
        """Return the ifindex of the default route's device, 0 if there is none."""
        where = _ELSEWHERE[family]
        head = _RTMSG.pack(family, 8 * len(where), 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH)
        try:
            answer = next(
                self._ask(RTM_GETROUTE, 0, head + attribute(RTA_DST, where), RTM_NEWROUTE)
            )
        except OSError as error:
            if error.errno in _NO_ROUTE:
                return 0
            raise
        devices = out_devices(dict(attributes(answer, _RTMSG.size)))
        return devices[0] if devices else 0

    def rule_places(self, family: int) -> tuple[int, int]:
        """Return the preferences of the rule for the local table, and of the rule after it.

        Rules of qemu-netwrap's do not count.
        """
        head = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        local = -1
        # The first part of the answer is enough: rules are sorted by preference.
        for answer in self._ask(RTM_GETRULE, NLM_F_DUMP, head, RTM_NEWRULE):
            found = dict(attributes(answer, _RTMSG.size))
            preference = u32(found[FRA_PRIORITY]) if FRA_PRIORITY in found else 0
            table = u32(found[FRA_TABLE]) if FRA_TABLE in found else answer[4]
            is_kernels = found.get(FRA_PROTOCOL) == bytes([RTPROT_KERNEL])
            if local < 0:
                local = preference if table == RT_TABLE_LOCAL else local
            elif not (is_kernels and answer[7] in _OUR_ACTIONS):
                return local, preference
        return max(local, 0), RULE_OF_MAIN

    def policy_rules(self, family: int) -> list[PolicyRule]:
        """Return the policy rules of a family that qemu-netwrap has added.

        They have the kernel's protocol, but unlike the kernel's own rules lead to no table.
        """
        head = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        rules = []
        for answer in self._ask(RTM_GETRULE, NLM_F_DUMP, head, RTM_NEWRULE):
            found = dict(attributes(answer, _RTMSG.size))
            action = answer[7]
            is_ours = action in (FR_ACT_BLACKHOLE, FR_ACT_GOTO, FR_ACT_NOP)
            if is_ours and found.get(FRA_PROTOCOL) == bytes([RTPROT_KERNEL]):
                rules.append(
                    PolicyRule(
                        family,
                        u32(found.get(FRA_PRIORITY, bytes(4))),
                        action,
                        found.get(FRA_IIFNAME, b"")
                        .rstrip(b"\0")
                        .decode("utf-8", "surrogateescape"),
                        found.get(FRA_DST, b""),
                        answer[1],
                        u32(found.get(FRA_GOTO, bytes(4))),
                        action == FR_ACT_BLACKHOLE,
                    )
                )
        return rules

    def add_rule(self, rule: PolicyRule) -> None:
        """Add a policy rule, unless it exists."""
        try:
            self._do(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule.body)
        except FileExistsError:
            pass

    def delete_rule(self, rule: PolicyRule) -> None:
        """Delete a policy rule, if it exists."""
        try:
            self._do(RTM_DELRULE, 0, rule.body)
        except FileNotFoundError:
            pass

    def routes(self, places: tuple[Subnet, ...] = (EVERYWHERE,)) -> list[Route]:
        """Return the IPv4 unicast routes of every table but `local` that overlap one of PLACES.

        And one of the others for each device, table and gateway, so that no device is left out.
        """
        head = _RTMSG.pack(_socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        areas = [(place.network, place.length) for place in places]
        names: dict[int, str] = {}
        known: dict[bytes, list[Route]] = {}
        found: list[Route] = []
        for answer in self._ask(RTM_GETROUTE, NLM_F_DUMP, head, RTM_NEWROUTE):
            # Most of thousands of routes differ only by their destination, which is the second
            # attribute: the rest of such messages is decoded once.
            apart = answer[20:24] == _DESTINATION
            rest = answer[:20] + answer[28:] if apart else answer
            alike = known.get(rest)
            if alike is None:
                known[rest] = alike = self._read_route(answer, names)
                found += alike
            elif apart:
                network, length = int.from_bytes(answer[24:28], "big"), answer[1]
                for place, wide in areas:
                    if (network ^ place) >> 32 - min(length, wide) == 0:
                        subnet = Subnet(network, length)
                        found += [Route(subnet, route.device, route.table) for route in alike]
                        break
        return found

    def _read_route(self, body: bytes, names: dict[int, str]) -> list[Route]:
        """Return the routes of an RTM_NEWROUTE message, one for each of its devices.

        NAMES caches the devices' names by index.
        """
        length, table, kind = body[1], body[4], body[7]
        if kind != RTN_UNICAST or table == RT_TABLE_LOCAL:
            return []
        found = dict(attributes(body, _RTMSG.size))
        subnet = Subnet(int.from_bytes(found.get(RTA_DST, bytes(4)), "big"), length)
        table = u32(found[RTA_TABLE]) if RTA_TABLE in found else table
        devices = out_devices(found)
        for index in devices:
            if index not in names:
                names[index] = name_of(index)
        return [Route(subnet, names[index], table) for index in devices if names[index]]


def name_of(index: int) -> str:
    """Return the name that interface number INDEX has by now; empty when it is gone.

    It opens a socket, since another may be in the middle of a dump.
    """
    asking = Rtnl()
    try:
        return asking.index_name(index)
    finally:
        asking.close()


def _bridge_info(
    stp: bool,  # noqa: FBT001
    forward_delay: int,
    hello_time: int,
    *,
    snooping: bool = True,
) -> bytes:
    """Encode a bridge's STP and times; negative ones are left out."""
    data = attribute(IFLA_BR_STP_STATE, struct.pack("=I", int(stp)))
    if forward_delay >= 0:
        data += attribute(IFLA_BR_FORWARD_DELAY, struct.pack("=I", forward_delay * USER_HZ))
    if hello_time >= 0:
        data += attribute(IFLA_BR_HELLO_TIME, struct.pack("=I", hello_time * USER_HZ))
    if not snooping:
        data += attribute(IFLA_BR_MCAST_SNOOPING, b"\0")
    info = attribute(IFLA_INFO_KIND, b"bridge") + attribute(IFLA_INFO_DATA, data)
    return attribute(IFLA_LINKINFO, info)


def _filter(block: int, priority: int, handle: int) -> bytes:
    """Encode the header that identifies a program in a filter block."""
    head = _TCMSG.pack(0, BLOCK, handle, block, priority << 16 | ETH_P_ALL)
    return head + attribute(TCA_KIND, b"bpf\0")


def _program(program: bytes) -> bytes:
    """Encode a classic BPF program that returns verdicts (direct action)."""
    options = attribute(TCA_BPF_OPS_LEN, struct.pack("=H", len(program) // 8))
    options += attribute(TCA_BPF_OPS, program)
    options += attribute(TCA_BPF_FLAGS, struct.pack("=I", TCA_BPF_FLAG_ACT_DIRECT))
    return attribute(TCA_OPTIONS, options)


def _family_spec(spec: bytes) -> bytes:
    """Encode an interface's attributes of an address family."""
    return attribute(IFLA_AF_SPEC, spec)


def _address(index: int, address: bytes, length: int, flags: int = 0) -> bytes:
    """Encode an interface's address."""
    family = _socket.AF_INET if len(address) == 4 else _socket.AF_INET6
    head = _IFADDR.pack(family, length, flags, 0, index)
    return head + attribute(IFA_LOCAL, address) + attribute(IFA_ADDRESS, address)


def out_devices(route: dict[int, bytes]) -> list[int]:
    """Return the ifindexes of a route's devices; several for a multipath route."""
    if RTA_OIF in route:
        return [u32(route[RTA_OIF])]
    hops = route.get(RTA_MULTIPATH, b"")
    found, at = [], 0
    while at + 8 <= len(hops):  # struct rtnexthop
        size, _, _, index = struct.unpack_from("=HBBi", hops, at)
        found.append(index)
        at += max(size, 8) + 3 & ~3
    return found


def _is_isolated(info: dict[int, bytes]) -> bool:
    """Whether an interface's IFLA_LINKINFO is that of an isolated port."""
    if info.get(IFLA_INFO_SLAVE_KIND, b"").rstrip(b"\0") != b"bridge":
        return False
    port = dict(attributes(info.get(IFLA_INFO_SLAVE_DATA, b""), 0))
    return port.get(IFLA_BRPORT_ISOLATED) == b"\1"


def _read_link(body: bytes) -> Link:
    """Decode the body of an RTM_NEWLINK message."""
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body, _IFINFO.size))
    info = dict(attributes(found.get(IFLA_LINKINFO, b""), 0))
    return Link(
        index,
        found[IFLA_IFNAME].rstrip(b"\0").decode("utf-8", "surrogateescape"),
        found.get(IFLA_ADDRESS, b""),
        u32(found[IFLA_MTU]),
        info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        u32(found.get(IFLA_MASTER, bytes(4))),
        bool(flags & IFF_UP),
        found.get(IFLA_CARRIER) == b"\1",
        _is_isolated(info),
        found.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode("utf-8", "replace"),
    )
