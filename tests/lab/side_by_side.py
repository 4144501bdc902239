"""How tests are dealt out to workers that run side by side (pytest-xdist)."""

from __future__ import annotations

from typing import Final

from xdist.scheduler import LoadScopeScheduling

# Folders whose tests share what is dear to make, a nested machine or traces: one worker has them.
_TOGETHER: Final = ("tests/vfio/", "tests/cost/")


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Each test goes to the next worker that is free, but those of some folders stay together."""

    def _split_scope(self, nodeid: str) -> str:
        """Return what stays together with a test: its folder, or nothing else."""
        return next((folder for folder in _TOGETHER if nodeid.startswith(folder)), nodeid)
