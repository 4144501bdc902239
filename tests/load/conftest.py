"""What the tests of load share: chance, and what is said of it."""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

from load.fleet import TALLY

_SEED: Final = os.environ.get("LOAD_SEED") or str(int.from_bytes(os.urandom(4)))


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Return chance that the seed decides."""
    print(f"LOAD_SEED={_SEED}")  # noqa: T201  shown where a test fails
    return random.Random(f"{_SEED} {request.node.name}")  # noqa: S311  not for secrets


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was done, and the seed."""
    if TALLY:
        terminalreporter.section("load")
        terminalreporter.write_line(f"seed {_SEED} (LOAD_SEED repeats it)")
        for what, count in TALLY.items():
            terminalreporter.write_line(f"{count:7} {what}")
