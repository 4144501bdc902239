"""What can be made on the host and undone again: bridges, taps, chains, sysctls, servers.

Undoing stands next to making. May import `linux`, `state` and all above them.
"""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources import coexistence as coexistence
    from qemu_netwrap.resources import effects as effects
    from qemu_netwrap.resources import explain as explain
    from qemu_netwrap.resources import forward_guards as forward_guards
    from qemu_netwrap.resources import kinds as kinds
    from qemu_netwrap.resources import sysctls as sysctls
    from qemu_netwrap.resources import uplink as uplink
    from qemu_netwrap.resources import vfio as vfio
else:
    __getattr__ = lazy.submodules(__name__)
