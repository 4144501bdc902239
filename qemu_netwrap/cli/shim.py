"""`qemu-netwrap shim`: links by QEMU's names that lead to qemu-netwrap."""

from __future__ import annotations

import shlex
from typing import Annotated

from qemu_netwrap.cli import declare
from qemu_netwrap.cli.output import echo
from qemu_netwrap.errors import UsageError
from qemu_netwrap.linux import programs, shims
from qemu_netwrap.runtime import launcher

app = declare.group("shim")

Folder = Annotated[str, declare.argument("DIR", "shim install")]


@declare.command(app, "shim install")
def install(
    folder: Folder,
    names: Annotated[list[str] | None, declare.argument("NAME", "shim install")] = None,
) -> None:
    """Put links into DIR, by the names of all QEMUs on PATH if none is given."""
    names = names or shims.qemus(folder, launcher.SHIM_PREFIX, launcher.SHIMS)
    if not names:
        raise UsageError("there is no QEMU on PATH", "name one: qemu-system-x86_64")
    wrong = next((name for name in names if not launcher.is_qemu_name(name)), "")
    if wrong:
        raise UsageError(
            f"{wrong}: that is no name of QEMU's",
            f"known are {launcher.SHIM_PREFIX}…, {', '.join(launcher.SHIMS)}",
        )
    paths = shims.install(folder, names)
    echo("\n".join(paths))
    hidden = [name for name, path in zip(names, paths, strict=True) if programs.find(name) != path]
    if hidden:
        echo(f'put it first on PATH: export PATH={shlex.quote(folder)}:"$PATH"', err=True)


@declare.command(app, "shim remove")
def remove(folder: Folder) -> None:
    """Remove our links from DIR, and DIR itself if nothing else is in it."""
    for path in shims.remove(folder):
        echo(path)
