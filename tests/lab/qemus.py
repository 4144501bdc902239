"""The QEMUs of the tests: the installed one, and one of version 10 or later."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Final

from lab import packages
from lab.guest import QEMU, cache, tool
from qemu_netwrap.linux import programs

_PACKAGES: Final = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")
_PROGRAM: Final = "usr/bin/qemu-system-x86_64"
_RECENT: Final = 10


@functools.cache
def installed() -> int:
    """Return the major version of the installed QEMU: 7 on Debian 12, 10 on Debian 13."""
    return int(re.findall(r"version (\d+)", tool(QEMU, "-version"))[0])


@functools.cache
def recent() -> Path:
    """Return a qemu-system-x86_64 of version 10 or later: the installed one, or the backports'.

    Only the first call that needs the backports' package downloads and unpacks it.
    """
    if installed() >= _RECENT:
        return Path(programs.find(QEMU))
    target = cache() / f"qemu-{packages.BACKPORTS}"
    if not (target / _PROGRAM).exists():
        with packages.apt(packages.BACKPORTS) as words:
            packages.unpack(words, target, *_PACKAGES)
    return target / _PROGRAM


def leaving(user: str = "", root: str = "") -> tuple[str, ...]:
    """Return the words by which the installed QEMU becomes USER, and has ROOT for its root."""
    if installed() < _RECENT:
        return (*(("-runas", user) if user else ()), *(("-chroot", root) if root else ()))
    keys = [f"{key}={value}" for key, value in (("user", user), ("chroot", root)) if value]
    return ("-run-with", ",".join(keys))


def both() -> list[str]:
    """Return the programs of the QEMUs that a machine can offer: one where they are the same."""
    return list(dict.fromkeys((programs.find(QEMU), str(recent()))))
