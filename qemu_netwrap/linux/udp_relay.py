"""UDP relayed: each client has a session, a socket of its own that is connected to the guest.

What the guest sends to that socket goes to the client, from the address that the client spoke to: a
host with several addresses would else answer from any of them (ip(7), IP_PKTINFO; RFC 3542, 6.2).
ICMP errors are not passed on.
"""

from __future__ import annotations

import _socket
import errno
import time

from qemu_netwrap.linux.event_loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qemu_netwrap.linux.event_loop import Loop

    Ancillary = tuple[tuple[int, int, bytes], ...]  # level, type, data (cmsg(3))
    Key = tuple[Any, Ancillary]  # a client's address (of either family), and how it is answered

MOST_SESSIONS = 256  # of each port
# nf_conntrack_udp_timeout_stream (Documentation/networking/nf_conntrack-sysctl.rst), in seconds.
IDLE_TIMEOUT = 120.0
_IP_PKTINFO = 8  # linux/in.h
_LARGEST = 1 << 16  # bytes; of a datagram
_BATCH = 16  # datagrams, before others get their turn
_ANCILLARY = _socket.CMSG_SPACE(20)  # bytes; of struct in6_pktinfo, the larger one
_LINK_LOCAL, _LINK_LOCAL_MASK = 0xFE80, 0xFFC0


class UdpRelay:
    """All UDP ports that one process relays."""

    def __init__(self, loop: Loop) -> None:
        """Relay none yet."""
        self.loop = loop
        self.buffer = memoryview(bytearray(_LARGEST))

    def relay(self, bound: _socket.socket, target: str, port: int) -> None:
        """Relay what comes to a bound socket to PORT of the address TARGET. Raises `OSError`."""
        _Port(self, bound, (target, port))


class _Session:
    """A client of a port."""

    __slots__ = ("client", "last_used", "socket", "source")

    def __init__(self, socket: _socket.socket, client: object, source: Ancillary) -> None:
        self.socket = socket  # connected to the guest
        self.client: Any = client
        self.source = source
        self.last_used = 0.0  # of the monotonic clock


class _Port:
    """A port that is relayed."""

    def __init__(self, relay: UdpRelay, bound: _socket.socket, target: tuple[str, int]) -> None:
        """Receive. Raises `OSError`."""
        self._loop, self._buffer = relay.loop, relay.buffer
        self._bound, self._target = bound, target
        self._family = _socket.AF_INET6 if ":" in target[0] else _socket.AF_INET
        self._sessions: dict[Key, _Session] = {}  # the idlest first
        bound.setblocking(False)  # noqa: FBT003 - has no name
        if bound.family == _socket.AF_INET6:
            bound.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(_socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._loop.add(bound, IN, self._receive)

    def _receive(self, _happened: int) -> None:
        """Pass on what clients have sent."""
        for _ in range(_BATCH):
            try:
                size, ancillary, _, client = self._bound.recvmsg_into([self._buffer], _ANCILLARY)
            except OSError:
                return
            session = self._session((client, source_of_answers(ancillary)))
            if session is not None:
                _send(session.socket, self._buffer[:size])

    def _session(self, key: Key) -> _Session | None:
        """Return a client's session, a new one if need be; None where none can be had."""
        session = self._sessions.get(key) or self._begin(key)
        if session is not None:
            self._use(key, session)
        return session

    def _use(self, key: Key, session: _Session) -> None:
        """Note that a session has just been used."""
        session.last_used = time.monotonic()
        self._sessions.pop(key, None)
        self._sessions[key] = session

    def _begin(self, key: Key) -> _Session | None:
        """Begin a session, instead of the idlest one if there are too many."""
        if len(self._sessions) >= MOST_SESSIONS:
            self._end(next(iter(self._sessions)))
        guest = None
        try:
            guest = _socket.socket(self._family, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
            guest.connect(self._target)
            self._loop.add(guest, IN, lambda _happened: self._answer(key, session))
        except OSError as error:
            if guest is not None:
                self._loop.end(guest)
            elif error.errno in (errno.EMFILE, errno.ENFILE) and self._sessions:
                self._end(next(iter(self._sessions)))  # for the client's next datagram
            return None
        session = _Session(guest, *key)
        if not self._sessions:
            self._loop.call_at(time.monotonic() + IDLE_TIMEOUT, self._end_idle)
        return session

    def _answer(self, key: Key, session: _Session) -> None:
        """Pass on what the guest has sent to a client."""
        for _ in range(_BATCH):
            try:
                size = session.socket.recv_into(self._buffer)
            except OSError:
                return  # nothing more; or an ICMP error, which this has taken
            self._use(key, session)
            self._send_to(session, self._buffer[:size])

    def _send_to(self, session: _Session, data: memoryview) -> None:
        """Send a datagram to a client; what cannot be sent is lost, as UDP may.

        It may have sent to an address that none can send from (multicast, broadcast): then the
        kernel chooses one.
        """
        for source in (session.source, ()):
            try:
                self._bound.sendmsg([data], source, 0, session.client)
                return
            except BlockingIOError:
                return
            except OSError:
                pass

    def _end(self, key: Key) -> None:
        """End a session."""
        self._loop.end(self._sessions.pop(key).socket)

    def _end_idle(self) -> None:
        """End the sessions that have been idle for too long."""
        idle_since = time.monotonic() - IDLE_TIMEOUT
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if session.last_used > idle_since:
                self._loop.call_at(session.last_used + IDLE_TIMEOUT, self._end_idle)
                return
            self._end(key)


def source_of_answers(ancillary: list[tuple[int, int, bytes]]) -> Ancillary:
    """Return what makes an answer leave from the address that a datagram was sent to.

    ANCILLARY came with the datagram, and what is returned goes with the answer. By which interface
    that leaves is for the routes to say, unless the address is one of a link.
    """
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.IPPROTO_IP, _IP_PKTINFO):
            # struct in_pktinfo: interface, local address, address in the header.
            return ((level, kind, bytes(4) + data[4:8] + bytes(4)),)
        if (level, kind) == (_socket.IPPROTO_IPV6, _socket.IPV6_PKTINFO):
            is_of_link = int.from_bytes(data[:2], "big") & _LINK_LOCAL_MASK == _LINK_LOCAL
            # struct in6_pktinfo: address, interface.
            return ((level, kind, data if is_of_link else data[:16] + bytes(4)),)
    return ()


def _send(to: _socket.socket, data: memoryview) -> None:
    """Send a datagram to the guest; what cannot be sent is lost.

    Once more after an error: it may be that of an earlier datagram (ICMP, udp(7)), reported in
    place of sending this one.
    """
    for _ in range(2):
        try:
            to.send(data)
            return
        except OSError:
            pass
