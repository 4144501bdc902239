"""The paths of the programs that were installed with this package."""

from __future__ import annotations

import os
import sys
import sysconfig

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import programs


def installed(name: str) -> str:
    """Return the path of NAME, a program of this package. Raises `HostError` if it is missing.

    It is beside the running one; else where Python installs scripts, or on PATH in a place that
    only root can write to.
    """
    beside = (os.path.dirname(os.path.realpath(sys.argv[0])), sysconfig.get_path("scripts"))
    found = (programs.find(f"{each}/{name}") for each in beside)
    program = next(filter(None, found), "") or programs.find_trusted(name)
    if not program:
        raise HostError(f"{name} is not installed", "install the package, not its modules alone")
    return os.path.abspath(program)
