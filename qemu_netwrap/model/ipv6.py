"""IPv6 prefixes as integers, and the IPv6 facts of a host that a network needs.

Enough to choose a /64 and format addresses in it; `ipaddress` would cost a launch 4 ms.
"""

from __future__ import annotations

import zlib

from qemu_netwrap import model
from qemu_netwrap.record import Record

LENGTH = 64  # the prefix length that SLAAC needs (RFC 4862)
ULA = 0xFD << 120  # fd00::/8: prefixes that a site may choose for itself (RFC 4193)
SMALLEST_MTU = 1280  # of a link that carries IPv6 (RFC 8200)


class Prefix(Record):
    """An IPv6 network: its address as an integer and its prefix length."""

    network: int
    length: int = LENGTH

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Return the network `fd12:3456:789a:1::/64`. Raises `ValueError` with the reason."""
        return cls(*model.ipv6_text.network(text))

    @classmethod
    def parse_around(cls, address: str) -> Prefix:
        """Return the network of `fd12:3456:789a:1::1/64`."""
        return cls(*model.ipv6_text.network_around(address))

    @classmethod
    def derive(cls, machine: str, name: str, attempt: int = 0) -> Prefix:
        """Return the ULA prefix of the network NAME on a host; it is always the same.

        The host has its own /48, and the network a /64 in it, a different one for each ATTEMPT.
        """
        site = _crc("ula", machine) << 8 | _crc("ula", machine, "more") & 0xFF
        number = (_crc(name) + attempt) & 0xFFFF
        return cls(ULA | site << 80 | number << 64)

    @property
    def gateway(self) -> str:
        """The gateway's address."""
        return self.host(1)

    @property
    def text(self) -> str:
        """The network's address without its length."""
        return self.host(0)

    def host(self, number: int) -> str:
        """Return the address of host NUMBER, counted from the network's address."""
        return format_address(self.network + number)

    def of_mac(self, mac: str) -> str:
        """Return the address that SLAAC derives from a MAC (RFC 4291, modified EUI-64)."""
        raw = bytes.fromhex(mac.replace(":", ""))
        return self.host(
            int.from_bytes(bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:])), "big")
        )

    def guest_fault(self, address: str) -> str:
        """Return why ADDRESS cannot be a guest's here; "" if it can."""
        number = model.ipv6_text.number(address) - self.network
        if number == 1:
            return f"{address} is the gateway's"
        return "" if 1 < number < 1 << 128 - self.length else f"{address} is not in {self}"

    def overlaps(self, other: Prefix) -> bool:
        """Whether one of the two contains the other."""
        beyond = 128 - min(self.length, other.length)
        return self.network >> beyond == other.network >> beyond

    def __str__(self) -> str:
        """`fd12:3456:789a:1::/64`."""
        return f"{self.text}/{self.length}"


class Route6(Record):
    """One IPv6 unicast route: its destination, device and table (254 is main)."""

    prefix: Prefix
    device: str
    table: int = 254
    learned: bool = False  # the kernel learned it from a router advertisement

    def __str__(self) -> str:
        """Return the route as `ip -6 route` prints it."""
        where = str(self.prefix) if self.prefix.length else "default"
        table = "" if self.table == 254 else f" table {self.table}"
        return f"{where} dev {self.device}{table}"


class Ipv6Facts(Record):
    """The facts about the host's IPv6 that are needed to create one network."""

    missing: str = ""  # why the host has no IPv6; empty if it has
    routes: tuple[Route6, ...] = ()
    by_device: bool = True  # forwarding can be enabled per device (Linux 6.17)
    is_router: bool = False  # another program has enabled forwarding on the host
    routers: tuple[str, ...] = ()  # devices on which another program enabled forwarding
    is_fixed: bool = False  # sysctls cannot be set: /proc/sys is read-only
    listeners: tuple[str, ...] = ()  # devices that use router advertisements, and could lose that


def format_address(address: int) -> str:
    """Return an address as RFC 5952 requires: the longest run of zeros becomes `::`."""
    groups = [f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]
    start, length, at = 0, 0, 0
    while at < len(groups):
        end = at
        while end < len(groups) and groups[end] == "0":
            end += 1
        if end - at > max(length, 1):
            start, length = at, end - at
        at = max(end, at + 1)
    if not length:
        return ":".join(groups)
    return f"{':'.join(groups[:start])}::{':'.join(groups[start + length :])}"


def _crc(*key: str) -> int:
    """Return 32 bits that are always the same for KEY."""
    return zlib.crc32("\0".join(key).encode("utf-8", "surrogateescape"))
