"""D-Bus replies are read in the byte order that they are written in, whole or in pieces."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.linux import dbus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RETURN, ERROR = 2, 3
ERROR_NAME, REPLY_SERIAL = 4, 5
LITTLE, BIG = "<", ">"


def encoded(text: str, order: str) -> bytes:
    """A string as D-Bus has it."""
    return struct.pack(f"{order}I", len(text)) + text.encode() + b"\0"


def message(kind: int, serial: int, body: bytes, order: str, error: str = "") -> bytes:
    """A reply to the call of that serial number."""
    fields = bytes((REPLY_SERIAL, 1)) + b"u\0" + struct.pack(f"{order}I", serial)
    if error:
        fields += bytes((ERROR_NAME, 1)) + b"s\0" + encoded(error, order)
    first = b"l" if order == LITTLE else b"B"
    head = first + struct.pack(f"{order}BBBIII", kind, 0, 1, len(body), 99, len(fields))
    return head + fields + bytes(-len(fields) % 8) + body


class Daemon:
    """A bus that lets everybody in, and gives prepared replies."""

    def __init__(self, path: Path, replies: list[bytes], *, piecemeal: bool) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._replies = replies
        self._piecemeal = piecemeal
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            self._skip_line(connection)
            connection.sendall(b"OK 0123\r\n")
            self._skip_line(connection)
            for reply in self._replies:
                connection.recv(100_000)  # the call; what it says is not this test's
                step = 3 if self._piecemeal else len(reply)
                for at in range(0, len(reply), step):
                    connection.sendall(reply[at : at + step])

    @staticmethod
    def _skip_line(connection: socket.socket) -> None:
        while connection.recv(1) not in (b"\n", b""):
            pass

    def close(self) -> None:
        self._listening.close()
        self.thread.join(10)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that starts a bus with replies to `Hello` and what comes after it."""
    started: list[Daemon] = []

    def start(*replies: bytes, piecemeal: bool = False) -> None:
        path = tmp_path / "bus"
        monkeypatch.setattr(dbus, "ADDRESS", str(path))
        started.append(Daemon(path, list(replies), piecemeal=piecemeal))

    yield start
    for daemon in started:
        daemon.close()


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("piecemeal", [False, True])
def test_strings(serve: Callable[..., None], order: str, *, piecemeal: bool) -> None:
    hello = message(RETURN, 1, encoded(":1.7", order), order)
    zone = message(RETURN, 2, encoded("trusted" * 50_000, order), order)
    serve(hello, zone, piecemeal=piecemeal)
    with dbus.Bus() as bus:
        assert bus.call("name", "/", "interface", "member").text == "trusted" * 50_000


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("value", [0, 1])
def test_booleans(serve: Callable[..., None], order: str, value: int) -> None:
    hello = message(RETURN, 1, encoded(":1.7", order), order)
    serve(hello, message(RETURN, 2, struct.pack(f"{order}I", value), order))
    with dbus.Bus() as bus:
        assert bus.has("org.example") == bool(value)


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_errors(serve: Callable[..., None], order: str) -> None:
    # The bus itself may have another byte order than the service that answers.
    hello = message(RETURN, 1, encoded(":1.7", LITTLE), LITTLE)
    body = encoded("no such zone", order)
    serve(hello, message(ERROR, 2, body, order, "org.example.Error"))
    with dbus.Bus() as bus, pytest.raises(dbus.DBusError, match="no such zone") as raised:
        bus.call("name", "/", "interface", "member")
    assert raised.value.name == "org.example.Error"


def test_others_replies_are_left_aside(serve: Callable[..., None]) -> None:
    hello = message(RETURN, 1, encoded(":1.7", LITTLE), LITTLE)
    others = message(RETURN, 1 << 24, encoded("another's", BIG), BIG)
    serve(hello, others + message(RETURN, 2, encoded("ours", BIG), BIG))
    with dbus.Bus() as bus:
        assert bus.call("name", "/", "interface", "member").text == "ours"


def test_no_byte_order(serve: Callable[..., None]) -> None:
    serve(b"x" + message(RETURN, 1, b"", LITTLE)[1:])
    with pytest.raises(dbus.DBusError, match="byte order"):
        dbus.Bus()


def test_hung_up(serve: Callable[..., None]) -> None:
    serve(message(RETURN, 1, encoded(":1.7", LITTLE), LITTLE)[:-3])
    with pytest.raises(dbus.DBusError, match="hung up"):
        dbus.Bus()
