"""`qemu-netwrap doctor`: what this host can do."""

from __future__ import annotations

import json as json_module

import typer

from qemu_netwrap.cli import options, render, tables
from qemu_netwrap.cli.output import echo
from qemu_netwrap.doctor.checks import Line, works
from qemu_netwrap.doctor.checkup import checkup


def doctor(json: options.Json = False) -> None:
    """Look at what this host can do, and how to mend what it cannot. Changes nothing.

    The exit status is 0 when bridge, nat and host-only work, else 1.
    """
    lines = checkup()
    if json:
        data = {"works": works(lines), "lines": render.plain(lines)}
        echo(json_module.dumps(data, indent=2))
    else:
        echo(_text(lines))
    raise typer.Exit(0 if works(lines) else 1)


def _text(lines: tuple[Line, ...]) -> str:
    """Return a table, each remedy below its line."""
    table = tables.columns([(line.state, line.what, line.found) for line in lines]).split("\n")
    rows = zip(table, lines, strict=True)
    return "\n".join(f"{row}\n  > {line.remedy}" if line.remedy else row for row, line in rows)
