"""The kinds of network. One module each; a new one is a file here and a line in `BACKENDS`."""

from __future__ import annotations

from qemu_netwrap.model.network import BRIDGE, HOST_ONLY, NAT
from qemu_netwrap.networks import bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_netwrap.model.host import Surroundings
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.kinds import Resource

    Backend = Callable[[Network, Surroundings], tuple[Resource, ...]]


def _nat(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    from qemu_netwrap.networks import nat  # what a launch on a bridge does not need

    return nat.resources(network, around)


def _host_only(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    from qemu_netwrap.networks import host_only

    return host_only.resources(network, around)


BACKENDS: dict[str, Backend] = {
    BRIDGE: bridge.resources,
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
    from qemu_netwrap.networks import coexistence  # what many a launch does not need

    return coexistence.completed(network, around, around.neighbours, made)
