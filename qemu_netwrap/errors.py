"""The program's errors: one line that says what failed and where, and a hint with the remedy.

Exit statuses are those of env(1), timeout(1) and other programs that run a program: 125 when the
wrapper itself fails, 126 when the command cannot be executed, 127 when it is not found.
"""

from __future__ import annotations

import qemu_netwrap

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def _shown(text: str) -> str:
    """Return TEXT as one line of printable characters, on which a terminal does not act."""
    if text.isprintable():
        return text
    return qemu_netwrap.printable.line(text)


class NetwrapError(Exception):
    """qemu-netwrap failed. `message` is one line; `hint` is the remedy, or empty."""

    status = FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep message and hint apart: they are printed on lines of their own."""
        # What users typed, or files hold, may contain line ends and escape sequences.
        self.message, self.hint = _shown(message), _shown(hint)
        super().__init__(self.message)


class UsageError(NetwrapError):
    """An option of qemu-netwrap is invalid, or its extension within an option of QEMU's."""


class ConfigError(NetwrapError):
    """The configuration file is wrong; the message starts with FILE:LINE."""


class HostError(NetwrapError):
    """The host refuses or lacks something: a privilege, a program, a device, a free name."""


class NotExecutableError(NetwrapError):
    """QEMU was found and cannot be executed."""

    status = NOT_EXECUTABLE


class NotFoundError(NetwrapError):
    """QEMU was not found."""

    status = NOT_FOUND
