"""Queries to administrators' programs off the launch path, by sh.

On the launch path programs are started by `child`. Programs that a user chose, such as QEMU, are
queried by `program_query`.
"""

from __future__ import annotations

import os

import sh

from qemu_netwrap.linux import child, program_query
from qemu_netwrap.linux.nft import TABLE
from qemu_netwrap.linux.programs import SBIN, find_trusted, is_trusted
from qemu_netwrap.linux.waits import PROGRAM_TIMEOUT


def our_rules() -> str | None:
    """Return qemu-netwrap's nftables table as nft(8) lists it, empty if there is none.

    None if nft is missing, or this process may not ask it.
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
    """Return the version that a program prints: the first word like 7.2 or v1.0; empty if none."""
    if os.geteuid() == 0 and not is_trusted(program):
        return ""  # it is the user's, found by root on that user's PATH
    words = program_query.ask((program, asked), None).split()
    return next((word for word in words if word.removeprefix("v")[:1].isdigit()), "")


def _run(program: str, *args: str) -> str:
    """Run a program to its end; return its stdout.

    Raises `sh.ErrorReturnCode`, and `sh.TimeoutException` after `PROGRAM_TIMEOUT` seconds.
    """
    command = sh.Command(program)
    return str(command(*args, _tty_out=False, _env=child.ENVIRONMENT, _timeout=PROGRAM_TIMEOUT))
