"""The table of points and leaks, at the end of the tests' output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crash.trials import TALLY

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tried."""
    if TALLY.tried:
        terminalreporter.section("crash points")
        for line in TALLY.lines():
            terminalreporter.write_line(line)
