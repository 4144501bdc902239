"""The kinds of network. One module each; a new one is a file here and a line in `BACKENDS`."""

from __future__ import annotations

from qemu_netwrap import lazy, networks
from qemu_netwrap.model.network import BRIDGE, HOST_ONLY, NAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_netwrap.model.host import Surroundings
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource

    Backend = Callable[[Network, Surroundings], tuple[Resource, ...]]


def _bridge(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    return networks.bridge.resources(network, around)


def _nat(network: Network, around: Surroundings) -> tuple[Resource, ...]:

    return networks.nat.resources(network, around)


def _host_only(network: Network, around: Surroundings) -> tuple[Resource, ...]:

    return networks.host_only.resources(network, around)


BACKENDS: dict[str, Backend] = {
    BRIDGE: _bridge,
    NAT: _nat,
    HOST_ONLY: _host_only,
}


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return what making NETWORK takes, in order; nothing when its bridge is somebody else's.

    Raises `HostError` when the network cannot be made here.
    """
    made = BACKENDS[network.mode](network, around)
    if around.neighbours is None:
        return made

    return networks.coexistence.completed(network, around, around.neighbours, made)


if TYPE_CHECKING:
    from qemu_netwrap.networks import bridge as bridge
    from qemu_netwrap.networks import coexistence as coexistence
    from qemu_netwrap.networks import host_only as host_only
    from qemu_netwrap.networks import host_services as host_services
    from qemu_netwrap.networks import ipv6 as ipv6
    from qemu_netwrap.networks import nat as nat
    from qemu_netwrap.networks import port_forwards as port_forwards
    from qemu_netwrap.networks import routed as routed
    from qemu_netwrap.networks import uplink as uplink
else:
    __getattr__ = lazy.submodules(__name__)
