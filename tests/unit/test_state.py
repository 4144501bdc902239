"""The state folder while others are at it, too."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

from qemu_netwrap import realm, state
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files
from qemu_netwrap.runtime import runs

if TYPE_CHECKING:
    from pathlib import Path

TIDYING: Final = """
import os, sys
while os.getppid() == int(sys.argv[2]):
    try:
        os.rmdir(sys.argv[1])
    except OSError:
        pass
"""


def test_who_ends_may_tidy_the_root_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "root")
    monkeypatch.setattr(realm, "root", lambda: root)
    words = (sys.executable, "-c", TIDYING, root, str(os.getpid()))
    with subprocess.Popen(words) as others:
        try:
            for _ in range(4_000):
                state.prepare()
        finally:
            others.kill()


@pytest.fixture
def run(tmp_path: Path) -> tuple[state.StateDir, str]:
    """Return a state and the name of a run that nobody holds."""
    found = state.StateDir(str(tmp_path / "boot-1"))
    os.close(files.open_locked(f"{found.run('r')}/lock"))
    files.append(f"{found.run('r')}/journal", "")
    return found, "r"


def test_a_run_whose_keeper_comes_while_gc_looks_is_left(
    run: tuple[state.StateDir, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name = run
    open_locked, keepers = files.open_locked, []

    def late(path: str, *, wait: bool) -> int:
        keepers.append(open_locked(f"{where.run(name)}/keeper"))
        return open_locked(path, wait=wait)

    monkeypatch.setattr(files, "open_locked", late)
    assert runs.release_dead_runs(where) == ([], [])
    assert where.runs() == [name]
    for fd in keepers:
        os.close(fd)


def test_a_spoilt_note_of_a_tap_is_told(run: tuple[state.StateDir, str]) -> None:
    where, name = run
    files.write(f"{where.run(name)}/tap", "tap\tindex=many\n")
    released, (error,) = runs.release_dead_runs(where)
    assert (released, where.runs()) == ([], [name])
    assert isinstance(error, HostError)
    assert "tap is damaged" in error.message
