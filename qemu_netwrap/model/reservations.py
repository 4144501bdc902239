"""Addresses reserved for guests of a nat or host-only network, by MAC or by the guest's name.

Such an address is not leased to other guests. dnsmasq accepts one that is in the subnet, even if
it is outside of the ranges for the others (dnsmasq(8), --dhcp-host).
"""

from __future__ import annotations

import zlib

from qemu_netwrap.model import mac as macs
from qemu_netwrap.model import names
from qemu_netwrap.model.ipv4 import Subnet, format_address, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from qemu_netwrap.model.network import Network

FIRST_GUEST = 2  # the network's first address is the gateway's


def read(value: object) -> tuple[tuple[str, str], ...]:
    """Return a table as (MAC or name, address) pairs. Raises `ValueError` with the reason."""
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        msg = 'expected MACs or names with addresses, like { web = "192.168.0.9" }'
        raise ValueError(msg)
    found = [(_whose(key), format_address(parse_address(text))) for key, text in value.items()]
    for column in zip(*found, strict=True):
        twin = next((each for each in column if column.count(each) > 1), "")
        if twin:
            raise ValueError(f"{twin} is there twice")
    return tuple(found)


def _whose(key: str) -> str:
    """Return KEY: a MAC in the kernel's form, or a guest's DNS label. Raises `ValueError`."""
    if ":" in key:
        mac = macs.parse(key, strict=True)
        if not mac or int(mac[:2], 16) & 1:
            raise ValueError(f"{key!r} is no MAC that a NIC can have")
        return mac
    if not key or key != names.host_label(key):
        raise ValueError(f"{key!r} is neither a MAC nor a guest's name: lower case, digits and -")
    return key


def fault(network: Network) -> str:
    """Return what is wrong with a network's addresses, given its subnet; "" if nothing is."""
    if not network.addresses:
        return ""
    if network.subnet is None:
        return "they need a subnet that does not change: give the network one by subnet"
    wrong = (guest_fault(address, network.subnet) for _, address in network.addresses)
    return next(filter(None, wrong), "")


def guest_fault(address: str, subnet: Subnet) -> str:
    """Return why ADDRESS cannot be a guest's in SUBNET; "" if it can."""
    number = parse_address(address) - subnet.network
    if number == 1:
        return f"{address} is the gateway's"
    if not FIRST_GUEST <= number < FIRST_GUEST + _count(subnet):
        return f"{address} is none of {subnet.host(FIRST_GUEST)} to {subnet.last}"
    return ""


def configured(network: Network, mac: str, name: str) -> str:
    """Return the address reserved for a NIC, by its MAC or else its name; "" if none is."""
    given = dict(network.addresses)
    return given.get(mac) or (given.get(name, "") if name else "")


def ranges(network: Network, subnet: Subnet) -> Iterator[tuple[str, str]]:
    """Yield the ranges (first, last) of SUBNET that are leased: without reserved addresses."""
    apart = sorted({parse_address(address) for _, address in network.addresses})
    start, end = subnet.network + FIRST_GUEST, subnet.network + FIRST_GUEST + _count(subnet)
    for each in (*apart, end):
        if start < each:
            yield format_address(start), format_address(each - 1)
        start = each + 1


def choose(mac: str, subnet: Subnet, taken: Container[str]) -> str:
    """Return a free address for MAC, always the same one if that is free; "" if all are TAKEN."""
    count = _count(subnet)
    start = zlib.crc32(mac.encode()) % count
    numbers = ((start + step) % count for step in range(count))
    found = (subnet.host(FIRST_GUEST + number) for number in numbers)
    return next((address for address in found if address not in taken), "")


def _count(subnet: Subnet) -> int:
    """Return how many guests a subnet has addresses for."""
    return (1 << 32 - subnet.length) - 1 - FIRST_GUEST
