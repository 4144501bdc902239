"""`qemu-netwrap vfio`: show and bind host devices that can be passed through."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from qemu_netwrap import realm
from qemu_netwrap.cli import declare, render, tables
from qemu_netwrap.cli.output import echo
from qemu_netwrap.errors import HostError
from qemu_netwrap.runtime import vfio_bind
from qemu_netwrap.runtime.vfio_bind import DeviceStatus
from qemu_netwrap.state import StateDir

app = declare.group("vfio")

Address = Annotated[str, declare.argument("BDF", "vfio bind")]
_HEAD = ("DEVICE", "WHAT", "DRIVER", "GROUP", "INTERFACE", "VFS", "HELD BY", "ASSIGNABLE")


@declare.command(app, "vfio list")
def list_(json: declare.Json = False) -> None:
    """Show NICs with their VFs, groups and drivers, who holds what, and what could be assigned."""
    found = vfio_bind.all_devices(StateDir.here())
    if json:
        echo(json_module.dumps({"devices": render.plain(found)}, indent=2))
    else:
        echo(tables.columns([_HEAD, *map(_row, found)]) if found else "no NICs")


@declare.command(app, "vfio bind")
def bind(context: typer.Context, bdf: Address) -> None:
    """Give a device to vfio-pci until `unbind`, or until the host is started anew."""
    _require_root("vfio bind", bdf)
    vfio_bind.bind(StateDir.to_change("vfio bind"), bdf, force_uplink=context.obj.force_uplink)


@declare.command(app, "vfio unbind")
def unbind(bdf: Address) -> None:
    """Give a device that `bind` has taken back to its driver, as it was."""
    _require_root("vfio unbind", bdf)
    vfio_bind.unbind(StateDir.to_change("vfio unbind"), bdf)


def _require_root(command: str, bdf: str) -> None:
    """Raise `HostError` for an ordinary user: PCI devices are in no user's realm."""
    if realm.is_users() and not realm.stay():
        raise HostError(f"{command}: PCI devices are root's", f"sudo qemu-netwrap {command} {bdf}")


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
