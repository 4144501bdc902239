"""Stands for a QEMU in the nested machine: asks for an address by DHCP, on the tap it is given.

It reads the tap as vhost-net does, frames with the head that tells what is still to be done with
them (include/uapi/linux/virtio_net.h), and prints what becomes of the answer's UDP checksum.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import sys
from typing import Final

_HEAD: Final = 10
_NEEDS_CSUM: Final = 1
_TUNSETOFFLOAD: Final = 0x400454D0
_TUN_F_CSUM: Final = 1
_PATIENCE: Final = 120.0


def discover(mac: bytes) -> bytes:
    """Return a DHCPDISCOVER's frame (RFC 2131); its UDP has no checksum, as is allowed."""
    bootp = struct.pack("!BBBBIHH16s16s192x", 1, 1, 6, 0, 7, 0, 0x8000, b"", mac)
    data = bootp + b"\x63\x82\x53\x63\x35\x01\x01\xff".ljust(64, b"\0")
    udp = struct.pack("!HHHH", 68, 67, 8 + len(data), 0) + data
    ip = struct.pack("!BBHIBBH4s4s", 0x45, 0, 20 + len(udp), 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    ip = ip[:10] + struct.pack("!H", total(ip)) + ip[12:]
    return b"\xff" * 6 + mac + b"\x08\x00" + ip + udp


def total(data: bytes) -> int:
    """Return the checksum of the Internet (RFC 1071) over DATA."""
    even = data + bytes(len(data) % 2)
    value: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF


def told(frame: bytes) -> str:
    """Return what is to be told of a frame; empty when it is not DHCP's answer."""
    flags, packet = frame[0], frame[_HEAD + 14 :]
    udp = packet[(packet[0] & 15) * 4 :] if packet else b""
    if packet[9:10] != b"\x11" or udp[:2] != b"\0\x43":
        return ""
    length = struct.unpack("!H", udp[4:6])[0]
    pseudo = packet[12:20] + struct.pack("!HH", 17, length)
    if flags & _NEEDS_CSUM:
        return "left to do"
    return "well" if total(pseudo + udp[:length]) == 0 else "wrong"


def main() -> None:
    """Ask again and again until there is an answer."""
    words = " ".join(sys.argv)
    fd = int(re.findall(r"[,=]fd=(\d+)", words)[0])
    mac = bytes.fromhex(re.findall(r"mac=([0-9a-f:]+)", words)[0].replace(":", ""))
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM)  # as QEMU does when the guest's driver is there
    os.write(fd, bytes(_HEAD) + discover(mac))
    while select.select([fd], [], [], _PATIENCE)[0]:
        if answer := told(os.read(fd, 65536)):
            print(answer, flush=True)  # noqa: T201 - a program's answer
            return


if __name__ == "__main__":
    main()
