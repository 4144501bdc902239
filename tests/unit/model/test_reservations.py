"""Addresses that guests have alone: which are left for the others, and which one is chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_netwrap.model import reservations
from qemu_netwrap.model.ipv4 import Subnet, format_address, parse_address
from qemu_netwrap.model.network import Network

SUBNET = Subnet.parse("10.0.0.0/28")
GUESTS = [f"10.0.0.{number}" for number in range(2, 15)]


def network(*addresses: str) -> Network:
    named = tuple((f"vm{number}", address) for number, address in enumerate(addresses))
    return Network("lab", "nat", "qn-lab", SUBNET, addresses=named)


@given(st.sets(st.sampled_from(GUESTS)))
def test_ranges_are_what_nobody_has_alone(own: set[str]) -> None:
    left = [
        format_address(number)
        for first, last in reservations.ranges(network(*own), SUBNET)
        for number in range(parse_address(first), parse_address(last) + 1)
    ]
    assert left == [address for address in GUESTS if address not in own]


@given(st.sets(st.sampled_from(GUESTS)), st.text())
def test_a_free_address_is_found_if_there_is_one(taken: set[str], mac: str) -> None:
    found = reservations.choose(mac, SUBNET, taken)
    assert found in (set(GUESTS) - taken or {""})
    assert found == reservations.choose(mac, SUBNET, taken)


def test_addresses_differ_by_mac() -> None:
    wide = Subnet.parse("10.0.0.0/24")
    macs = [f"52:54:00:00:00:{number:02x}" for number in range(64)]
    assert len({reservations.choose(mac, wide, ()) for mac in macs}) > 48


@pytest.mark.parametrize(
    ("mac", "name", "address"),
    [
        ("52:54:00:00:00:01", "web", "10.0.0.2"),
        ("52:54:00:00:00:02", "web", "10.0.0.3"),
        ("52:54:00:00:00:02", "", ""),
        ("52:54:00:00:00:02", "db", ""),
    ],
)
def test_a_mac_goes_before_a_name(mac: str, name: str, address: str) -> None:
    addresses = (("52:54:00:00:00:01", "10.0.0.2"), ("web", "10.0.0.3"))
    lab = Network("lab", "nat", "qn-lab", SUBNET, addresses=addresses)
    assert reservations.configured(lab, mac, name) == address
