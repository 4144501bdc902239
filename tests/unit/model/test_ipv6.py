"""IPv6 prefixes against the standard library's, and how a network gets one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.model import ipv6
from qemu_netwrap.model.ipv6 import Prefix

ADDRESSES = st.one_of(
    st.integers(0, 2**128 - 1),
    # With zeros in many places.
    st.lists(st.sampled_from([0, 0, 1, 0xFFFF]), min_size=8, max_size=8).map(
        lambda groups: int.from_bytes(b"".join(g.to_bytes(2, "big") for g in groups), "big")
    ),
)
PREFIXES = st.builds(
    lambda address, length: Prefix(address >> 128 - length << 128 - length, length),
    ADDRESSES,
    st.integers(0, 128),
)


@given(ADDRESSES)
def test_addresses_are_written_as_the_kernel_does(address: int) -> None:
    expected = str(ipaddress.IPv6Address(address))
    # Those that hold an IPv4 address may be written with dots.
    assert ipaddress.IPv6Address(ipv6.format_address(address)) == ipaddress.IPv6Address(address)
    if "." not in expected:
        assert ipv6.format_address(address) == expected


@given(PREFIXES, PREFIXES)
def test_prefixes(one: Prefix, other: Prefix) -> None:
    networks = [ipaddress.IPv6Network((p.network, p.length)) for p in (one, other)]
    assert one.overlaps(other) == networks[0].overlaps(networks[1])
    assert Prefix.parse(str(one)) == one


@given(st.text(min_size=1), st.text(), st.integers(0, 100))
def test_derived_prefixes_are_of_the_hosts_own_48(machine: str, name: str, attempt: int) -> None:
    prefix = Prefix.derive(machine, name, attempt)
    assert prefix == Prefix.derive(machine, name, attempt)
    assert prefix != Prefix.derive(machine, name, attempt + 1)
    network = ipaddress.IPv6Network(str(prefix))
    assert network.subnet_of(ipaddress.IPv6Network("fd00::/8"))
    site = ipaddress.IPv6Network((Prefix.derive(machine, "").network, 48), strict=False)
    assert network.subnet_of(site)


def test_hosts_differ() -> None:
    assert len({Prefix.derive(str(n), "nat") for n in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("mac", "address"),
    [
        ("52:54:00:12:34:56", "fd00::5054:ff:fe12:3456"),
        ("00:00:00:00:00:01", "fd00::200:ff:fe00:1"),
    ],
)
def test_address_of_a_mac(mac: str, address: str) -> None:
    assert Prefix.parse("fd00::/64").of_mac(mac) == address
