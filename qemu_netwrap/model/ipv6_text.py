"""IPv6 addresses parsed by `ipaddress`: not in `ipv6`, as that import costs a launch 4 ms."""

from __future__ import annotations

import ipaddress


def network(text: str) -> tuple[int, int]:
    """Return (address, prefix length) of `fd12::/64`. Raises `ValueError` with the reason."""
    found = ipaddress.IPv6Network(text)
    return int(found.network_address), found.prefixlen


def network_around(address: str) -> tuple[int, int]:
    """Return the network around `fd12::1/64`, as `network` does. Raises `ValueError`."""
    found = ipaddress.IPv6Interface(address).network
    return int(found.network_address), found.prefixlen


def number(address: str) -> int:
    """Return an address as an integer. Raises `ValueError`."""
    return int(ipaddress.IPv6Address(address))
