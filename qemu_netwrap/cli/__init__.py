"""The command line apart from the plain launch, and its output.

May import everything; only `__main__` imports it.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.cli import config as config
    from qemu_netwrap.cli import declare as declare
    from qemu_netwrap.cli import doctor as doctor
    from qemu_netwrap.cli import hooks as hooks
    from qemu_netwrap.cli import main as main
    from qemu_netwrap.cli import network as network
    from qemu_netwrap.cli import options as options
    from qemu_netwrap.cli import output as output
    from qemu_netwrap.cli import overview as overview
    from qemu_netwrap.cli import render as render
    from qemu_netwrap.cli import shim as shim
    from qemu_netwrap.cli import splitter as splitter
    from qemu_netwrap.cli import tables as tables
    from qemu_netwrap.cli import vfio as vfio
else:
    __getattr__ = lazy.submodules(__name__)
