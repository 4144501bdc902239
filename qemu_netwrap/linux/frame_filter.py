"""Filters of the frames that guests send: classic BPF programs for tc(8).

A network has a filter block (tc(8), ingress_block). Its first program drops what no guest may send,
accepts most of the rest, and passes ARP and neighbor discovery on to the claims: one program for
each guest whose addresses are its own. Offsets count from the Ethernet header; the kernel has
removed one VLAN tag by then (net/core/dev.c, `__netif_receive_skb_core`). A frame that ends before
a load is accepted, since no receiver takes it for what it pretends to be.
"""

from __future__ import annotations

import zlib

from qemu_netwrap.linux.bpf import assemble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.bpf import Line

LINK_LOCAL = bytes((0xFE, 0x80, *bytes(6)))
PASS, DROP, NEXT = 0, 2, 0xFFFFFFFF  # TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC
ARP, IPV4, IPV6, VLAN, QINQ = 0x0806, 0x0800, 0x86DD, 0x8100, 0x88A8
ICMP, UDP, FRAGMENT, ICMPV6, AUTHENTICATION = 1, 17, 44, 58, 51
REDIRECT4 = 5
_EXTENSIONS = (0, 43, 60)  # hop-by-hop and destination options, routing (RFC 8200)
_MOST_EXTENSIONS = 4
ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT = 133, 134
NEIGHBOR_SOLICITATION, NEIGHBOR_ADVERTISEMENT, REDIRECT = 135, 136, 137
_ARP_OF_IPV4 = IPV4 << 16 | 0x0604  # protocol, and the lengths of a MAC and an IPv4 address
# Offsets of IPv6's source and payload, and of the target of an advertisement.
_SOURCE6, _HEADER6, _TARGET6 = 22, 54, 62


def block(bridge: str) -> int:
    """Return the number of the filter block of the network on BRIDGE."""
    return zlib.crc32(bridge.encode("utf-8", "surrogateescape")) >> 1 | 1


def claim_handle(mac: bytes) -> int:
    """Return the number of a MAC's claim in its block."""
    return zlib.crc32(mac) or 1


def interface_id(mac: bytes) -> bytes:
    """Return the 8-byte interface identifier that SLAAC derives from a MAC (RFC 4291, EUI-64)."""
    return bytes((mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]))


def claim(mac: bytes, address: bytes, address6: bytes) -> bytes:
    """Return the program that lets only MAC use an IPv4 and an IPv6 address (each b"" for none).

    And the IPv6 addresses that SLAAC derives from the MAC. Other guests may not probe for them
    either: a guest that probes at the same time would give them up (RFC 5227, RFC 4862).
    """
    own = [interface_id(mac)]
    own += [] if address6.endswith(own[0]) or not address6 else [address6]
    arp: list[Line] = [
        ("ld", 28, "", ""),
        ("jeq", _number(address), "mine", ""),
        ("jeq", 0, "", "next"),
        ("ld", 38, "", ""),
        ("jeq", _number(address), "mine", "next"),
    ]
    return assemble(
        [
            ("ldh", 12, "", ""),
            ("jeq", IPV6, "ip6", ""),
            *(arp if address else []),
            ("ja", 0, "next", ""),
            "ip6",
            ("ldb", _HEADER6, "", ""),
            ("jeq", NEIGHBOR_ADVERTISEMENT, "target", ""),
            ("jeq", NEIGHBOR_SOLICITATION, "", "source"),
            *_from_unspecified("target", "source"),
            "target",
            *(line for end in own for line in _ends_with(end, _TARGET6, "mine")),
            ("ja", 0, "next", ""),
            "source",
            *(line for end in own for line in _ends_with(end, _SOURCE6, "mine")),
            ("ja", 0, "next", ""),
            "mine",
            ("ld", 6, "", ""),
            ("jeq", _number(mac[:4]), "", "drop"),
            ("ldh", 10, "", ""),
            ("jeq", _number(mac[4:]), "next", "drop"),
            *_ENDS,
        ]
    )


