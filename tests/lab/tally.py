"""What the tests have tried, counted over all workers, for the end of the output."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIED: Final[collections.Counter[tuple[str, str]]] = collections.Counter()  # by mode and victims
LEAKS: Final[collections.Counter[tuple[str, str]]] = collections.Counter()  # the same
DONE: Final[collections.Counter[str]] = collections.Counter()  # under load
_ALL: Final[dict[str, collections.Counter[Any]]] = {"tried": TRIED, "leaks": LEAKS, "done": DONE}


def told() -> dict[str, dict[Any, int]]:
    """Return the counts as a worker sends them."""
    return {name: dict(counts) for name, counts in _ALL.items()}


def merge(other: dict[str, dict[Any, int]]) -> None:
    """Add what a worker has counted."""
    for name, counts in other.items():
        _ALL[name].update(counts)


def crash_lines() -> Iterator[str]:
    """Yield the table of crash points."""
    yield f"{'mode':17}{'killed':34}{'points':>7}{'leaks':>7}"
    for mode, who in sorted(TRIED):
        yield f"{mode:17}{who:34}{TRIED[mode, who]:7}{LEAKS[mode, who]:7}"
    yield f"{'':17}{'points tried, leaks':34}{TRIED.total():7}{LEAKS.total():7}"


def load_lines() -> Iterator[str]:
    """Yield what was done under load."""
    for what, count in sorted(DONE.items()):
        yield f"{count:7} {what}"
