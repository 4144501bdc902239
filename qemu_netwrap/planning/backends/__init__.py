"""The kinds of network. One module each; a new one is a file here and a line in `BACKENDS`."""

from __future__ import annotations

from qemu_netwrap.core.model import BRIDGE, HOST_ONLY, NAT
from qemu_netwrap.planning.backends import bridge, host_only, nat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.resources import Resource

    Backend = Callable[[Network, Surroundings], tuple[Resource, ...]]

BACKENDS: dict[str, Backend] = {
    BRIDGE: bridge.resources,
    NAT: nat.resources,
    HOST_ONLY: host_only.resources,
}


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return what making NETWORK takes, in order; nothing when its bridge is somebody else's.

    Raises `HostError` when the network cannot be made here.
    """
    made = BACKENDS[network.mode](network, around)
    if around.neighbours is None:
        return made
    from qemu_netwrap.planning.backends import beside  # what many a launch does not need

    return beside.completed(network, around, around.neighbours, made)
