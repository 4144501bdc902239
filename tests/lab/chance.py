"""Chance: what is sampled, by a seed that the head of the output tells and SEED=… repeats.

SOAK=1 (`make soak`) tries everything instead of a sample.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

SOAK: Final = bool(os.environ.get("SOAK"))
# Workers of one suite inherit it (tests/conftest.py).
SEED: Final = os.environ.setdefault("SEED", str(int.from_bytes(os.urandom(4))))


def chance(name: str) -> random.Random:
    """Return chance that the seed and NAME decide."""
    return random.Random(f"{SEED} {name}")  # noqa: S311  not for secrets


def sampled(cases: Sequence[T], count: int, name: str) -> list[T]:
    """Return COUNT of the cases as NAME's chance decides, or all of them with SOAK."""
    if SOAK:
        return list(cases)
    return chance(name).sample(list(cases), min(count, len(cases)))


def steps(last: int, name: str) -> Iterator[int]:
    """Yield 1 and then, to LAST, one number of three as NAME's chance decides, or all with SOAK.

    For what has as many steps as it has: the caller stops behind its end.
    """
    dice = chance(name)
    step = 1
    while step <= last:
        yield step
        step += 1 if SOAK else dice.randint(1, 5)
