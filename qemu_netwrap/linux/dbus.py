"""Method calls on the system bus of D-Bus, with strings and numbers as arguments.

Encoded by hand (D-Bus Specification, "Message Protocol" and "Authentication Protocol"): a launch
makes one or two of them, and starting dbus-send or busctl for each takes longer. Calls are sent
little-endian; the first byte of a reply says in which byte order it is.
"""

from __future__ import annotations

import _socket
import os
import struct

from qemu_netwrap.model import plain_text
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

ADDRESS = "/run/dbus/system_bus_socket"
_REPLY_TIMEOUT = 10.0  # seconds, for each read and write
_CALL, _RETURN, _ERROR = 1, 2, 3
_ORDERS = {b"l": "<", b"B": ">"}  # a message's first byte, and the order as struct has it
_NO_AUTO_START = 2
_WORD = 4  # bytes of a number, and of the length before a string
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = (
    1, 2, 3, 4, 5, 6, 8,
)  # fmt: skip
_BUS = "org.freedesktop.DBus"


class DBusError(Exception):
    """A call failed. `name` is the D-Bus error's name, empty if the bus could not be reached."""

    def __init__(self, name: str, text: str) -> None:
        """Keep the name beside the text for the user."""
        super().__init__(text)
        self.name = name


class Reply(Record):
    """The body of a reply, and the byte order of its numbers as `struct` has it."""

    order: str
    body: bytes

    @property
    def text(self) -> str:
        """The string that the body begins with; empty if there is none."""
        return _text(self.body, self.order)

    @property
    def flag(self) -> bool:
        """Whether the boolean that the body begins with is true."""
        return _number(self.body, self.order) == 1


class Bus:
    """A connection to the system bus. A call starts no service that is not running."""

    def __init__(self) -> None:
        """Connect. Raises `DBusError` if there is no bus."""
        self._serial = 0
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(_REPLY_TIMEOUT)
        try:
            self._authenticate()
            self.call(_BUS, "/org/freedesktop/DBus", _BUS, "Hello")
        except OSError as error:
            self.close()
            raise DBusError("", f"the system's D-Bus: {error.strerror or error}") from error
        except DBusError:
            self.close()
            raise

    def _authenticate(self) -> None:
        """Authenticate as the user of this process."""
        self._socket.connect(ADDRESS)
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode())
        self._socket.sendall(b"\r\n")
        if not self._line().startswith(b"OK "):
            raise DBusError("", "the system's D-Bus refuses the connection")
        self._socket.sendall(b"BEGIN\r\n")

    def __enter__(self) -> Self:
        """Return the connection itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def has(self, name: str) -> bool:
        """Whether a service with that name is running. Raises `DBusError`."""
        path = "/org/freedesktop/DBus"
        return self.call(_BUS, path, _BUS, "NameHasOwner", name).flag

    def call(
        self, destination: str, path: str, interface: str, member: str, *arguments: str | int
    ) -> Reply:
        """Call a method; return the reply. Raises `DBusError`."""
        self._serial += 1
        signature = "".join("s" if isinstance(each, str) else "u" for each in arguments)
        body = b""
        for each in arguments:
            body += bytes(-len(body) % 4)
            body += _string(each) if isinstance(each, str) else struct.pack("<I", each)
        fields = [
            (_PATH, "o", path),
            (_INTERFACE, "s", interface),
            (_MEMBER, "s", member),
            (_DESTINATION, "s", destination),
        ]
        header = b""
        for number, kind, value in fields:
            header += bytes(-len(header) % 8)
            header += bytes((number, 1)) + kind.encode() + b"\0" + _string(value)
        if signature:
            header += bytes(-len(header) % 8)
            header += bytes((_SIGNATURE, 1)) + b"g\0" + _signature(signature)
        start = struct.pack(
            "<cBBBIII", b"l", _CALL, _NO_AUTO_START, 1, len(body), self._serial, len(header)
        )
        message = start + header
        try:
            self._socket.sendall(message + bytes(-len(message) % 8) + body)
            return self._answer()
        except OSError as error:
            raise DBusError("", f"{destination}: {error.strerror or error}") from error

    def _answer(self) -> Reply:
        """Return the reply to the last call; other messages are skipped."""
        while True:
            head = self._read(16)
            order = _ORDERS.get(head[:1])
            if order is None:
                raise DBusError("", f"the system's D-Bus: no byte order is {head[:1]!r}")
            kind, size, _, length = struct.unpack(f"{order}xBxxIII", head)
            fields = _fields(self._read(length + -length % 8)[:length], order)
            reply = Reply(order, self._read(size))
            if _number(fields.get(_REPLY_SERIAL, b""), order) != self._serial:
                continue
            if kind == _RETURN:
                return reply
            if kind == _ERROR:
                name = _text(fields[_ERROR_NAME], order)
                raise DBusError(name, reply.text or name)

    def _line(self) -> bytes:
        """Read a line of the authentication dialogue."""
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._read(1)
        return line

    def _read(self, size: int) -> bytes:
        """Read SIZE bytes."""
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise DBusError("", "the system's D-Bus has hung up")
            data += more
        return data


def _number(data: bytes, order: str) -> int:
    """Return the number that DATA begins with; 0 if there is none."""
    return int(struct.unpack_from(f"{order}I", data)[0]) if len(data) >= _WORD else 0


def _text(data: bytes, order: str) -> str:
    """Return the string that a body, or a field, begins with; empty if there is none."""
    return data[_WORD : _WORD + _number(data, order)].decode("utf-8", "replace")


def _string(value: str) -> bytes:
    """Encode a string or an object path."""
    raw = plain_text.line(value).encode()
    return struct.pack("<I", len(raw)) + raw + b"\0"


def _signature(value: str) -> bytes:
    """Encode a signature."""
    return bytes((len(value),)) + value.encode() + b"\0"


def _fields(data: bytes, order: str) -> dict[int, bytes]:
    """Return a header's fields: the raw value of each by its code."""
    found, at = {}, 0
    while at < len(data):
        at += -at % 8
        number, kind = data[at], data[at + 2 : at + 3]
        at += 4
        if kind == b"g":
            size = data[at] + 2
        else:
            size = _WORD if kind == b"u" else _WORD + _number(data[at : at + _WORD], order) + 1
        found[number] = data[at : at + size]
        at += size
    return found
