"""IPv6 addresses as text, read by `ipaddress`: apart from `ipv6`, for it costs a launch 4 ms."""

from __future__ import annotations

import ipaddress


def network(text: str) -> tuple[int, int]:
    """Read `fd12::/64` as its address and its length. Raises `ValueError` with what is wrong."""
    found = ipaddress.IPv6Network(text)
    return int(found.network_address), found.prefixlen


def network_around(address: str) -> tuple[int, int]:
    """Return the network of `fd12::1/64`, as `network` does. Raises `ValueError`."""
    found = ipaddress.IPv6Interface(address).network
    return int(found.network_address), found.prefixlen


def number(address: str) -> int:
    """Return an address as an integer. Raises `ValueError`."""
    return int(ipaddress.IPv6Address(address))
