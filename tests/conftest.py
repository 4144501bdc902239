"""What every test shares: the lab, and that in CI a test which cannot run is a failure."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from lab import chance, reachable, tally

if TYPE_CHECKING:
    from collections.abc import Generator

pytest_plugins = ["lab.fixtures"]


def pytest_configure() -> None:
    """Start the tests' programs as a user's shell would.

    Under nohup, or in the background of a script, some signals are ignored, and children inherit
    that (signal(7)). What has a handler is at its default in another program.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    for needed in (Path(__file__), Path(sys.executable)):
        reachable.expose(needed)
    # A slow machine is no fault of what is tested.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")


# Tests that share what is dear to make stay in one worker; those that take long begin first.
_TOGETHER = ("vfio", "cost")
_EARLY = ("vfio", "crash", "fidelity")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Prepare for workers side by side (pytest-xdist, `--dist loadgroup`); harmless without."""
    here = Path(__file__).parent
    folders = {item: item.path.relative_to(here).parts[0] for item in items}
    for item, folder in folders.items():
        if folder in _TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))
    items.sort(key=lambda item: folders[item] not in _EARLY)


def pytest_report_header() -> str:
    """Tell the seed of all samples."""
    return f"seed: {chance.SEED} (SEED={chance.SEED} repeats the samples, SOAK=1 tries everything)"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker: send what was counted."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tally"] = tally.told()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Add up what the workers have counted; one that crashed has sent nothing."""
    tally.merge(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tried."""
    for title, counts, lines in (
        ("crash points", tally.TRIED, tally.crash_lines()),
        ("load", tally.DONE, tally.load_lines()),
    ):
        if counts:
            terminalreporter.section(title)
            terminalreporter.write_line(f"seed {chance.SEED}")
            for line in lines:
                terminalreporter.write_line(line)


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure with its reason. An expected failure, xfail, is not a skip."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    where = report.longrepr
    reason = where[2] if isinstance(where, tuple) else where
    report.outcome = "failed"
    report.longrepr = f"in CI every test has to run: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """For a test that skips itself, or is marked to be skipped."""
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """For a file that skips itself as a whole."""
    report = yield
    fail_if_skipped(report)
    return report
