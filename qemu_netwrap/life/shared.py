"""What runs of all network namespaces share.

PCI devices are the machine's, not a network namespace's. So what concerns all runs is kept apart:

    /run/qemu-netwrap/BOOT-pci/
        claims/BDF         the state folder and the run that has a device
        functions/PF       whether we made its VFs, whether it was up, and the runs that use it
        bound/BDF          the journal of a device that `vfio bind` has taken
        locks/BDF          one lock for a device; for a physical function and its VFs one together
        locks/BDF-driver   held while a device changes drivers, also by a child whose keeper is dead
"""

from __future__ import annotations

import contextlib
import os
import select

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.host import files
from qemu_netwrap.life.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.core.pci import Device

BY_HAND = "-"  # stands for the run of a device that `vfio bind` has taken
_PATIENCE = 20.0  # seconds for a driver lock
_STEP = 50  # milliseconds


class Shared:
    """The folder that all network namespaces share."""

    def __init__(self, state: State) -> None:
        """Find it beside STATE's."""
        self.base = state.machine

    def lock(self, device: Device) -> files.Lock:
        """Return the lock of a device; of a VF, its physical function's."""
        return self.lock_of(device.pf or device.bdf)

    def lock_of(self, bdf: str) -> files.Lock:
        """Return the lock of the device, or of the physical function, at BDF."""
        return files.Lock(f"{self.base}/locks/{bdf}")

    @contextlib.contextmanager
    def driver_lock(self, bdf: str) -> Iterator[None]:
        """Hold the lock to change a device's driver. Raises `HostError` if it is not to be had.

        Every write to the drivers' files is a child's who inherits this lock (host.pci): a write
        that hangs in the kernel keeps it.
        """
        path = f"{self.base}/locks/{bdf}-driver"
        poll, left = select.poll(), _PATIENCE
        while True:
            try:
                fd = files.open_locked(path, wait=False)
                break
            except BlockingIOError:
                if left <= 0:
                    raise HostError(
                        f"{bdf}: the kernel still hangs over its driver",
                        "a process may have the device open; run qemu-netwrap gc when it has ended",
                    ) from None
            poll.poll(_STEP)
            left -= _STEP / 1000
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

    def claimant(self, bdf: str) -> tuple[State, str] | None:
        """Return the run that has claimed a device, with the state it is in; None if none has."""
        base, _, run = files.read(self.claim(bdf)).partition(" ")
        return (State(base), run) if run else None

    def tidy(self) -> None:
        """Remove what is empty."""
        inner = [f"{self.base}/{name}" for name in ("claims", "functions", "bound")]
        files.remove_empty(inner)
        if not any(map(os.path.exists, inner)):
            for name in files.listdir(f"{self.base}/locks"):
                files.remove_lock(f"{self.base}/locks/{name}")
        files.remove_empty([f"{self.base}/locks", self.base])
