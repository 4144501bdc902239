"""What runs of all network namespaces share.

PCI devices are the machine's, not a network namespace's. So what concerns all runs is kept apart:

    /run/qemu-netwrap/BOOT-pci/
        claims/BDF         the state folder and the run that has a device
        functions/PF       whether we made its VFs, whether it was up and what it carried, and the
                           runs that use it
        bound/BDF          the journal of a device that `vfio bind` has taken
        locks/BDF          one lock for a device; for a physical function and its VFs one together
        locks/BDF-driver   held while a device changes drivers, also by a child whose keeper is dead
"""

from __future__ import annotations

import contextlib
import errno
import os

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, pci, polling
from qemu_netwrap.state import StateDir, tidy_machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.pci import Device

MANUAL = "-"  # stands for the run of a device that `vfio bind` has taken
_DRIVER_LOCK_TIMEOUT = 20.0  # seconds for a driver lock
# For a device's lock, whose holder may wait for a driver.
_DEVICE_LOCK_TIMEOUT = pci.DRIVER_TIMEOUT + _DRIVER_LOCK_TIMEOUT


class PciState:
    """The folder that all network namespaces share."""

    def __init__(self, state: StateDir) -> None:
        """Find it beside STATE's."""
        self.base = state.machine

    def lock(self, device: Device) -> contextlib.AbstractContextManager[None]:
        """Return the lock of a device; of a VF, its physical function's."""
        return self.lock_of(device.pf or device.bdf)

    @contextlib.contextmanager
    def lock_of(self, bdf: str) -> Iterator[None]:
        """Hold the lock of the device, or of the physical function, at BDF.

        Raises `HostError` if it is not to be had: a write that hangs in the kernel is a child's who
        has inherited it, and keeps it when its keeper has given up.
        """
        path = f"{self.base}/locks/{bdf}"
        fd = _open_locked(path, _DEVICE_LOCK_TIMEOUT)
        if fd is None:
            by = _holder(path)
            raise HostError(
                f"{bdf}: {by or 'another process'} does not get done with it",
                "a write of its hangs in the kernel, dmesg may say why; end what has the device"
                " open, then run qemu-netwrap gc",
            )
        try:
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def driver_lock(self, bdf: str) -> Iterator[None]:
        """Hold the lock to change a device's driver. Raises `HostError` if it is not to be had.

        Every write to the drivers' files is a child's who inherits this lock (linux.pci): a write
        that hangs in the kernel keeps it.
        """
        fd = _open_locked(f"{self.base}/locks/{bdf}-driver", _DRIVER_LOCK_TIMEOUT)
        if fd is None:
            raise HostError(
                f"{bdf}: the kernel still hangs over its driver",
                "a process may have the device open; run qemu-netwrap gc when it has ended",
            )
        try:
            yield
        finally:
            os.close(fd)

    def claim(self, bdf: str) -> str:
        """Return the file of a claim."""
        return f"{self.base}/claims/{bdf}"

    def functions(self, pf: str) -> str:
        """Return the file of a physical function's users."""
        return f"{self.base}/functions/{pf}"

    def bound(self, bdf: str) -> str:
        """Return the journal's file of a device that `vfio bind` has taken."""
        return f"{self.base}/bound/{bdf}"

    def claimant(self, bdf: str) -> tuple[StateDir, str] | None:
        """Return the run that has claimed a device, with the state it is in; None if none has."""
        base, _, run = files.read(self.claim(bdf)).partition(" ")
        return (StateDir(base), run) if run else None

    def tidy(self) -> None:
        """Remove what is empty."""
        tidy_machine(self.base)


def _open_locked(path: str, timeout: float) -> int | None:
    """Return a locked descriptor of PATH; None if it is not free within TIMEOUT seconds."""
    try:
        return polling.retry(
            lambda: files.open_locked(path, wait=False), errno.EWOULDBLOCK, timeout
        )
    except BlockingIOError:
        return None


def _holder(path: str) -> str:
    """Return the process that has a lock's file open, as `PROGRAM (pid N)`; empty if none is seen.

    Looked up only when somebody has waited in vain.
    """
    having = linux.holders.of_file(path)
    return linux.holders.named(having[0]) if having else ""
