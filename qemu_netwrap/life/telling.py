"""Saying something to the user: on standard error, for standard output is QEMU's."""

from __future__ import annotations

import os


def tell(line: str) -> None:
    """Say something, if anybody hears."""
    try:
        os.write(2, f"qemu-netwrap: {line}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # QEMU would not mind either
