"""MAC addresses: reading the ones QEMU reads, and making stable ones of our own.

QEMU's default is 52:54:00:12:34:56 in every VM, so two VMs on one segment collide. Ours keep
QEMU's prefix and derive the rest from the host, the VM and the NIC's number.
"""

from __future__ import annotations

import zlib

PREFIX = "52:54:00"


def derive(*key: str, attempt: int = 0) -> str:
    """Return a MAC that is always the same for KEY; the next ATTEMPT gives another one."""
    digest = zlib.crc32(
        "\0".join((*key, str(attempt) if attempt else "")).encode("utf-8", "replace")
    )
    low = (digest ^ digest >> 24) & 0xFFFFFF
    return f"{PREFIX}:{low >> 16:02x}:{low >> 8 & 255:02x}:{low & 255:02x}"


def normalize(text: str) -> str:
    """Return a MAC as typed to QEMU in the form the kernel prints it; as it is if it is none."""
    parts = text.replace("-", ":").split(":")
    try:
        return ":".join(f"{int(part, 16):02x}" for part in parts)
    except ValueError:
        return text


def pack(text: str) -> bytes:
    """Return the six bytes of a MAC written with colons."""
    return bytes.fromhex(text.replace(":", ""))


def unpack(raw: bytes) -> str:
    """Write six bytes as the kernel prints them."""
    return raw.hex(":")
