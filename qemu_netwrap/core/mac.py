"""MAC addresses: reading the ones QEMU reads, and making stable ones of our own.

QEMU's default is 52:54:00:12:34:56 in every VM, so two VMs on one segment collide. Ours keep
QEMU's prefix and derive the rest from the host, the VM and the NIC's number.
"""

from __future__ import annotations

import zlib

from qemu_netwrap.core import numbers

PREFIX = "52:54:00"
_BYTES = 6
_TOO_MUCH = 1 << 24


def derive(*key: str, attempt: int = 0) -> str:
    """Return a MAC that is always the same for KEY; the next ATTEMPT gives another one."""
    text = "\0".join((*key, str(attempt) if attempt else ""))
    digest = zlib.crc32(text.encode("utf-8", "surrogateescape"))
    low = (digest ^ digest >> 24) & 0xFFFFFF
    return f"{PREFIX}:{low.to_bytes(3, 'big').hex(':')}"


def parse(text: str, *, strict: bool = False) -> str:
    """Return a MAC as typed to QEMU in the form the kernel prints; empty for QEMU's default.

    -nic and -net nic take bytes of any number of digits, or one number for the last three bytes
    (net/util.c, `net_parse_macaddr`), and no multicast address. -device is STRICT: six bytes of
    two digits (hw/core/qdev-properties-system.c, `set_mac`). Raises `ValueError` in QEMU's words.
    """
    parts = text.replace("-", ":").split(":")
    if len(parts) == 1 and not strict:
        number = numbers.parse_uint32(text) if text else 0
        values = list((number if number is not None else _TOO_MUCH).to_bytes(8, "big")[2:])
        well = number is not None and number < _TOO_MUCH
    else:
        well = len(parts) == _BYTES and all(map(_is_hex, parts))
        well = well and not (strict and any(len(part) != 2 for part in parts))
        values = [int(part, 16) & 0xFF for part in parts] if well else []
    if not well:
        raise ValueError("invalid syntax for ethernet address")
    if values[0] & 1 and not strict:
        raise ValueError("NIC cannot have multicast MAC address")
    return bytes(values).hex(":") if any(values) else ""


def pack(text: str) -> bytes:
    """Return the six bytes of a MAC written with colons."""
    return bytes.fromhex(text.replace(":", ""))


def unpack(raw: bytes) -> str:
    """Write six bytes as the kernel prints them."""
    return raw.hex(":")


def _is_hex(text: str) -> bool:
    """Whether TEXT is hexadecimal digits, some."""
    return bool(text) and set(text) <= set("0123456789abcdefABCDEF")
