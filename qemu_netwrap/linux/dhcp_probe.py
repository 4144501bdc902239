"""A test of whether DHCP passes the host's firewalls, by sending some: for `doctor`.

Reading the rules is not enough: there are four kinds of them, and each can be misread. So a request
is sent from a tap on the bridge, as by a guest, and received by a raw socket, which gets a packet
only after the last input chain has accepted it (net/ipv4/ip_input.c, `ip_local_deliver_finish`). An
answer is sent by a raw socket, through the output chains, and received at the tap. The client's MAC
is random, and it only discovers: dnsmasq gives no lease for that.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Final

from qemu_netwrap.linux import tun
from qemu_netwrap.linux.netlink.links import Rtnl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TIMEOUT: Final = 5.0  # seconds: a kernel that is not overloaded takes less than one millisecond
_INTERVAL: Final = 0.25  # seconds between two attempts
_FRAME: Final = 2048
_FRAMES: Final = 10_000  # of other guests, that are skipped at most
_SERVER, _CLIENT = 67, 68
_BROADCAST: Final = "255.255.255.255"
_DISCOVER: Final = b"\x63\x82\x53\x63\x35\x01\x01\xff"  # cookie, option 53, end (RFC 2132)


def probe(bridge: str, gateway: str) -> tuple[bool, bool]:
    """Return whether a request from BRIDGE reaches the host, and an answer by GATEWAY a guest.

    Raises `OSError` or `HostError` if that cannot be tested, for lack of privilege say.
    """
    token = os.urandom(4)
    mac = b"\x52\x54\x00" + os.urandom(3)
    with _tap(bridge) as (tap, bridge_mac), _raw(bridge, socket.IPPROTO_UDP) as heard:
        payload = _bootp(1, token, mac)
        packet = _packet("0.0.0.0", (_CLIENT, _SERVER), payload)  # noqa: S104 - without an address
        frame = bridge_mac + mac + b"\x08\x00" + packet
        asked = _arrives(heard.fileno(), token, lambda: os.write(tap, frame))
        with _raw(bridge, socket.IPPROTO_RAW) as out:
            answer = _packet(gateway, (_SERVER, _CLIENT), _bootp(2, token, mac))
            told = _arrives(tap, token + bytes(8), lambda: out.sendto(answer, (_BROADCAST, 0)))
        return asked, told


@contextlib.contextmanager
def _tap(bridge: str) -> Iterator[tuple[int, bytes]]:
    """Yield a tap on BRIDGE, which is removed at the end, and the bridge's MAC."""
    name = f"qnp{os.getpid()}"[:15]
    (fd,) = tun.open_tap(name, 1, vnet_hdr=False)
    rtnl = Rtnl()
    try:
        port, master = rtnl.link(name), rtnl.link(bridge)
        if port is None or master is None:
            raise FileNotFoundError(bridge)
        rtnl.generate_addresses(port.index)
        rtnl.plug(port, master, b"\xfe" + port.mac[1:])
        rtnl.isolate(port.index)
        yield fd, master.mac
    finally:
        rtnl.close()
        os.close(fd)


def _raw(bridge: str, protocol: int) -> socket.socket:
    """Return a raw socket that is bound to BRIDGE."""
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.setblocking(False)  # noqa: FBT003 - its parameter has no name
    except OSError:
        made.close()
        raise
    return made


def _arrives(fd: int, token: bytes, send: Callable[[], object]) -> bool:
    """Whether a packet with TOKEN in it, which SEND sends, arrives at a descriptor in `_TIMEOUT`.

    It is sent again every `_INTERVAL`: a device whose carrier has just come drops packets until a
    worker of the kernel's has activated its queue (net/core/link_watch.c).
    """
    until = time.monotonic() + _TIMEOUT
    while time.monotonic() < until:
        with contextlib.suppress(PermissionError):  # a dropped packet fails with EPERM
            send()
        if _comes(fd, token, min(until, time.monotonic() + _INTERVAL)):
            return True
    return False


def _comes(fd: int, token: bytes, until: float) -> bool:
    """Whether a packet with TOKEN in it arrives before UNTIL (of the monotonic clock)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    for _ in range(_FRAMES):
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            if token in os.read(fd, _FRAME):
                return True
    return False


def _bootp(op: int, token: bytes, mac: bytes) -> bytes:
    """Return a DHCP message (RFC 2131, section 2) with the transaction id TOKEN."""
    head = struct.pack("!4B4s2H", op, 1, 6, 0, token, 0, 0)
    return head + bytes(16) + mac + bytes(10 + 64 + 128) + _DISCOVER


def _packet(source: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return an IPv4 broadcast packet (RFC 791, RFC 768) without a UDP checksum."""
    udp = struct.pack("!4H", *ports, 8 + len(payload), 0) + payload
    ends = socket.inet_aton(source) + socket.inet_aton(_BROADCAST)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + udp
