"""What the commands print, in one place: nothing in it moves a terminal's cursor."""

from __future__ import annotations

import typer

from qemu_netwrap import printable


def echo(text: str, *, err: bool = False) -> None:
    """Print lines on standard output, or on standard error."""
    typer.echo(printable.lines(text), err=err)
