"""Output of the commands, in one place: control characters are escaped."""

from __future__ import annotations

import typer

from qemu_netwrap import printable


def echo(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or on standard error if ERR."""
    typer.echo(printable.lines(text), err=err)
