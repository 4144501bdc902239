"""SIGKILL at every write and effect of a run: nothing is left, and a living QEMU has its network.

Of the points, of the pairs of victims, and of the second kill during the clean-up of the first, a
sample of the seed's is tried; with SOAK=1 all of them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import queue
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from crash.injected import DNSMASQ, KEEPER, QEMU, SELF
from crash.trials import ADDS_TO_NAT, MODES, SERVED, Case, Subject, pairs, singles
from lab import tally
from lab.chance import SOAK, chance, sampled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How many of a mode's cases a sample has.
_SINGLES: Final = 24
_PAIRS: Final = 8
_AGAIN: Final = 8
_REAL: Final = 3
_WORKERS: Final = 2
_ENOUGH: Final = 8  # failures: more of them tell nothing more
_LONGEST_CLEANING: Final = 1000


@contextlib.contextmanager
def subjects(mode: str, folder: Path) -> Iterator[list[Subject]]:
    """Yield machines to try on, one for each processor that is used."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Subject(mode, folder / str(n))) for n in range(_WORKERS)]


class Trying:
    """Tries cases on several machines side by side."""

    def __init__(self, found: list[Subject]) -> None:
        """Take the machines."""
        self.failures: list[str] = []
        self._idle: queue.Queue[Subject] = queue.Queue()
        for subject in found:
            self._idle.put(subject)

    def all(self, cases: Iterator[Case], *, real: bool = False) -> list[bool]:
        """Try all cases; return for each whether its kill happened."""

        def one(numbered: tuple[int, Case]) -> bool:
            number, case = numbered
            return self.one(case, by_launch=number % 2 == 0, real=real)

        with concurrent.futures.ThreadPoolExecutor(_WORKERS) as pool:
            return list(pool.map(one, enumerate(cases)))

    def one(self, case: Case, *, by_launch: bool, real: bool = False) -> bool:
        """Try one case; return whether its kill happened."""
        if len(self.failures) >= _ENOUGH:
            return False
        subject = self._idle.get()
        try:
            struck = subject.attempt(case, by_launch=by_launch, real=real)
            if struck:
                tally.TRIED[subject.mode, case.who] += 1
            return struck
        except (AssertionError, OSError) as error:
            tally.TRIED[subject.mode, case.who] += 1
            tally.LEAKS[subject.mode, case.who] += 1
            said = subject.told().strip()
            then = "the next launch" if by_launch else "gc"
            self.failures.append(f"{subject.mode}: {case}, then {then}:\n{error}\n{said}")
            subject.renew()
            return True
        finally:
            self._idle.put(subject)

    def midlife(self, victims: tuple[str, ...], *, by_launch: bool, real: bool) -> None:
        """Kill victims in the middle of a run."""
        subject = self._idle.get()
        who = f"{' + '.join(victims)} in mid-life"
        tally.TRIED[subject.mode, who] += 1
        try:
            subject.live_and_die(victims, by_launch=by_launch, real=real)
        except (AssertionError, OSError) as error:
            tally.LEAKS[subject.mode, who] += 1
            self.failures.append(f"{subject.mode}: {who}:\n{error}\n{subject.told()}")
            subject.renew()
        finally:
            self._idle.put(subject)

    def check(self) -> None:
        """Fail the test if a case has."""
        if self.failures:
            pytest.fail("\n\n".join(self.failures), pytrace=False)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, lab: None) -> str:
    """Return each mode."""
    name: str = request.param
    return name


def test_one_is_killed_at_any_point(mode: str, tmp_path: Path) -> None:
    with subjects(mode, tmp_path) as found:
        trying = Trying(found)
        cases = list(singles(found[0].events()))
        if mode in ADDS_TO_NAT:
            cases = [case for case in cases if case.victims == (SELF,) and not case.is_half]
            cases = [case for case in cases if case.who == KEEPER]
        cases = sampled(cases, _SINGLES, f"{mode} single")
        struck = trying.all(iter(cases))
        trying.check()
    # What runs side by side has no fixed order: dnsmasq may come one event later than it did.
    missed = [case for case, hit in zip(cases, struck, strict=True) if not hit]
    assert all(case.victims == (DNSMASQ,) for case in missed), missed


def test_two_are_killed_at_once(mode: str, tmp_path: Path) -> None:
    with subjects(mode, tmp_path) as found:
        trying = Trying(found)
        cases = list(pairs(found[0].events()))
        trying.all(iter(sampled(cases, _PAIRS, f"{mode} pairs")))
        trying.check()


def test_who_cleans_up_is_killed_too(mode: str, tmp_path: Path) -> None:
    with subjects(mode, tmp_path) as found:
        trying = Trying(found)
        events = found[0].events()
        draw = chance(f"{mode} after")
        cases = [*singles(events), *pairs(events)]
        if SOAK:
            for case in cases:
                _all_second_kills(trying, case)
        else:
            some = sampled(cases, _AGAIN, f"{mode} again")
            trying.all(iter([replace(case, after=draw.randint(1, 40)) for case in some]))
        trying.check()


def _all_second_kills(trying: Trying, case: Case) -> None:
    """Kill whoever cleans up at its every event, until the clean-up has no more of them."""
    for after in range(1, _LONGEST_CLEANING):
        again = replace(case, after=after)
        if not any(trying.all(iter((again, again)))):  # once by the next launch, once by gc
            return
    pytest.fail(f"the clean-up of {case} does not end")


def test_a_real_qemu_in_a_sample_of_points(mode: str, tmp_path: Path) -> None:
    with subjects(mode, tmp_path) as found:
        trying = Trying(found)
        events = found[0].events()
        cases = [*singles(events), *pairs(events)]
        trying.all(iter(sampled(cases, _REAL, f"{mode} real")), real=True)
        trying.check()


def _living(mode: str) -> list[str]:
    """Return who lives beside each other in the middle of a run."""
    return [KEEPER, QEMU, *([DNSMASQ] if mode in SERVED else [])]


def test_in_mid_life_any_of_them_is_killed(mode: str, tmp_path: Path) -> None:
    with subjects(mode, tmp_path) as found:
        trying = Trying(found)
        for count, by_launch in itertools.product((1, 2, 3), (False, True)):
            for victims in itertools.combinations(_living(mode), count):
                trying.midlife(victims, real=count == 1, by_launch=by_launch)
        trying.check()