def guard(gateways: list[bytes]) -> bytes:
    """Return the program that drops what no guest may send; GATEWAYS are packed IP addresses."""
    four = [address for address in gateways if len(address) == 4]
    six = [address for address in gateways if len(address) == 16]
    is_gateway: list[Line] = [("jeq", _number(address), "drop", "") for address in four]
    return assemble(
        [
            ("ldh", 12, "", ""),
            ("jeq", IPV4, "ip4", ""),
            ("jeq", IPV6, "ip6", ""),
            ("jeq", ARP, "arp", ""),
            # Linux removes any number of tags without a VLAN id, one after the other.
            ("jeq", VLAN, "drop", ""),
            ("jeq", QINQ, "drop", "pass"),
            "arp",
            ("ld", 16, "", ""),
            ("jeq", _ARP_OF_IPV4, "", "drop"),
            ("ld", 28, "", ""),
            *is_gateway,
            ("ja", 0, "next", ""),
            "ip4",
            ("ld", 26, "", ""),
            *is_gateway,
            *_DHCP,
            *icmp4("pass"),
            *_extensions(),
            *_neighbor_discovery(six),
            *_DHCP6,
            *_FRAGMENTS6,
            *_ENDS,
        ]
    )


_ENDS: list[Line] = [
    *("pass", ("ret", PASS, "", "")),
    *("drop", ("ret", DROP, "", "")),
    *("next", ("ret", NEXT, "", "")),
]
# No DHCP server and no relay. A client only with its source MAC, and not in fragments.
_DHCP: list[Line] = [
    ("ldb", 23, "", ""),
    ("jeq", ICMP, "icmp4", ""),
    ("jeq", UDP, "", "pass"),
    ("ldh", 20, "", ""),
    ("jset", 0x1FFF, "pass", ""),  # a later fragment: the first has the ports
    ("ldx_ihl", 14, "", ""),
    ("ldh_x", 14, "", ""),
    ("jeq", 67, "drop", ""),
    ("ldh_x", 16, "", ""),
    ("jeq", 68, "drop", ""),
    ("jeq", 67, "", "pass"),
    ("ldh", 20, "", ""),
    ("jset", 0x2000, "drop", ""),
    ("ldh_x", 23, "", ""),
    ("jeq", 0x0106, "", "drop"),  # Ethernet, six bytes
    ("ld_x", 46, "", ""),
    ("jeq", 0, "", "drop"),
    ("ld", 6, "", ""),
    ("st", 0, "", ""),
    ("ldh", 10, "", ""),
    ("st", 1, "", ""),
    ("ld_x", 50, "", ""),
    ("ldx_mem", 0, "", ""),
    ("jeq_x", 0, "", "drop"),
    ("ldx_ihl", 14, "", ""),
    ("ldh_x", 54, "", ""),
    ("ldx_mem", 1, "", ""),
    ("jeq_x", 0, "pass", "drop"),
]
_DHCP6: list[Line] = [
    "udp6",
    ("ldh_x", 0, "", ""),
    ("jeq", 547, "drop", ""),
    ("ldh_x", 2, "", ""),
    ("jeq", 546, "drop", ""),
    ("jeq", 547, "", "pass"),
    ("ldb_x", 8, "", ""),
    ("jeq", 12, "drop", ""),  # a relay's messages, which may name any client's MAC (RFC 6939)
    ("jeq", 13, "drop", "pass"),
]
# Neighbor discovery is never fragmented (RFC 6980); nor may more headers follow a fragment's.
_FRAGMENTS6: list[Line] = [
    "fragment",
    ("ldh_x", 2, "", ""),
    ("jset", 0xFFF8, "pass", ""),
    ("ldb_x", 0, "", ""),
    *(("jeq", kind, "drop", "") for kind in (*_EXTENSIONS, FRAGMENT, AUTHENTICATION)),
    ("jeq", UDP, "fragment_udp", ""),
    ("jeq", ICMPV6, "", "pass"),
    ("ldb_x", 8, "", ""),
    ("jge", ROUTER_SOLICITATION, "", "pass"),
    ("jgt", REDIRECT, "pass", "drop"),
    "fragment_udp",
    ("ldh_x", 8, "", ""),
    ("jeq", 547, "drop", ""),
    ("ldh_x", 10, "", ""),
    ("jeq", 546, "drop", ""),
    ("jeq", 547, "drop", "pass"),
]


