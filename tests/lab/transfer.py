"""A TCP connection that transfers without pause, both ways, and tells if it breaks.

As a program it is one end: `transfer.py listen|connect ADDRESS PORT`. Each line on its standard
input is answered with the bytes received so far and the longest time, in ms, without any since the
last line; the end of the connection ends it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from lab.netns import Host

_CHUNK = bytes(1448)
_PAUSE = 0.001  # the wire is a piece of memory: unhindered it would take the whole processor


class Transfer:
    """A connection from one machine to another."""

    def __init__(self, client: Host, server: Host, address: str, port: int) -> None:
        """Connect; data flows on return."""
        where = (address, str(port))
        # Not by the wheel's path: the file is the same on every simulated machine.
        program = (sys.executable, str(Path(__file__).resolve()))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._ends = [server.popen(*program, "listen", *where, **pipes)]
        server.wait_listening("tcp6" if ":" in address else "tcp", port)
        self._ends.append(client.popen(*program, "connect", *where, **pipes))
        self.flows()

    def __enter__(self) -> Self:
        """Return the transfer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        for end in self._ends:
            end.kill()
            end.communicate()

    def flows(self) -> float:
        """See that both ends receive, now; return the longest pause since the last call, in ms."""
        before = [self._ask(end) for end in self._ends]
        deadline = time.monotonic() + 60
        waiting = list(range(len(self._ends)))
        while waiting:
            waiting = [n for n in waiting if self._ask(self._ends[n])[0] <= before[n][0]]
            assert time.monotonic() < deadline, "nothing comes any more"
        return max(pause for _, pause in before)

    def _ask(self, end: subprocess.Popen[str]) -> tuple[int, float]:
        """Return what one end says; AssertionError when its connection has broken."""
        assert end.stdin is not None
        assert end.stdout is not None
        assert end.poll() is None, "the connection has broken"
        end.stdin.write("\n")
        end.stdin.flush()
        line = end.stdout.readline()
        assert line, "the connection has broken"
        received, pause = line.split()
        return int(received), float(pause)


class _End:
    """One end, in its own process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = 0
        self.pause = 0.0
        self.last = time.monotonic()

    def send(self) -> None:
        while True:
            self.connection.sendall(_CHUNK)
            time.sleep(_PAUSE)

    def receive(self) -> None:
        while data := self.connection.recv(1 << 16):
            now = time.monotonic()
            self.pause, self.last = max(self.pause, now - self.last), now
            self.received += len(data)

    def answer(self) -> None:
        for _ in sys.stdin:
            pause, self.pause = max(self.pause, time.monotonic() - self.last), 0.0
            sys.stdout.write(f"{self.received} {pause * 1000:.1f}\n")
            sys.stdout.flush()


def _main(how: str, address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if how == "listen":
        with socket.create_server((address, port), family=family) as server:
            connection, _ = server.accept()
    else:
        connection = socket.create_connection((address, port))
    end = _End(connection)
    threads = [threading.Thread(target=each, daemon=True) for each in (end.send, end.answer)]
    for thread in threads:
        thread.start()
    end.receive()


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
