"""Resource limits of this process (setrlimit(2))."""

from __future__ import annotations

import resource


def raise_open_files(enough: int) -> None:
    """Raise the limit of open files to ENOUGH, or as near to it as is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((enough, max(hard, enough)), (min(hard, enough), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (OSError, ValueError):
            continue  # every process may set the second one
        return
