"""`qemu-netwrap vfio`: the host's devices that can be passed through."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from qemu_netwrap.cli import options, render, tables
from qemu_netwrap.cli.output import echo
from qemu_netwrap.runtime import vfio_bind
from qemu_netwrap.runtime.vfio_bind import DeviceStatus
from qemu_netwrap.state import State

app = typer.Typer(
    help="Devices that can be passed through: show them; bind one to vfio-pci, give it back.",
    context_settings=options.CONTEXT,
)

Address = Annotated[str, typer.Argument(metavar="BDF", help="A PCI address: 0000:01:00.0.")]
_HEAD = ("DEVICE", "WHAT", "DRIVER", "GROUP", "INTERFACE", "VFS", "HELD BY", "ASSIGNABLE")


@app.command("list")
def list_(json: options.Json = False) -> None:
    """Show NICs with their VFs, groups and drivers, who holds what, and what could be assigned."""
    found = vfio_bind.all_devices(State.here())
    if json:
        echo(json_module.dumps({"devices": render.plain(found)}, indent=2))
    else:
        echo(tables.columns([_HEAD, *map(_row, found)]) if found else "no NICs")


@app.command()
def bind(context: typer.Context, bdf: Address) -> None:
    """Give a device to vfio-pci until `unbind`, or until the host is started anew."""
    vfio_bind.bind(State.to_change("vfio bind"), bdf, force_uplink=context.obj.force_uplink)


@app.command()
def unbind(bdf: Address) -> None:
    """Give a device that `bind` has taken back to its driver, as it was."""
    vfio_bind.unbind(State.to_change("vfio unbind"), bdf)


def _row(device: DeviceStatus) -> tuple[str, ...]:
    """Return a device's row."""
    vfs = f"{len(device.vfs)}/{device.total_vfs}" if device.total_vfs else ""
    cells = (
        device.bdf,
        f"VF of {device.pf}" if device.pf else device.what,
        device.driver,
        device.group,
        ",".join(device.ifnames),
        vfs,
        device.held_by,
    )
    return (*(cell or "-" for cell in cells), device.obstacle or "yes")