def icmp4(other: str) -> list[Line]:
    """Return lines that drop IPv4 redirects, which change routes; all else goes to OTHER."""
    return [
        "icmp4",
        ("ldh", 20, "", ""),
        ("jset", 0x1FFF, other, ""),  # a later fragment
        ("ldx_ihl", 14, "", ""),
        ("ldb_x", 14, "", ""),
        ("jeq", REDIRECT4, "drop", other),
    ]


def _extensions() -> list[Line]:
    """Return lines that walk IPv6's extension headers: X is the offset of the next header."""
    found: list[Line] = ["ip6", ("ldx", _HEADER6, "", ""), ("ldb", 20, "", "")]
    for number in range(_MOST_EXTENSIONS):
        extension, authentication, step = (f"{n}{number}" for n in ("extension", "ah", "step"))
        found += [
            ("jeq", ICMPV6, "late_icmp6" if number else "icmp6", ""),
            ("jeq", UDP, "udp6", ""),
            ("jeq", FRAGMENT, "fragment", ""),
            ("jeq", AUTHENTICATION, authentication, ""),
            *(("jeq", kind, extension, "") for kind in _EXTENSIONS[:-1]),
            ("jeq", _EXTENSIONS[-1], extension, "pass"),
            authentication,
            *(("ldb_x", 0, "", ""), ("st", 2, "", ""), ("ldb_x", 1, "", "")),
            *(("add", 2, "", ""), ("lsh", 2, "", ""), ("ja", 0, step, "")),
            extension,
            *(("ldb_x", 0, "", ""), ("st", 2, "", ""), ("ldb_x", 1, "", "")),
            *(("add", 1, "", ""), ("lsh", 3, "", "")),
            step,
            *(("add_x", 0, "", ""), ("tax", 0, "", ""), ("ld_mem", 2, "", "")),
        ]
    return [*found, ("ja", 0, "drop", "")]


def _neighbor_discovery(gateways: list[bytes]) -> list[Line]:
    """Return lines that drop claims to be a router, or to have a gateway's address."""
    return [
        "late_icmp6",
        ("ldb_x", 0, "", ""),
        ("jge", ROUTER_SOLICITATION, "", "pass"),
        ("jgt", REDIRECT, "pass", "drop"),
        "icmp6",
        ("ldb", _HEADER6, "", ""),
        ("jeq", ROUTER_ADVERTISEMENT, "drop", ""),
        ("jeq", REDIRECT, "drop", ""),
        ("jeq", ROUTER_SOLICITATION, "solicitation", ""),
        ("jeq", NEIGHBOR_SOLICITATION, "solicitation", ""),
        ("jeq", NEIGHBOR_ADVERTISEMENT, "", "pass"),
        *(line for address in gateways for line in _ends_with(address, _TARGET6, "drop")),
        ("ja", 0, "next", ""),
        "solicitation",
        *(line for address in gateways for line in _ends_with(address, _SOURCE6, "drop")),
        ("ja", 0, "next", ""),
    ]


def _from_unspecified(yes: str, no: str) -> list[Line]:
    """Return jumps to YES if the last 8 bytes of the IPv6 source are 0, as of ::; else to NO."""
    return [
        ("ld", _SOURCE6 + 8, "", ""),
        ("jeq", 0, "", no),
        ("ld", _SOURCE6 + 12, "", ""),
        ("jeq", 0, yes, no),
    ]


def _ends_with(end: bytes, at: int, target: str) -> list[Line]:
    """Return lines that jump to TARGET if the IPv6 address AT an offset ends with END."""
    label = f"not {end.hex()} at {at}"
    found: list[Line] = []
    for place in range(0, len(end), 4):
        is_last = place + 4 == len(end)
        word = _number(end[place : place + 4])
        found += [
            ("ld", at + 16 - len(end) + place, "", ""),
            ("jeq", word, target if is_last else "", label),
        ]
    return [*found, label]


def _number(raw: bytes) -> int:
    """Read a number as it stands in a frame."""
    return int.from_bytes(raw, "big")
