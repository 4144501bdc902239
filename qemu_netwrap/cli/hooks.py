"""`qemu-netwrap hooks`: install qemu-netwrap's scripts as those that QEMU calls by default."""

from __future__ import annotations

import json as json_module
from typing import Annotated

from qemu_netwrap.cli import declare, render
from qemu_netwrap.cli.output import echo
from qemu_netwrap.linux import hook_files

app = declare.group("hooks")

Root = Annotated[str, declare.option("--root", "hooks install")]


@declare.command(app, "hooks install")
def install(root: Root = "/") -> None:
    """Install the scripts. What is there is kept beside them."""
    echo(render.hooks_text(hook_files.install(root)))


@declare.command(app, "hooks remove")
def remove(root: Root = "/") -> None:
    """Remove the scripts, and put back what was there before."""
    echo(render.hooks_text(hook_files.remove(root)))


@declare.command(app, "hooks status")
def status(root: Root = "/", json: declare.Json = False) -> None:
    """Show whose scripts are there."""
    found = hook_files.status(root)
    echo(json_module.dumps(render.plain(found)) if json else render.hooks_text(found))
