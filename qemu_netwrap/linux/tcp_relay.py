"""TCP relayed: what comes to a listening socket goes to a guest, and back.

Both directions go on by themselves: the end of one (FIN) is passed on, and the other continues. A
reset of one side resets the other, with what is still on its way. Data waits in the kernel: an end
that does not read stops the other one from sending, and what is held here is at most `_CHUNK` bytes
for each direction. A client is connected before the guest has answered, and reset if it refuses.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import struct
import time

from qemu_netwrap.linux.event_loop import ERROR, HANG_UP, IN, NOTHING, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.event_loop import Loop

MOST_CONNECTIONS = 1024
_CHUNK = 1 << 16  # bytes
_PIPE = 1 << 20  # bytes; of 4 KiB each, which a segment takes whole: 256 of an MTU of 1500
_BACKLOG = 1024
# A peer that has vanished is noticed after four minutes: the silence and the time between probes in
# seconds, and how many probes.
_KEEPALIVE = (
    (_socket.TCP_KEEPIDLE, 120),
    (_socket.TCP_KEEPINTVL, 30),
    (_socket.TCP_KEEPCNT, 4),
)
_RESET = struct.pack("ii", 1, 0)  # struct linger: close(2) sends a RST (socket(7))
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY_INTERVAL = 1.0  # seconds; where other processes have used up what is scarce


def listen(fd: int) -> None:
    """Listen on a bound socket. Raises `OSError`."""
    bound = _socket.socket(fileno=fd)
    try:
        bound.listen(_BACKLOG)
    finally:
        bound.detach()


class TcpRelay:
    """All TCP ports that one process relays."""

    def __init__(self, loop: Loop) -> None:
        """Relay none yet."""
        self.loop = loop
        self.connections = 0
        self.pipe = _Pipe()

    def relay(self, listening: _socket.socket, target: str, port: int) -> None:
        """Relay what comes to a bound socket to PORT of the address TARGET. Raises `OSError`."""
        _Listener(self, listening, (target, port))


class _Pipe:
    """A pipe by which data goes from socket to socket without a copy (splice(2)).

    One serves all connections: it is empty before and after each use.
    """

    def __init__(self) -> None:
        """Make it as large as the kernel allows an ordinary user (pipe(7))."""
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # this user has many: then it moves less at once

    def move(self, source: int, sink: int) -> bytes | None:
        """Move at most `_CHUNK` bytes; return those that SINK did not take, None after the last.

        Raises `BlockingIOError` if SOURCE has none now, another `OSError` if an end has been reset.
        """
        count = os.splice(source, self._in, _CHUNK)
        if count == 0:
            return None
        sent, rest = 0, b""
        try:
            sent = os.splice(self._out, sink, count)
        except BlockingIOError:
            pass
        finally:
            if sent < count:
                rest = os.read(self._out, count - sent)
        return rest


class _Listener:
    """A port that is relayed."""

    def __init__(self, relay: TcpRelay, listening: _socket.socket, target: tuple[str, int]) -> None:
        """Listen. Raises `OSError`."""
        self._relay, self._socket, self._target = relay, listening, target
        self._family = _socket.AF_INET6 if ":" in target[0] else _socket.AF_INET
        listening.setblocking(False)  # noqa: FBT003 - has no name
        listening.listen(_BACKLOG)
        relay.loop.add(listening, IN, self._accept)

    def _accept(self, _happened: int) -> None:
        """Accept one connection, if there is room for it; else it waits in the kernel.

        The socket to the guest comes first: a client is not accepted to be dropped.
        """
        if self._relay.connections >= MOST_CONNECTIONS:
            self._pause()
            return
        guest = None
        try:
            guest = _socket.socket(self._family, _socket.SOCK_STREAM)
            # As socket.accept does.
            fd, _ = self._socket._accept()  # type: ignore[attr-defined] # noqa: SLF001
        except OSError as error:
            if guest is not None:
                guest.close()
            if error.errno in _SCARCE:
                self._pause()
            return  # else the client has gone again
        _Connection(self._relay, _socket.socket(fileno=fd), guest, self._target)

    def _pause(self) -> None:
        """Accept nothing until a descriptor is free."""
        loop = self._relay.loop
        loop.want(self._socket, NOTHING)
        loop.when_freed(self._resume)
        loop.call_at(time.monotonic() + _RETRY_INTERVAL, self._resume)

    def _resume(self) -> None:
        """Accept again."""
        try:
            self._relay.loop.want(self._socket, IN)
        except OSError:
            self._pause()


class _End:
    """One of the two sockets of a connection."""

    __slots__ = ("has_finished", "has_hung_up", "socket", "unsent")

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.unsent = b""  # what it has not taken yet of what the other has sent
        self.has_finished = False  # its FIN has been read
        self.has_hung_up = False  # FINs have gone both ways: only data that waits can still come

    def prepare(self) -> None:
        """Set the socket's options. Raises `OSError`."""
        self.socket.setblocking(False)  # noqa: FBT003 - has no name
        self.socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        # Urgent data stays in its place; else its byte would be lost.
        self.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)
        self.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            self.socket.setsockopt(_socket.IPPROTO_TCP, option, value)


