"""`qemu-netwrap hooks`: our scripts as those that QEMU calls by default."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from qemu_netwrap.cli import options, render
from qemu_netwrap.cli.output import echo
from qemu_netwrap.linux import hook_files

app = typer.Typer(
    help="Have QEMU call us by default: /etc/qemu-ifup and /etc/qemu-ifdown.",
    context_settings=options.CONTEXT,
)

Root = Annotated[str, typer.Option(metavar="DIR", help="The folder that etc is in.")]


@app.command()
def install(root: Root = "/") -> None:
    """Put our scripts there. What is there is kept beside them."""
    echo(render.hooks_text(hook_files.install(root)))


@app.command()
def remove(root: Root = "/") -> None:
    """Take our scripts away. What was there before is put back."""
    echo(render.hooks_text(hook_files.remove(root)))


@app.command()
def status(root: Root = "/", json: options.Json = False) -> None:
    """Show whose scripts are there."""
    found = hook_files.status(root)
    echo(json_module.dumps(render.plain(found)) if json else render.hooks_text(found))
