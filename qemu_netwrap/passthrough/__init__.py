"""Devices of the host that a guest gets whole: PCI devices by VFIO, virtual functions by SR-IOV.

Which ones, whether they may be passed, who has them. May import `resources` and all above it.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.passthrough import assign as assign
    from qemu_netwrap.passthrough import devices as devices
else:
    __getattr__ = lazy.submodules(__name__)
