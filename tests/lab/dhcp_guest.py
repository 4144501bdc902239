"""In QEMU's place: a guest that asks for DHCP leases in any name, by frames of its own making.

    dhcp_guest.py … -nic tap,fd=N,vnet_hdr=off,mac=MAC    the tap comes from the launcher
    dhcp_guest.py TAP MAC                                  a tap that is made here, as QEMU does

Each line on standard input is `CHADDR [NAME]`: the hardware address to ask for, and the host name
to give. The answer is a line with the address that was leased, or `-`. The frames have the guest's
own MAC as their source, behind `+CHADDR` that one. There is no waiting in vain: before each
question and behind it one in the guest's own name is asked. The first is asked again until it is
answered, as a bridge that has just come up loses what it is given; by the time that the last is
answered, the question would have been.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import struct
import sys

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_COOKIE = b"\x63\x82\x53\x63"


def opened() -> tuple[int, bytes]:
    """Return the tap's descriptor, and the guest's MAC."""
    words = " ".join(sys.argv)
    given = re.search(r"\bfd=(\d+)", words)
    mac = bytes.fromhex(re.findall(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", words)[-1].replace(":", ""))
    if given:
        os.set_blocking(int(given[1]), True)
        return int(given[1]), mac
    fd = os.open("/dev/net/tun", os.O_RDWR)
    request = struct.pack("16sH22x", sys.argv[1].encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(fd, _TUNSETIFF, request)
    return fd, mac


def checksum(data: bytes) -> int:
    """Return the checksum of an IP header."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def question(source: bytes, chaddr: bytes, number: int, kind: int, options: bytes) -> bytes:
    """Return the frame of a DHCP message of a client that has no address."""
    transaction = struct.pack("!I", number)
    bootp = struct.pack("!4B4sHH16x16s192x", 1, 1, 6, 0, transaction, 0, 0x8000, chaddr)
    bootp += _COOKIE + bytes((53, 1, kind)) + options + b"\xff"
    udp = struct.pack("!4H", 68, 67, 8 + len(bootp), 0) + bootp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + bytes(4)
    header += b"\xff" * 4
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return b"\xff" * 6 + source + b"\x08\x00" + header + udp


def answer(fd: int, seconds: float | None = None) -> tuple[int, int, bytes]:
    """Return number, kind and message of the next answer by DHCP; -1 if none comes for SECONDS."""
    while select.select([fd], [], [], seconds)[0]:
        frame = os.read(fd, 65536)
        if frame[12:14] != b"\x08\x00" or frame[23:24] != b"\x11":
            continue
        udp = frame[14 + (frame[14] & 15) * 4 :]
        if struct.unpack("!HH", udp[:4]) == (67, 68):
            bootp = udp[8:]
            (number,) = struct.unpack("!I", bootp[4:8])
            return number, bootp[bootp.index(_COOKIE) + 6], bootp
    return -1, 0, b""


def served(fd: int, mac: bytes, number: int) -> None:
    """Ask question NUMBER in the guest's own name, again each second, until it is answered."""
    which = -1
    while which != number:
        if which < 0:
            os.write(fd, question(mac, mac, number, _DISCOVER, b""))
        which = answer(fd, 1.0)[0]


def leased(fd: int, mac: bytes, number: int, chaddr: bytes, name: bytes, source: bytes) -> str:
    """Ask from SOURCE for a lease for CHADDR, known as NAME; return its address, `-` for none.

    NUMBER and the next one are the questions'.
    """
    named = bytes((12, len(name))) + name if name else b""
    os.write(fd, question(source, chaddr, number, _DISCOVER, named))
    os.write(fd, question(mac, mac, number + 1, _DISCOVER, b""))
    offered = False
    while True:
        which, kind, bootp = answer(fd)
        if which == number and kind == _ACK:
            return socket.inet_ntoa(bootp[16:20])
        if which == number and kind == _OFFER:
            offered = True
            address = bootp[16:20]
            server = bootp[bootp.index(b"\x36\x04", 240) + 2 :][:4]
            asked = b"\x32\x04" + address + b"\x36\x04" + server + named
            os.write(fd, question(source, chaddr, number, _REQUEST, asked))
        elif which == number + 1 and not offered:
            return "-"


def main() -> None:
    """Ask what is asked for, until there is no more."""
    fd, mac = opened()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Answers are broadcast: another guest's questions have other numbers.
    for count, line in enumerate(sys.stdin, int.from_bytes(mac[4:]) << 14):
        chaddr, *name = line.split()
        raw = bytes.fromhex(chaddr.lstrip("+").replace(":", ""))
        source = raw if chaddr.startswith("+") else mac
        served(fd, mac, 4 * count)
        address = leased(fd, mac, 4 * count + 1, raw, "".join(name).encode(), source)
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
