"""hostfwd=, as QEMU's user network has it (net/slirp.c, `slirp_hostfwd`).

    [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport

An IPv6 address stands in brackets. What is wrong is said in QEMU's words.
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
    """Read one rule. Raises `ValueError` in QEMU's words."""
    try:
        return _parse(text)
    except ValueError as error:
        raise ValueError(f"Invalid host forwarding rule '{text}' ({error})") from None


def known(texts: Iterable[str]) -> tuple[PortForward, ...]:
    """Return the rules among TEXTS that can be read: another version may have written others."""
    found = []
    for text in texts:
        try:
            found.append(parse(text))
        except ValueError:
            continue
    return tuple(found)


def _parse(text: str) -> PortForward:
    """Read one rule. Raises `ValueError` with what is wrong, as short as QEMU has it."""
    protocol, rest = _cut(text, ":", "No : separators")
    if protocol not in ("", "tcp", "udp"):
        raise ValueError("Bad protocol name")
    host, rest = _cut_address(rest, "Missing : separator", "Bad host address")
    number, rest = _cut(rest, "-", "Bad host port separator")
    port = _port(number, "Bad host port")
    guest, number = _cut_address(rest, "Missing guest address", "Bad guest address")
    guest_port = _port(number, "Bad guest port")
    # Of which family it is, is told by what address there is.
    if "" not in (host, guest) and (":" in host) != (":" in guest):
        raise ValueError("Bad guest address")
    is_ipv6 = ":" in host + guest
    host, guest = ("" if address in _ANY else address for address in (host, guest))
    return PortForward(protocol or "tcp", host, port, guest, guest_port, is_ipv6)


def _cut(text: str, separator: str, missing: str) -> tuple[str, str]:
    """Return what is before SEPARATOR, and what is behind it."""
    before, found, behind = text.partition(separator)
    if not found:
        raise ValueError(missing)
    return before, behind


def _cut_address(text: str, missing: str, bad: str) -> tuple[str, str]:
    """Return the address that TEXT begins with, which may be empty, and what is behind its `:`."""
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
    """Read a port, as strtol(3) with base 0 does; not 0, which would be the kernel's choice."""
    number = numbers.integer(text)
    if number is None or not 0 < number <= _LARGEST:
        raise ValueError(bad)
    return number
