"""The host's PCI devices that can be passed through: what `vfio list` shows, `bind`, `unbind`."""

from __future__ import annotations

import contextlib

from qemu_netwrap.errors import HostError, NetwrapError, UsageError
from qemu_netwrap.linux import files, pci
from qemu_netwrap.model import pci as core
from qemu_netwrap.passthrough import assign
from qemu_netwrap.pci_state import MANUAL, PciState
from qemu_netwrap.record import Record
from qemu_netwrap.resources import vfio
from qemu_netwrap.resources.base import Context
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.vfio import VfioBinding
from qemu_netwrap.runtime import executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.state import StateDir


class DeviceStatus(Record):
    """A device, what uses it, and what keeps it from being passed through."""

    bdf: str
    what: str
    driver: str
    group: str
    ifnames: tuple[str, ...]
    pf: str  # of a virtual function
    vfs: tuple[str, ...]  # of a physical one
    total_vfs: int
    held_by: str
    obstacle: str  # empty: it can be passed through


def all_devices(state: StateDir) -> list[DeviceStatus]:
    """Return NICs, devices on vfio-pci, and devices that share an IOMMU group with one of those."""
    devices = pci.all_devices()
    shown = {d.group for d in devices if d.is_nic or d.is_on_vfio} - {""}
    return [
        _status(device, devices, state)
        for device in devices
        if device.is_nic or device.is_on_vfio or (device.group in shown and not device.is_bridge)
    ]


def _status(device: core.Device, devices: list[core.Device], state: StateDir) -> DeviceStatus:
    """Return the status of one device."""
    held_by = _held_by(device, state)
    others = [
        other.bdf
        for other in devices
        if other.group == device.group and other.bdf != device.bdf and other.is_in_the_way
    ]
    if held_by:
        obstacle = "in use"
    elif not device.group:
        obstacle = "no IOMMU group"
    elif device.vfs:
        obstacle = "has virtual functions"
    elif others:
        obstacle = f"group shared with {', '.join(others)}"
    else:
        obstacle = ""
    fields = {name: getattr(device, name) for name in DeviceStatus.fields if hasattr(device, name)}
    return DeviceStatus(**fields, held_by=held_by, obstacle=obstacle)


def _held_by(device: core.Device, state: StateDir) -> str:
    """Return the run or process that has a device, as text; "" if none has."""
    claimant = PciState(state).claimant(device.bdf)
    if claimant is not None:
        where, run = claimant
        if run == MANUAL:
            return ""  # `bind` was killed: the next command for the device releases it
        try:
            return f"run {run}" + ("" if where.is_alive(run) else " (dead: run qemu-netwrap gc)")
        except PermissionError:
            return f"run {run}"  # only root can see whether it lives
    return vfio.holder(device)


@contextlib.contextmanager
def _tidying(state: StateDir) -> Iterator[None]:
    """Remove empty state folders after the body, even if it raises."""
    try:
        yield
    finally:
        state.tidy()


def bind(state: StateDir, typed: str, *, force_uplink: bool = False) -> None:
    """Bind a device to vfio-pci until `unbind`.

    Raises `NetwrapError`, without FORCE_UPLINK also if the device carries the host's connection.
    """
    device = _device(typed)
    if device.is_on_vfio:
        raise UsageError(f"{device} is on it already", "see qemu-netwrap vfio list")
    if not device.group:
        raise HostError(f"{device} is in no IOMMU group", "see qemu-netwrap doctor")
    shared = PciState(state)
    with _tidying(state), shared.lock(device):
        by = _held_by(device, state)
        if by:
            raise HostError(f"{device} is in use by {by}", "see qemu-netwrap vfio list")
        assign.check_use(device.bdf, device, {} if force_uplink else assign.reached())
        journal = _journal(shared, device.bdf)
        errors = _release(shared, device.bdf, Context(state))  # left by a `bind` that was killed
        if errors:
            raise errors[0]
        try:
            executor.acquire_all([VfioBinding(device.bdf, MANUAL)], journal, Context(state))
            files.remove(shared.claim(device.bdf))  # runs may now claim it
        except BaseException:
            _release(shared, device.bdf, Context(state))
            raise


def unbind(state: StateDir, typed: str) -> None:
    """Give a device back that `bind` has taken. Raises `NetwrapError`."""
    device = _device(typed)
    shared = PciState(state)
    with _tidying(state), shared.lock(device):
        if not _journal(shared, device.bdf).live():
            by_hand = f"by hand: echo {device.bdf} >/sys/bus/pci/drivers/{device.driver}/unbind"
            raise UsageError(
                f"{device} was not bound by qemu-netwrap vfio bind",
                by_hand
                if device.is_on_vfio
                else "it is not on vfio-pci: see qemu-netwrap vfio list",
            )
        by = _held_by(device, state)
        if by:
            raise HostError(f"{device} is in use by {by}", "end that process first")
        errors = _release(shared, device.bdf, Context(state))
    if errors:
        raise errors[0]


def _release(shared: PciState, bdf: str, work: Context) -> list[NetwrapError]:
    """Undo what `bind` has done; return the errors."""
    journal = _journal(shared, bdf)
    errors = executor.release_all(journal, work)
    if not errors:
        files.remove(journal.path)
    return errors


def _journal(shared: PciState, bdf: str) -> Journal:
    """Return the journal of a device that `bind` has bound."""
    return Journal(shared.bound(bdf))


def _device(typed: str) -> core.Device:
    """Return the device that the user means. Raises `UsageError`."""
    try:
        device = pci.look(core.parse(typed))
    except ValueError as error:
        raise UsageError(f"{typed}: {error}", "see qemu-netwrap vfio list") from None
    if device is None:
        raise UsageError(f"{typed}: there is no such device", "see qemu-netwrap vfio list")
    return device
