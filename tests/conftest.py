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
from lab.side_by_side import SideBySide

if TYPE_CHECKING:
    from collections.abc import Generator

    from xdist.remote import Producer

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


# These take long: they begin first.
_EARLY = ("vfio", "crash", "fidelity")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long at the beginning, so that no worker has it left at the end."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in _EARLY)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    """Say how tests are dealt out to workers (pytest-xdist)."""
    return SideBySide(config, log)


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
