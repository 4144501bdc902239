"""The services of the host that a network's guests may use: `host_services` in the configuration.

Each is PROTOCOL/PORT, PROTOCOL/FIRST-LAST (PROTOCOL is tcp or udp), a name of `NAMES`, or `all`.
"""

from __future__ import annotations

from qemu_netwrap import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ALL = "all"
PROTOCOLS = ("tcp", "udp")
# IANA's port numbers; a built-in table, since not every host has /etc/services.
NAMES = {
    "ssh": "tcp/22", "tftp": "udp/69", "http": "tcp/80", "ntp": "udp/123", "https": "tcp/443",
    "smb": "tcp/445", "syslog": "udp/514", "nfs": "tcp/2049", "mqtt": "tcp/1883",
    "mysql": "tcp/3306", "postgresql": "tcp/5432", "iscsi": "tcp/3260", "nbd": "tcp/10809",
}  # fmt: skip
_HIGHEST = 65535
_FORM = 'expected services like ["ssh", "tcp/8080", "udp/5000-5010"], or ["all"]'


def read(value: object) -> tuple[str, ...]:
    """Return the list as a tuple. Raises `ValueError` that says what is wrong."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(_FORM)
    for service in value:
        if service != ALL:
            _parts(service)
    if ALL in value and len(value) > 1:
        raise ValueError('"all" stands alone')
    twin = next((each for each in value if value.count(each) > 1), "")
    if twin:
        raise ValueError(f"{twin} is there twice")
    return tuple(value)


def ports(services: Iterable[str]) -> list[tuple[str, int, int]]:
    """Return (protocol, first port, last port) of each service; `all` must not be among them."""
    return [_parts(service) for service in services]


def _parts(service: str) -> tuple[str, int, int]:
    """Return (protocol, first port, last port) of a service. Raises `ValueError`."""
    protocol, slash, numbers = NAMES.get(service, service).partition("/")
    if not slash:
        near = model.suggest.suggestion(service, (*NAMES, ALL))
        known = ", ".join((*NAMES, ALL))
        raise ValueError(f"{service!r} is no service known here: {near}{known}, or tcp/PORT")
    if protocol not in PROTOCOLS:
        raise ValueError(f"{service!r}: the protocol is tcp or udp")
    first, dash, last = numbers.partition("-")
    low, high = _port(first, service), _port(last if dash else first, service)
    if low > high:
        raise ValueError(f"{service!r}: the first port is above the last")
    return protocol, low, high


def _port(text: str, service: str) -> int:
    """Return a port. Raises `ValueError`."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_HIGHEST))
    if not is_number or not 1 <= int(text) <= _HIGHEST:
        raise ValueError(f"{service!r}: ports are from 1 to {_HIGHEST}")
    return int(text)
