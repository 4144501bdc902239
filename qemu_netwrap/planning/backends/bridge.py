"""bridge: a plain segment. A bridge that is there is used as it is; else one is made."""

from __future__ import annotations

from qemu_netwrap.core import mac
from qemu_netwrap.core.errors import HostError
from qemu_netwrap.core.model import BRIDGE
from qemu_netwrap.core.resources import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.resources import Resource

KERNEL_DEFAULT = -1


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return the bridge to make, or nothing. Raises `HostError` if what is there is no bridge."""
    if not around.is_bridge:
        raise HostError(
            f"network {network.name}: interface {network.bridge} is no bridge",
            f"name a bridge, or one that is not there yet: it is made; see ip -d link show"
            f" {network.bridge}",
        )
    if network.uplink:
        from qemu_netwrap.planning.backends import uplink  # what hardly a launch needs

        return uplink.resources(network, around, own_bridge(network, around))
    return () if around.bridge_exists else (own_bridge(network, around),)


def own_bridge(network: Network, around: Surroundings) -> Bridge:
    """Return the bridge of a network of ours.

    It has a MAC of its own, or it would change its MAC with its ports (net/bridge/br_if.c,
    `br_features_recompute` and `br_stp_recalculate_bridge_id`). Without STP there is nothing to
    wait for: forward delay 0 lets a guest's first DHCP request through.
    """
    delay = network.forward_delay
    if delay is None:
        delay = KERNEL_DEFAULT if network.stp else 0
    hello = KERNEL_DEFAULT if network.hello_time is None else network.hello_time
    own_mac = mac.derive(around.machine, "bridge", network.bridge)
    is_open = network.mode == BRIDGE
    return Bridge(network.bridge, own_mac, network.stp, delay, hello, is_open)
