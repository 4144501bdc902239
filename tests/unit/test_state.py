"""The state folder while others tidy it away."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from qemu_netwrap.life import state

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TIDYING: Final = """
import os, sys
while True:
    try:
        os.rmdir(sys.argv[1])
    except OSError:
        pass
"""


def test_who_ends_may_tidy_the_root_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path / "root")
    monkeypatch.setattr(state, "ROOT", root)
    with subprocess.Popen((sys.executable, "-c", TIDYING, root)) as others:
        try:
            for _ in range(4_000):
                state.prepare()
        finally:
            others.kill()
