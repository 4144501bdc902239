"""Which address the answer to a datagram leaves from."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest

from qemu_netwrap.linux.udp_relay import source_of_answers

IP_PKTINFO = 8
ETH0 = struct.pack("=I", 2)
NONE = bytes(4)


def test_ipv4() -> None:
    """The local address, which is not that of the header in a broadcast."""
    local, header = (ipaddress.IPv4Address(a).packed for a in ("192.0.2.1", "192.0.2.255"))
    came = (socket.IPPROTO_IP, IP_PKTINFO, ETH0 + local + header)
    assert source_of_answers([came]) == ((socket.IPPROTO_IP, IP_PKTINFO, NONE + local + NONE),)


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("2001:db8::1", NONE),
        ("::ffff:192.0.2.1", NONE),
        ("fec0::1", NONE),
        ("fe80::1", ETH0),
        ("febf::1", ETH0),
    ],
)
def test_ipv6(address: str, interface: bytes) -> None:
    """Only an address of one link is bound to it."""
    local = ipaddress.IPv6Address(address).packed
    level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
    assert source_of_answers([(level, kind, local + ETH0)]) == ((level, kind, local + interface),)


def test_nothing_known() -> None:
    """Or another message: the kernel chooses."""
    assert source_of_answers([]) == ()
    assert source_of_answers([(socket.SOL_SOCKET, 29, bytes(16))]) == ()
