"""The network modes: one driver each. A new mode is a module here and a line in `model.network`."""

from qemu_netwrap import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.networks import base as base
    from qemu_netwrap.networks import bridge as bridge
    from qemu_netwrap.networks import coexistence as coexistence
    from qemu_netwrap.networks import host_only as host_only
    from qemu_netwrap.networks import host_services as host_services
    from qemu_netwrap.networks import ipv6 as ipv6
    from qemu_netwrap.networks import keys as keys
    from qemu_netwrap.networks import nat as nat
    from qemu_netwrap.networks import port_forwards as port_forwards
    from qemu_netwrap.networks import routed as routed
    from qemu_netwrap.networks import uplink as uplink
else:
    __getattr__ = lazy.submodules(__name__)
