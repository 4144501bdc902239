"""A terminal for tests: a pty that a program is started on as the leader of its session."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import termios
import threading
from typing import TYPE_CHECKING, Self

from lab.netns import wait_for

if TYPE_CHECKING:
    from lab.netns import Host
    from lab.user import User


class Terminal:
    """A terminal, and the program on it; all that is shown is read and kept."""

    def __init__(self, host: Host | User, *words: str) -> None:
        """Start WORDS on a new terminal of HOST, which becomes their controlling one."""
        self.master, slave = os.openpty()
        self.child = host.popen(
            *("setsid", "--ctty", *words), stdin=slave, stdout=slave, stderr=slave
        )
        self._name = os.ttyname(slave)
        os.close(slave)
        self.pid = self.child.pid
        self._shown = b""
        self._closing = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Return the terminal itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the program if it is there still, and close the terminal."""
        self.child.kill()
        self.child.wait(30)
        self.hang_up()

    @property
    def shown(self) -> str:
        """All that has been written to the terminal so far."""
        return self._shown.decode("utf-8", "replace")

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def wait_shown(self, text: str) -> None:
        """Wait until TEXT has been written to the terminal."""
        wait_for(lambda: text in self.shown, f"{text!r} on the terminal")

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """Close the terminal, as when a window is closed or a connection is lost."""
        master, self.master = self.master, -1
        if master >= 0:
            # A read that is under way would keep it open: something to read ends it.
            copy, slave = master, os.open(self._name, os.O_RDWR | os.O_NOCTTY)
            self._closing = True
            os.write(slave, b"\n")
            os.close(slave)
            self._reader.join(30)
            os.close(copy)

    def _read(self) -> None:
        """Read until the terminal is closed from either side."""
        master = self.master
        with contextlib.suppress(OSError):
            while raw := os.read(master, 65536):
                self._shown += raw  # what the program wrote last may have come only now
                if self._closing:
                    break
