"""Polling with a time-out, for conditions that the kernel sends no notification of."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_INTERVAL = 0.05  # seconds


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = _INTERVAL) -> bool:
    """Wait until CONDITION holds, for at most TIMEOUT seconds; return whether it does.

    It is asked every INTERVAL seconds, and at least once.
    """
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= until:
            return False
        _sleep(interval)
    return True


def retry(action: Callable[[], T], refusal: int, timeout: float, interval: float = _INTERVAL) -> T:
    """Return what ACTION returns; while it fails with errno REFUSAL, try again.

    Every INTERVAL seconds, for at most TIMEOUT seconds: after that the `OSError` is raised, as any
    other is at once.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            return action()
        except OSError as error:
            if error.errno != refusal or time.monotonic() >= until:
                raise
        _sleep(interval)


def _sleep(seconds: float) -> None:
    """Sleep by poll(2), whose time is relative: time.sleep(3) waits for a time of a clock."""
    select.poll().poll(seconds * 1000)
