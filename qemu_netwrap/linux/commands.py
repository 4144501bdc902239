"""Administrators' programs off the launch path, by sh: asked for what they know.

On the launch path `child` starts programs; `program_query` asks QEMU and others that a user chose.
"""

from __future__ import annotations

import os

import sh

from qemu_netwrap.linux import child, program_query
from qemu_netwrap.linux.nft import TABLE
from qemu_netwrap.linux.programs import SBIN, find_trusted, is_trusted
from qemu_netwrap.linux.waits import PROGRAM_TIMEOUT


def our_rules() -> str | None:
    """Return our nftables table as nft(8) lists it, empty when it is not there.

    None when nft is not there, or may not be asked.
    """
    nft = find_trusted("nft", SBIN)
    if not nft:
        return None
    try:
        return _run(nft, "list", "table", *TABLE.split())
    except sh.TimeoutException:
        return None
    except sh.ErrorReturnCode as error:
        return "" if b"No such file" in error.stderr else None


def version(program: str, asked: str = "--version") -> str:
    """Return the version that a program tells: the first word like 7.2 or v1.0; else empty."""
    if os.geteuid() == 0 and not is_trusted(program):
        return ""  # a user's own, found by root on that user's PATH
    words = program_query.ask((program, asked), None).split()
    return next((word for word in words if word.removeprefix("v")[:1].isdigit()), "")


def _run(program: str, *args: str) -> str:
    """Run a program to its end; return what it printed.

    Raises `sh.ErrorReturnCode`, and `sh.TimeoutException` for one that takes too long.
    """
    command = sh.Command(program)
    return str(command(*args, _tty_out=False, _env=child.ENVIRONMENT, _timeout=PROGRAM_TIMEOUT))
