"""The keys of [networks.NAME] that modes share, and how each value is read.

A reader takes a TOML value and returns the one for `Network`, or raises `ValueError` that says what
was expected. Each driver selects its keys (`NetworkDriver.readers`).
"""

from __future__ import annotations

from qemu_netwrap.model import addresses, host_services, names, pxe, reservations
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import LENGTH, Prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = 8
SMALLEST = 29  # a smaller subnet has too few addresses for guests
_NOT_FOR_HOSTS6 = tuple(map(Prefix.parse, ("::/8", "fe80::/10", "fec0::/10", "ff00::/8")))
_NOT_FOR_HOSTS = tuple(map(Subnet.parse, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3")))


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - a value, not a call, is wrong
    return value


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")  # noqa: TRY004
    return value


def _ifname(value: object) -> str:
    name = _string(value)
    wrong = names.ifname_fault(name)
    if wrong or not names.plain_ifname(name):
        raise ValueError(f"the name {wrong or 'must be of letters, digits, - . and _'}")
    return name


def uplink(value: object) -> str:
    """Return VALUE, the name of a NIC of the host. Raises `ValueError`."""
    name = _string(value)
    wrong = names.ifname_fault(name)
    if wrong:
        raise ValueError(f"the name {wrong}")
    return name


def _seconds(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected whole seconds from {low} to {high}")
        return value

    return read


def _subnet(value: object) -> Subnet:
    subnet = Subnet.parse(_string(value))
    if not LARGEST <= subnet.length <= SMALLEST:
        small = f"too small: /{SMALLEST} at least"
        large = f"too large: /{LARGEST} at most"
        raise ValueError(f"the subnet is {small if subnet.length > SMALLEST else large}")
    if any(subnet.overlaps(special) for special in _NOT_FOR_HOSTS):
        raise ValueError("these addresses are not for hosts")
    return subnet


def _subnet6(value: object) -> Prefix:
    try:
        prefix = Prefix.parse(_string(value).replace("%", "%%"))  # a network has no scope
    except ValueError as error:
        raise ValueError(f"expected a network like fd12:3456:789a:1::/64: {error}") from None
    if prefix.length != LENGTH:
        raise ValueError(f"expected a /{LENGTH}: guests choose the rest of their addresses")
    if any(prefix.overlaps(special) for special in _NOT_FOR_HOSTS6):
        raise ValueError("these addresses are not for hosts")
    return prefix


def servers(value: object) -> tuple[str, ...]:
    """Return addresses of DNS servers; IPv6 ones may have a scope. Raises `ValueError`."""
    if not isinstance(value, list) or not all(isinstance(server, str) for server in value):
        raise ValueError('expected addresses like ["192.0.2.53"]')
    return tuple(addresses.read(server, scoped=True) for server in value)


def _hosts(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError('expected names with addresses, like { files = "192.0.2.9" }')
    for name in value:
        if not names.is_host_name(name) or name.replace(".", "").isdigit():
            raise ValueError(f"{name!r} is no host name")
    return tuple((name, addresses.read(address)) for name, address in value.items())


# Keys of every network that has a bridge.
BRIDGED: dict[str, Callable[[object], object]] = {
    "mode": _string,
    "bridge": _ifname,
    "stp": _boolean,
    "forward_delay": _seconds(0, 30),
    "hello_time": _seconds(1, 10),
    "isolated": _boolean,
    "mac_filter": _boolean,
    "ip_filter": _boolean,
}
# Keys of a network that has a subnet of its own.
ROUTED: dict[str, Callable[[object], object]] = {
    "subnet": _subnet,
    "ipv6": _boolean,
    "subnet6": _subnet6,
}
# Keys for what its dnsmasq serves to guests, and for the host services they may reach.
SERVED: dict[str, Callable[[object], object]] = {
    "hosts": _hosts,
    "addresses": reservations.read,
    "host_services": host_services.read,
    "tftp": pxe.folder,
    "bootfile": pxe.file,
}
