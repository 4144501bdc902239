"""Waiting for what nothing tells of: by looking again and again, for so long."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def wait(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Return whether CONDITION holds: as soon as it does, or when SECONDS are over.

    PAUSE are the seconds between two looks.
    """
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= until:
            return False
        _sleep(pause)
    return True


def insist(action: Callable[[], T], refusal: int, seconds: float, pause: float = 0.05) -> T:
    """Return what ACTION returns once it is not refused with errno REFUSAL any more.

    Raises that `OSError` when SECONDS are over, and any other at once.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != refusal or time.monotonic() >= until:
                raise
        _sleep(pause)


def _sleep(seconds: float) -> None:
    """Sleep by poll(2), whose time is relative; time.sleep waits for a moment of a clock's."""
    select.poll().poll(seconds * 1000)
