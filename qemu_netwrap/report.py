"""Messages to the user, on standard error: standard output belongs to QEMU."""

from __future__ import annotations

import os

import qemu_netwrap


def tell(line: str) -> None:
    """Print a message on standard error; if that is closed, the message is dropped."""
    if not line.isprintable():
        # A step that -v shows may be a command of several lines.
        printable = qemu_netwrap.printable
        line = printable.lines(line) if line.startswith("+ ") else printable.line(line)
    try:
        os.write(2, f"qemu-netwrap: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # QEMU ignores that, too
