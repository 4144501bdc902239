"""Networks for QEMU: set up before the guest boots, removed when QEMU exits."""

from qemu_netwrap import lazy as lazy

__version__ = "0+checkout"  # a build writes its version here: tools/build_hook.py

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap import cli as cli
    from qemu_netwrap import config as config
    from qemu_netwrap import doctor as doctor
    from qemu_netwrap import errors as errors
    from qemu_netwrap import linux as linux
    from qemu_netwrap import model as model
    from qemu_netwrap import networks as networks
    from qemu_netwrap import passthrough as passthrough
    from qemu_netwrap import pci_state as pci_state
    from qemu_netwrap import printable as printable
    from qemu_netwrap import qemu as qemu
    from qemu_netwrap import realm as realm
    from qemu_netwrap import record as record
    from qemu_netwrap import record_text as record_text
    from qemu_netwrap import report as report
    from qemu_netwrap import resources as resources
    from qemu_netwrap import runtime as runtime
    from qemu_netwrap import state as state
    from qemu_netwrap import uses as uses
else:
    __getattr__ = lazy.submodules(__name__)
