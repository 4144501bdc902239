"""State of PCI devices, which runs in all network namespaces share.

PCI devices belong to the machine, not to a network namespace, so their state has its own folder:

    /run/qemu-netwrap/BOOT-pci/
        claims/BDF         the state folder and the run that has a device
        functions/PF       whether its VFs were created, whether it was up, the addresses and the
                           interfaces that it had, and the runs that use it
        bound/BDF          the journal of a device that `vfio bind` has taken
        locks/BDF          the lock of a device; a physical function and its VFs share one
        locks/BDF-driver   held while a device changes drivers, even by the child of a dead keeper
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

MANUAL = "-"  # in place of a run: `vfio bind` has the device
_DRIVER_LOCK_TIMEOUT = 20.0  # seconds for a driver lock
# Seconds for a device's lock, whose holder may be waiting for a driver.
_DEVICE_LOCK_TIMEOUT = pci.DRIVER_TIMEOUT + _DRIVER_LOCK_TIMEOUT


class PciState:
    """The folder that all network namespaces share."""

    def __init__(self, state: StateDir) -> None:
        """Derive its path from STATE's; nothing is created."""
        self.base = state.machine

    def lock(self, device: Device) -> contextlib.AbstractContextManager[None]:
        """Return the lock of a device; for a VF, that of its physical function."""
        return self.lock_of(device.pf or device.bdf)

    @contextlib.contextmanager
    def lock_of(self, bdf: str) -> Iterator[None]:
        """Hold the lock of the device, or of the physical function, at BDF.

        Raises `HostError` if it stays locked: a child whose write hangs in the kernel has inherited
        the lock, and keeps it after its keeper has given up.
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
        """Hold the lock to change a device's driver. Raises `HostError` if it stays locked.

        A child that inherits this lock does every write to the drivers' files (linux.pci): while a
        write hangs in the kernel, the lock is held.
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
        """Return the path of the claim to the device at BDF."""
        return f"{self.base}/claims/{bdf}"

    def functions(self, pf: str) -> str:
        """Return the path of the file of a physical function's users."""
        return f"{self.base}/functions/{pf}"

    def bound(self, bdf: str) -> str:
        """Return the path of the journal of a device that `vfio bind` has taken."""
        return f"{self.base}/bound/{bdf}"

    def claimant(self, bdf: str) -> tuple[StateDir, str] | None:
        """Return (state, run) of the run that has claimed a device; None if none has."""
        base, _, run = files.read(self.claim(bdf)).partition(" ")
        return (StateDir(base), run) if run else None

    def tidy(self) -> None:
        """Remove empty folders, and locks that are no longer needed."""
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

    The look-up is slow: it is done only after waiting for the lock has timed out.
    """
    having = linux.holders.of_file(path)
    return linux.holders.named(having[0]) if having else ""
