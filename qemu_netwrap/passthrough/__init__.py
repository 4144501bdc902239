"""PCI devices and virtual functions (SR-IOV) that are passed through to a guest by VFIO.

Which ones a command line wants, whether that is possible, and their assignment to a run.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.passthrough import assign as assign
    from qemu_netwrap.passthrough import devices as devices
else:
    __getattr__ = lazy.submodules(__name__)