class _Connection:
    """A client's connection, and the one to the guest."""

    def __init__(
        self,
        relay: TcpRelay,
        client: _socket.socket,
        guest: _socket.socket,
        target: tuple[str, int],
    ) -> None:
        """Begin to connect to the guest; until it answers, the client's data waits."""
        self._relay = relay
        self._client, self._guest = _End(client), _End(guest)
        self._connects = True
        relay.connections += 1
        try:
            self._client.prepare()
            self._guest.prepare()
            try:
                guest.connect(target)
            except BlockingIOError:
                pass  # EINPROGRESS
            relay.loop.add(client, 0, lambda happened: self._work(self._client, happened))
            relay.loop.add(guest, OUT, lambda happened: self._work(self._guest, happened))
        except OSError:
            self._reset()

    def _work(self, end: _End, happened: int) -> None:
        """Do what there is to do at one end."""
        try:
            if self._connects:
                self._connect(end)
            else:
                self._pass_on(end, happened)
            if not self._has_ended():
                self._watch(self._client, self._guest)
                self._watch(self._guest, self._client)
        except OSError:
            self._reset()

    def _connect(self, end: _End) -> None:
        """See that the guest has answered. Raises `OSError` if it refused, or the client left."""
        failed = end.socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if failed or end is self._client:
            raise OSError(failed or errno.ECONNRESET, "")
        self._connects = False

    def _pass_on(self, end: _End, happened: int) -> None:
        """Send what waits for END, and move what it has sent. Raises `OSError` after a reset."""
        other = self._guest if end is self._client else self._client
        end.has_hung_up = bool(happened & HANG_UP)
        if end.unsent and happened & ~IN:
            _flush(end)
        if happened & ~OUT and not end.has_finished and not other.unsent:
            self._move(end, other)
        elif happened & ERROR:
            raise ConnectionResetError

    def _move(self, source: _End, sink: _End) -> None:
        """Move what SOURCE has sent. Raises `OSError` if an end has been reset."""
        try:
            rest = self._relay.pipe.move(source.socket.fileno(), sink.socket.fileno())
        except BlockingIOError:
            # splice(2) does not get past urgent data, though poll(2) says that there is some.
            try:
                rest = source.socket.recv(_CHUNK) or None
            except BlockingIOError:
                return
        if rest is not None:
            sink.unsent = rest
            return
        source.has_finished = True
        sink.socket.shutdown(_socket.SHUT_WR)  # nothing is unsent, or it would not have read

    def _watch(self, end: _End, other: _End) -> None:
        """Watch an end for what could be done with it."""
        wanted = 0 if end.has_finished or other.unsent else IN
        if end.unsent:
            wanted |= OUT
        if not wanted and end.has_hung_up:
            wanted = NOTHING  # the hang-up would be reported without end
        self._relay.loop.want(end.socket, wanted)

    def _has_ended(self) -> bool:
        """Close the connection if both directions are through; return whether they are."""
        if not (self._client.has_finished and self._guest.has_finished):
            return False
        self._close()
        return True

    def _reset(self) -> None:
        """Reset both ends."""
        for end in (self._client, self._guest):
            end.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        """Close both ends."""
        self._relay.connections -= 1
        self._relay.loop.end(self._client.socket)
        self._relay.loop.end(self._guest.socket)


def _flush(sink: _End) -> None:
    """Send what waits for an end. Raises `OSError` if it has been reset."""
    try:
        sent = sink.socket.send(sink.unsent)
    except BlockingIOError:
        return
    sink.unsent = sink.unsent[sent:]
