"""bridge: a plain segment. An existing bridge is used as it is, a missing one is created."""

from __future__ import annotations

from qemu_netwrap import networks
from qemu_netwrap.errors import HostError
from qemu_netwrap.model import mac
from qemu_netwrap.model.host import Needs
from qemu_netwrap.networks.base import NetworkDriver
from qemu_netwrap.resources.links import Bridge
from qemu_netwrap.resources.sysctls import Sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.networks.base import Reader
    from qemu_netwrap.resources.base import Resource

KERNEL_DEFAULT = -1


class Driver(NetworkDriver):
    """A bridge, optionally with a NIC of the host as its uplink."""

    def readers(self) -> Mapping[str, Reader]:
        """Return the keys of every network with a bridge, and `uplink`."""
        return {**networks.keys.BRIDGED, "uplink": networks.keys.uplink}

    def needs(self, network: Network) -> Needs:
        """Return the need for facts about the uplink, if the network has one."""
        return Needs(uplink=network.uplink)

    def network_resources(self, network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
        """Return the bridge to create; nothing if it exists, since it is then used as it is."""
        if not host.is_bridge:
            raise HostError(
                f"network {network.name}: interface {network.bridge} is no bridge",
                f"br=br0,uplink={network.bridge} makes a bridge br0 with it as a port; else name a"
                " bridge, or a name that is free: a bridge is made",
            )
        bridge = own_bridge(network, host, is_open=True)
        if network.uplink:
            return networks.uplink.resources(network, host, bridge)
        return () if host.bridge_exists else guarded(bridge)


def guarded(bridge: Bridge, *, filtered: bool = True) -> tuple[Resource, ...]:
    """Return BRIDGE, which has no host NIC, with settings against guests configuring the host.

    FILTERED: also with a packet filter at its ingress. The settings still protect the host if
    another program removes that filter.
    """
    off = (
        Sysctl(bridge.name, "ipv6", key, "0", optional=True)
        for key in ("accept_ra", "accept_redirects")
    )
    return (bridge.replace(guarded=True, filtered=filtered), *off)


def own_bridge(network: Network, facts: NetworkFacts, *, is_open: bool = False) -> Bridge:
    """Return the bridge to create for NETWORK; IS_OPEN: other programs may attach ports to it.

    It has a fixed MAC, since its MAC would otherwise change with its ports (net/bridge/br_if.c,
    `br_features_recompute` and `br_stp_recalculate_bridge_id`). Without STP, ports need not wait:
    a forward delay of 0 lets a guest's first DHCP request through.
    """
    delay = network.forward_delay
    if delay is None:
        delay = KERNEL_DEFAULT if network.stp else 0
    hello = KERNEL_DEFAULT if network.hello_time is None else network.hello_time
    own_mac = mac.derive(facts.machine, "bridge", network.bridge)
    return Bridge(network.bridge, own_mac, network.stp, delay, hello, is_open)
