"""SIGKILL at the steps of a run that passes devices through, as a program in the nested machine.

    dying.py CASES SEED WORDS...

The way of tests/crash: the program with its writes and effects counted, QEMU's stand-in, and each
time the machine compared with before. As JSON it prints how many points there are, how many were
tried, and what was not as before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash import injected
from crash.injected import KEEPER, LAUNCHER, QEMU
from crash.trials import Case, Event, pairs, singles
from vfio.inside import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 120.0
_STAND_IN = "#!/bin/sh\nexec sleep infinity\n"


class Dying:
    """Runs that are killed, one after the other."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        """Start the server that runs the program with WORDS."""
        self._folder = folder
        self._number = 0
        folder.mkdir()
        program = folder / "guest"
        program.write_text(_STAND_IN)
        program.chmod(0o755)
        self._argv = ["--", str(program), *words]
        self._server = subprocess.Popen(
            [sys.executable, injected.__file__, "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, injected.PASSES: "1"},
        )
        self.before = snapshot()

    def events(self) -> list[Event]:
        """Return the events of a run that nobody disturbs."""
        trial, wrong = self._run(Case(), dry=True)
        if wrong:
            raise RuntimeError(wrong)
        rows = (line.split(" ", 2) for line in (trial / "log").read_text().splitlines())
        return [Event(role, int(number), name, served=False) for role, number, name in rows]

    def attempt(self, case: Case) -> str:
        """Try a case; return what is not as it was before."""
        return self._run(case)[1]

    def _run(self, case: Case, *, dry: bool = False) -> tuple[Path, str]:
        """Launch, end QEMU, see to what is left; return the trial's folder, and what is wrong."""
        self._number += 1
        trial = self._folder / str(self._number)
        trial.mkdir()
        rules: dict[str, Any] = {"dry": dry}
        if case.role:
            rules |= {"role": case.role, "at": case.at, "victims": case.victims}
        (trial / "rules").write_text(json.dumps(rules))
        started = self._ask(folder=str(trial), argv=self._argv)
        if started["lives"]:
            _until(lambda: _dead(trial, KEEPER)() or _sleeps(trial))
            if {QEMU, LAUNCHER} & set(_fired(trial)):
                _until(lambda: not injected.lives(started["pid"]))
            self._ask(end=started["pid"], signal=signal.SIGKILL)
        _until(_dead(trial, KEEPER))
        if (trial / "fired").exists():
            answer = self._ask(folder=str(trial), argv=["gc"])
            if answer["status"]:
                return trial, f"gc ended with {answer['status']}: {_told(trial)}"
        return trial, self._difference() or ("Traceback" in _told(trial) and _told(trial)) or ""

    def _difference(self) -> str:
        """Return what is not as it was before, soon."""
        deadline = time.monotonic() + _PATIENCE
        while (now := snapshot()) != self.before and time.monotonic() < deadline:
            time.sleep(0.1)
        before = self.before
        return "; ".join(f"{k}: {before[k]} became {now[k]}" for k in now if now[k] != before[k])

    def _ask(self, **told: Any) -> dict[str, Any]:
        """Tell the server something; return its answer."""
        to, back = self._server.stdin, self._server.stdout
        if to is None or back is None:
            raise RuntimeError(told)
        to.write(json.dumps(told) + "\n")
        to.flush()
        answer: dict[str, Any] = json.loads(back.readline())
        return answer


def _fired(trial: Path) -> list[str]:
    """Return who was killed."""
    return (trial / "fired").read_text().split() if (trial / "fired").exists() else []


def _told(trial: Path) -> str:
    """Return what was said on standard error."""
    return (trial / "err").read_text() if (trial / "err").exists() else ""


def _sleeps(trial: Path) -> bool:
    """Return whether the keeper has become flock(1), asleep."""
    words = Path("/proc", str(injected.pids(str(trial)).get(KEEPER, "none")), "cmdline")
    return words.exists() and "/runs/" in words.read_text()


def _dead(trial: Path, role: str) -> Callable[[], bool]:
    """Return whether a role's process is gone, if there ever was one."""
    return lambda: (
        not (trial / "pids").exists() or not injected.lives(injected.pids(str(trial)).get(role, 0))
    )


def _until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def main() -> None:
    """Try so many cases."""
    number, seed, *words = sys.argv[1:]
    dying = Dying(Path("/mnt/job/dying"), words)
    events = dying.events()
    cases = [*singles(events), *pairs(events)]
    chosen = random.Random(int(seed)).sample(cases, min(int(number), len(cases)))  # noqa: S311
    wrong = [f"{case}: {found}" for case in chosen if (found := dying.attempt(case))]
    told = {"points": len(events), "cases": len(cases), "tried": len(chosen), "wrong": wrong}
    print(json.dumps(told))  # noqa: T201 - a program's answer


if __name__ == "__main__":
    main()
