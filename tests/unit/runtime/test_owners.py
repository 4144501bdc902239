"""Who keeps a run alive, while it is being released."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from qemu_netwrap.runtime import owners
from qemu_netwrap.state import StateDir

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_run_that_is_released_while_its_holders_are_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiter has the lock at the first look, and has ended at the last one."""
    state = StateDir(str(tmp_path))
    folder = tmp_path / "runs/7"
    folder.mkdir(parents=True)
    held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)

    def others(_: StateDir, run: str) -> list[int]:
        os.close(held)
        return []

    assert owners.obstacles(state, "7") != []
    monkeypatch.setattr(owners, "others", others)
    assert owners.obstacles(state, "7") == []
