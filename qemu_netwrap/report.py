"""Saying something to the user: on standard error, for standard output is QEMU's."""

from __future__ import annotations

import os


def tell(line: str) -> None:
    """Say something, if anybody hears."""
    if not line.isprintable():
        from qemu_netwrap import printable  # what hardly a launch needs

        # A step that -v shows may be a command of several lines.
        line = printable.lines(line) if line.startswith("+ ") else printable.line(line)
    try:
        os.write(2, f"qemu-netwrap: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # QEMU would not mind either
