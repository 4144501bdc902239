"""Another QEMU beside the installed one: the backports' package."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from lab import packages
from lab.guest import cache

if TYPE_CHECKING:
    from pathlib import Path

_PACKAGES: Final = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")
_PROGRAM: Final = "usr/bin/qemu-system-x86_64"


@functools.cache
def backports() -> Path:
    """Return the backports' qemu-system-x86_64; the first call ever downloads and unpacks it."""
    target = cache() / f"qemu-{packages.BACKPORTS}"
    if not (target / _PROGRAM).exists():
        with packages.apt(packages.BACKPORTS) as words:
            packages.unpack(words, target, *_PACKAGES)
    return target / _PROGRAM
