"""An event loop: sockets, and what is called when something happens to them (epoll(7)).

Not by `selectors`: they cannot watch a socket for a reset alone, which a connection whose buffers
are full has to notice.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import NoReturn

IN, OUT, ERROR, HANG_UP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
NOTHING = -1  # not even ERROR and HANG_UP, which epoll(7) reports unasked, as long as they last


class Loop:
    """Sockets, and times, with what is called for them."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._wanted: dict[int, int] = {}
        self._ended: list[socket] = []
        self._freed: dict[Callable[[], None], None] = {}  # in order, each once
        self._timers: dict[Callable[[], None], float] = {}

    def add(self, watched: socket, wanted: int, call: Callable[[int], None]) -> None:
        """Call CALL with what has happened when that is among WANTED, or a reset or hang-up.

        For as long as it lasts: a call that changes nothing is called again. Raises `OSError` where
        the kernel watches no more sockets.
        """
        self.want(watched, wanted)
        self._calls[watched.fileno()] = call

    def want(self, watched: socket, wanted: int) -> None:
        """Change what a socket is watched for: IN, OUT, both, 0, or NOTHING. Raises `OSError`."""
        fd = watched.fileno()
        before = self._wanted.get(fd, NOTHING)
        if wanted == before:
            return
        if wanted == NOTHING:
            self._poll.unregister(fd)
        elif before == NOTHING:
            self._poll.register(fd, wanted)
        else:
            self._poll.modify(fd, wanted)
        self._wanted[fd] = wanted

    def end(self, watched: socket) -> None:
        """Close a socket, and call nothing more for it.

        It is closed when what has happened meanwhile to others is done: a new socket could get its
        number, and an event of this one.
        """
        fd = watched.fileno()
        self._calls.pop(fd, None)
        if self._wanted.pop(fd, NOTHING) != NOTHING:
            self._poll.unregister(fd)
        self._ended.append(watched)

    def when_freed(self, call: Callable[[], None]) -> None:
        """Call CALL once, when a socket has been closed; once too if asked for it again."""
        self._freed[call] = None

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call CALL once, at a time of the monotonic clock; a later call replaces an earlier."""
        self._timers[call] = when

    def run(self) -> NoReturn:
        """Run for ever."""
        while True:
            for fd, happened in self._poll.poll(self._timeout()):
                call = self._calls.get(fd)
                if call is not None:
                    call(happened)
            if self._timers:
                self._call_timers()
            self._close_ended()

    def _timeout(self) -> float | None:
        """Return for how long nothing has to be done; None for ever."""
        if not self._timers:
            return None
        return max(0, min(self._timers.values()) - time.monotonic())

    def _close_ended(self) -> None:
        """Close what has ended; call those that wait for a descriptor."""
        if not self._ended:
            return
        for socket in self._ended:
            socket.close()
        self._ended.clear()
        waiting, self._freed = self._freed, {}
        for call in waiting:
            call()

    def _call_timers(self) -> None:
        """Call what is due."""
        now = time.monotonic()
        for call in [call for call, when in self._timers.items() if when <= now]:
            del self._timers[call]
            call()
