"""Frames as a hostile guest makes them, byte by byte."""

from __future__ import annotations

import socket
import struct
from typing import Final

EVERYBODY: Final = "ff:ff:ff:ff:ff:ff"
ALL_NODES: Final = "ff02::1"
ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
UDP: Final = 17
ICMPV6: Final = 58
FRAGMENT: Final = 44
DESTINATION_OPTIONS: Final = 60
ROUTER_SOLICITATION: Final = 133
ROUTER_ADVERTISEMENT: Final = 134
NEIGHBOR_SOLICITATION: Final = 135
NEIGHBOR_ADVERTISEMENT: Final = 136
REDIRECT: Final = 137


def raw(mac: str) -> bytes:
    """The bytes of a MAC."""
    return bytes.fromhex(mac.replace(":", ""))


def ip(address: str) -> bytes:
    """The bytes of an address of either family."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def slaac(prefix: str, mac: str) -> str:
    """The address that SLAAC makes of a MAC in a /64."""
    own = raw(mac)
    end = bytes((own[0] ^ 2, *own[1:3], 0xFF, 0xFE, *own[3:]))
    return socket.inet_ntop(socket.AF_INET6, ip(prefix)[:8] + end)


def checksum(data: bytes) -> int:
    """The internet's checksum."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source: str, kind: int, payload: bytes, target: str = EVERYBODY) -> bytes:
    """A frame."""
    return raw(target) + raw(source) + struct.pack("!H", kind) + payload


def tagged(frame: bytes, *vlans: int) -> bytes:
    """The frame with VLAN tags, the outer one first."""
    tags = b"".join(struct.pack("!HH", 0x8100, vlan) for vlan in vlans)
    return frame[:12] + tags + frame[12:]


def arp(source: str, sender: str, wanted: str, kind: int = ARP_REQUEST) -> bytes:
    """ARP from a MAC that says it has the address SENDER."""
    words = struct.pack("!HHBBH", 1, 0x0800, 6, 4, kind)
    return ethernet(source, 0x0806, words + raw(source) + ip(sender) + bytes(6) + ip(wanted))


def ipv4(
    source: str,
    sender: str,
    target: str,
    payload: bytes,
    protocol: int = UDP,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """A packet in a frame; FRAGMENT is the field of flags and offset."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(payload), 7, fragment, 64, protocol, 0,
        ip(sender), ip(target),
    )  # fmt: skip
    head += options
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return ethernet(source, 0x0800, head + payload)


def udp(source: int, target: int, payload: bytes) -> bytes:
    """A datagram without a checksum."""
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def bootp(client: str, kind: int, more: bytes = b"", op: int = 1, hlen: int = 6) -> bytes:
    """A DHCP message of a KIND from or for a client's MAC."""
    head = struct.pack("!BBBBI", op, 1, hlen, 0, 0x13) + bytes(20)
    options = bytes((0x63, 0x82, 0x53, 0x63, 53, 1, kind)) + more + b"\xff"
    return head + raw(client) + bytes(10 + 192) + options


def discover(source: str, client: str, hlen: int = 6) -> bytes:
    """A client's question for an address."""
    asked = udp(68, 67, bootp(client, 1, hlen=hlen))
    return ipv4(source, "0.0.0.0", "255.255.255.255", asked)  # noqa: S104 - the unspecified one


def request(source: str, client: str, address: str) -> bytes:
    """A client's request for one."""
    asked = udp(68, 67, bootp(client, 3, bytes((50, 4)) + ip(address)))
    return ipv4(source, "0.0.0.0", "255.255.255.255", asked)  # noqa: S104


def ipv6(source: str, sender: str, target: str, payload: bytes, header: int = ICMPV6) -> bytes:
    """A packet in a frame."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), header, 255) + ip(sender) + ip(target)
    return ethernet(source, 0x86DD, head + payload, "33:33:00:00:00:01")


def request6(source: str, sender: str, number: int, server: bytes) -> bytes:
    """A request by DHCPv6 of a client that is known by a NUMBER, to the server of a DUID."""
    client = b"\0\3\0\1" + number.to_bytes(6, "big")
    options = ((1, client), (2, server), (3, number.to_bytes(4, "big") + bytes(8)))
    body = b"\3" + number.to_bytes(3, "big")
    body += b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in options)
    target = "ff02::1:2"
    datagram = struct.pack("!HHHH", 546, 547, 8 + len(body), 0) + body
    pseudo = ip(sender) + ip(target) + struct.pack("!II", len(datagram), UDP)
    found = struct.pack("!H", checksum(pseudo + datagram))
    return ipv6(source, sender, target, datagram[:6] + found + datagram[8:], UDP)


def icmp6(sender: str, target: str, kind: int, body: bytes) -> bytes:
    """A message with its checksum; BODY begins behind that."""
    message = bytes((kind, 0, 0, 0)) + body
    pseudo = ip(sender) + ip(target) + struct.pack("!II", len(message), ICMPV6)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def advertisement(source: str, address: str, target: str = ALL_NODES) -> bytes:
    """A neighbor advertisement: ADDRESS is at the MAC that sends it."""
    body = bytes((0x20, 0, 0, 0)) + ip(address) + bytes((2, 1)) + raw(source)
    return ipv6(source, address, target, icmp6(address, target, NEIGHBOR_ADVERTISEMENT, body))


def solicitation(source: str, address: str, target: str) -> bytes:
    """A neighbor solicitation, by which who asks tells its own address and MAC."""
    body = bytes(4) + ip(target) + bytes((1, 1)) + raw(source)
    message = icmp6(address, ALL_NODES, NEIGHBOR_SOLICITATION, body)
    return ipv6(source, address, ALL_NODES, message)


def solicited(address: str) -> str:
    """The multicast address at which who has an IPv6 ADDRESS is asked."""
    return socket.inet_ntop(socket.AF_INET6, ip("ff02::1:ff00:0")[:13] + ip(address)[13:])


def looking(source: str, address: str) -> bytes:
    """A look whether somebody has an IPv6 address: a solicitation of nobody's."""
    target = solicited(address)
    message = icmp6("::", target, NEIGHBOR_SOLICITATION, bytes(4) + ip(address))
    return ipv6(source, "::", target, message)


def query(source: str, sender: str) -> bytes:
    """A question of a multicast router's, who wants what: answer in a millisecond (MLDv2)."""
    body = struct.pack("!HH", 1, 0) + ip("::") + bytes((2, 125, 0, 0))
    hop_by_hop = bytes((ICMPV6, 0, 5, 2, 0, 0, 1, 0))  # router alert
    frame = ipv6(source, sender, ALL_NODES, hop_by_hop + icmp6(sender, ALL_NODES, 130, body), 0)
    return frame[:21] + b"\1" + frame[22:]  # the hop limit


def router(sender: str) -> bytes:
    """A router advertisement, without its packet."""
    return icmp6(sender, ALL_NODES, ROUTER_ADVERTISEMENT, bytes((64, 8, 7, 8)) + bytes(8))


def behind(message: bytes, *headers: int) -> bytes:
    """A message of ICMPv6 behind extension headers of 8 bytes each, without the first's number."""
    following = [*headers[1:], ICMPV6]
    pad = bytes((0, 1, 4, 0, 0, 0, 0))
    found = b""
    for header, after in zip(headers, following, strict=True):
        rest = bytes(7) if header == FRAGMENT else pad
        found += bytes((after,)) + rest
    return found + message
