"""A look at processes from outside of a user namespace, for a command that works inside of one.

The descriptors of a process are shown to who may trace it, and from a user namespace no process of
the one above may be traced (ptrace(2), PTRACE_MODE_READ). A QEMU is such a process: it is the
user's, outside. So a child that stays there looks for the command; it ends with it.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from qemu_netwrap.linux import files, foreign_fds, proc

if TYPE_CHECKING:
    from collections.abc import Callable

_MESSAGE = 1 << 20


def station() -> None:
    """Leave a child here that answers what this process may not see once it is elsewhere."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, its):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MESSAGE)
    if os.fork() == 0:
        try:
            files.close_from(0, its.fileno())  # locks, which others would take for this process's
            _answer(its)
        finally:
            os._exit(0)
    its.close()

    def ask(*words: str | int) -> Any:  # noqa: ANN401 - of each question another type
        ours.send(json.dumps(words).encode())
        return json.loads(ours.recv(_MESSAGE))

    proc.outside = ask


_QUESTIONS: dict[str, Callable[..., object]] = {
    "names": proc.names,
    "read": proc.read,
    "kind": foreign_fds.kind_of,
    "tap": foreign_fds.tap_of,
}


def _answer(its: socket.socket) -> None:
    """Answer until the other end is closed."""
    while request := its.recv(_MESSAGE):
        name, *words = json.loads(request)
        answer = json.dumps(_QUESTIONS[name](*words)).encode()
        its.send(answer if len(answer) <= _MESSAGE else b"null")
