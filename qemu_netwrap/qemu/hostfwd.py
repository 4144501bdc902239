"""hostfwd=, with the syntax of QEMU's user network (net/slirp.c, `slirp_hostfwd`).

    [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport

An IPv6 address stands in brackets. Error messages are QEMU's.
"""

from __future__ import annotations

from qemu_netwrap import model
from qemu_netwrap.model import numbers
from qemu_netwrap.model.ipv4 import format_address, parse_address
from qemu_netwrap.model.run import PortForward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ANY = ("0.0.0.0", "::")  # noqa: S104 - read, not bound
_LARGEST = 65535


def parse(text: str) -> PortForward:
    """Parse one rule. Raises `ValueError` with QEMU's message."""
    try:
        return _parse(text)
    except ValueError as error:
        raise ValueError(f"Invalid host forwarding rule '{text}' ({error})") from None


def known(texts: Iterable[str]) -> tuple[PortForward, ...]:
    """Return the rules among TEXTS that can be parsed: another version may write others."""
    found = []
    for text in texts:
        try:
            found.append(parse(text))
        except ValueError:
            continue
    return tuple(found)


def _parse(text: str) -> PortForward:
    """Parse one rule. Raises `ValueError` with the reason that QEMU gives in parentheses."""
    protocol, rest = _cut(text, ":", "No : separators")
    if protocol not in ("", "tcp", "udp"):
        raise ValueError("Bad protocol name")
    host, rest = _cut_address(rest, "Missing : separator", "Bad host address")
    number, rest = _cut(rest, "-", "Bad host port separator")
    port = _port(number, "Bad host port")
    guest, number = _cut_address(rest, "Missing guest address", "Bad guest address")
    guest_port = _port(number, "Bad guest port")
    # The addresses, if any, decide on the family.
    if "" not in (host, guest) and (":" in host) != (":" in guest):
        raise ValueError("Bad guest address")
    is_ipv6 = ":" in host + guest
    host, guest = ("" if address in _ANY else address for address in (host, guest))
    return PortForward(protocol or "tcp", host, port, guest, guest_port, is_ipv6)


def _cut(text: str, separator: str, missing: str) -> tuple[str, str]:
    """Return what is before SEPARATOR and what is after it. Raises `ValueError` without one."""
    before, found, behind = text.partition(separator)
    if not found:
        raise ValueError(missing)
    return before, behind


def _cut_address(text: str, missing: str, bad: str) -> tuple[str, str]:
    """Return the address at the start of TEXT, which may be empty, and what follows its `:`."""
    if not text.startswith("["):
        address, rest = _cut(text, ":", missing)
        try:
            return address and format_address(parse_address(address)), rest
        except ValueError:
            raise ValueError(bad) from None
    inside, rest = _cut(text[1:], "]", bad)
    if not rest.startswith(":"):
        raise ValueError(missing)

    try:
        address = model.addresses.read(inside)
    except ValueError:
        address = ""
    if ":" not in address:
        raise ValueError(bad)
    return address, rest[1:]


def _port(text: str, bad: str) -> int:
    """Parse a port as strtol(3) with base 0 does; 0, any port, raises `ValueError` too."""
    number = numbers.integer(text)
    if number is None or not 0 < number <= _LARGEST:
        raise ValueError(bad)
    return number
