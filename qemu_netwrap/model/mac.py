"""MAC addresses: parsing them as QEMU does, and deriving stable ones.

QEMU's default is 52:54:00:12:34:56 in every VM, so two VMs on one segment collide. Derived ones
keep QEMU's prefix; the rest depends on the host, the VM and the NIC's number.
"""

from __future__ import annotations

import zlib

from qemu_netwrap.model import numbers

PREFIX = "52:54:00"
_BYTES = 6
_LARGEST = (1 << 24) - 1
_LONG = (1 << 63) - 1  # LONG_MAX
_HEX = frozenset("0123456789abcdefABCDEF")


def derive(*key: str, attempt: int = 0) -> str:
    """Return a MAC that is always the same for KEY; another ATTEMPT gives another one."""
    text = "\0".join((*key, str(attempt) if attempt else ""))
    digest = zlib.crc32(text.encode("utf-8", "surrogateescape"))
    low = (digest ^ digest >> 24) & 0xFFFFFF
    return f"{PREFIX}:{low.to_bytes(3, 'big').hex(':')}"


def parse(text: str, *, strict: bool = False) -> str:
    """Return a MAC typed for QEMU in the form that the kernel prints; empty for QEMU's default.

    -nic and -net nic take one number for the last three bytes, or six that strtol(3) reads, but no
    multicast address (net/util.c, `net_parse_macaddr`). -device is STRICT: six bytes of two digits
    (hw/core/qdev-properties-system.c, `set_mac`). Raises `ValueError` in QEMU's words.
    """
    values = _strictly(text) if strict else _last_three(text) or _by_strtol(text)
    if not values:
        raise ValueError("invalid syntax for ethernet address")
    if values[0] & 1 and not strict:
        raise ValueError("NIC cannot have multicast MAC address")
    return bytes(values).hex(":") if any(values) else ""


def _strictly(text: str) -> list[int]:
    """Return six bytes of two digits each; an empty list if TEXT is something else."""
    parts = text.replace("-", ":").split(":")
    well = len(parts) == _BYTES and all(len(part) == 2 and set(part) <= _HEX for part in parts)
    return [int(part, 16) for part in parts] if well else []


def _last_three(text: str) -> list[int]:
    """Return the bytes of one 24-bit number in any base; an empty list for anything else."""
    if not text:
        return [0] * _BYTES  # strtol(3) accepts it
    digits = text.lstrip(numbers.SPACE)
    sign = digits[:1] if digits[:1] in ("+", "-") else ""
    number = numbers.integer(digits.removeprefix(sign))
    if number is None or number > (0 if sign == "-" else _LARGEST):
        return []
    return list(number.to_bytes(_BYTES, "big"))


def _by_strtol(text: str) -> list[int]:
    """Return the lowest bytes of six numbers; an empty list if TEXT holds anything else.

    Blanks, a sign and `0x` may precede each number; without any digit it is 0.
    """
    values, at = [], 0
    for number in range(_BYTES):
        value, at = _strtol(text, at)
        values.append(value & 0xFF)
        last = number == _BYTES - 1
        if text[at:] if last else text[at : at + 1] not in (":", "-"):
            return []
        at += 1
    return values


def _strtol(text: str, start: int) -> tuple[int, int]:
    """Return the hexadecimal number that strtol(3) reads at START, and where it ends."""
    at = start
    while text[at : at + 1] and text[at] in numbers.SPACE:
        at += 1
    sign = -1 if text[at : at + 1] == "-" else 1
    at += text[at : at + 1] in ("+", "-")
    if text[at : at + 2].lower() == "0x" and text[at + 2 : at + 3] in _HEX:
        at += 2
    end = at
    while text[end : end + 1] in _HEX:
        end += 1
    if end == at:
        return 0, start
    number = sign * int(text[at:end], 16)
    return max(-_LONG - 1, min(number, _LONG)), end


def pack(text: str) -> bytes:
    """Return the six bytes of a MAC written with colons."""
    return bytes.fromhex(text.replace(":", ""))


def unpack(raw: bytes) -> str:
    """Return six bytes as text, in the form that the kernel prints."""
    return raw.hex(":")
