"""IPv4 networks as integers: (network, prefix length). Enough to choose a subnet.

`ipaddress` can do this too, but its import would cost a launch 4 ms.
"""

from __future__ import annotations

from qemu_netwrap.record import Record

_DIGITS = 16  # more than a number in an address has


class Subnet(Record):
    """An IPv4 network: its address as an integer and its prefix length."""

    network: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Subnet:
        """Return the network `192.168.0.0/24`. Raises `ValueError` that says what is wrong."""
        address, slash, length = text.partition("/")
        if not slash or not _is_number(length) or int(length) > 32:
            msg = "expected a network like 192.168.0.0/24"
            raise ValueError(msg)
        subnet = cls(parse_address(address), int(length))
        if subnet.network & ~subnet.mask & 0xFFFFFFFF:
            msg = (
                f"has host bits set; the network is {format_address(subnet.network & subnet.mask)}"
            )
            raise ValueError(f"{msg}/{length}")
        return subnet

    @classmethod
    def around(cls, address: str) -> Subnet:
        """Return the subnet of an address with its prefix length, `192.168.0.1/24` say."""
        host, _, length = address.partition("/")
        whole = cls(parse_address(host), int(length))
        return cls(whole.network & whole.mask, whole.length)

    @property
    def mask(self) -> int:
        """The netmask."""
        return 0xFFFFFFFF << (32 - self.length) & 0xFFFFFFFF

    @property
    def first(self) -> str:
        """The first host address, which the gateway takes."""
        return self.host(1)

    @property
    def last(self) -> str:
        """The last host address."""
        return format_address((self.network | ~self.mask & 0xFFFFFFFF) - 1)

    def host(self, number: int) -> str:
        """Return the address of host NUMBER, counted from the network address."""
        return format_address(self.network + number)

    def overlaps(self, other: Subnet) -> bool:
        """Whether one of the two contains the other."""
        beyond = 32 - min(self.length, other.length)
        return self.network >> beyond == other.network >> beyond

    def __str__(self) -> str:
        """`192.168.0.0/24`."""
        return f"{format_address(self.network)}/{self.length}"


def parse_address(text: str) -> int:
    """Return a dotted quad as an integer. Raises `ValueError`."""
    parts = text.split(".")
    if len(parts) != 4 or not all(_is_number(p) and int(p) < 256 for p in parts):
        msg = f"{text!r} is not an IPv4 address"
        raise ValueError(msg)
    return int.from_bytes(bytes(int(p) for p in parts), "big")


def _is_number(text: str) -> bool:
    """Whether TEXT consists of 1 to 16 decimal digits."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def format_address(address: int) -> str:
    """Return an integer as a dotted quad."""
    return ".".join(str(byte) for byte in address.to_bytes(4, "big"))
