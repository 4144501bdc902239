"""`qemu-netwrap doctor`: check what this host supports."""

from __future__ import annotations

import json as json_module

import typer

from qemu_netwrap.cli import declare, render, tables
from qemu_netwrap.cli.output import echo
from qemu_netwrap.doctor.checks import Line, works
from qemu_netwrap.doctor.checkup import checkup


def doctor(json: declare.Json = False) -> None:
    """Show what works and what does not; the exit status says whether all modes do."""
    lines = checkup()
    if json:
        data = {"works": works(lines), "lines": render.plain(lines)}
        echo(json_module.dumps(data, indent=2))
    else:
        echo(_text(lines))
    raise typer.Exit(0 if works(lines) else 1)


def _text(lines: tuple[Line, ...]) -> str:
    """Return the lines as a table, with each remedy below its line."""
    table = tables.columns([(line.state, line.what, line.found) for line in lines]).split("\n")
    rows = zip(table, lines, strict=True)
    return "\n".join(f"{row}\n  > {line.remedy}" if line.remedy else row for row, line in rows)
