"""Waiting for what nothing tells of: by looking again and again, for so long."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def wait(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Return whether CONDITION holds: as soon as it does, or when SECONDS are over.

    PAUSE are the seconds between two looks.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
    return True
