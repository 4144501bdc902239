"""host-only: guests and the host reach each other; nothing else passes in either direction."""

from __future__ import annotations

from qemu_netwrap import networks, resources
from qemu_netwrap.model.host import Needs
from qemu_netwrap.networks.base import NetworkDriver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.networks.base import Reader
    from qemu_netwrap.resources.base import Resource


class Driver(NetworkDriver):
    """A bridge with the host's address, and dnsmasq."""

    def readers(self) -> Mapping[str, Reader]:
        """Return the keys of a bridge, of its subnet, and of the services on it."""
        return {**networks.keys.BRIDGED, **networks.keys.ROUTED, **networks.keys.SERVED}

    def needs(self, network: Network) -> Needs:
        """Return the pools for the subnet, and whether IPv6 is wanted."""
        return Needs(networks.routed.subnet_pools(network), ipv6=network.ipv6)

    def network_resources(self, network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
        """Return a bridge with gateway addresses, the rules that keep it closed, and dnsmasq."""
        routed = networks.routed
        subnet = routed.subnet_of(network, host)
        prefix = networks.ipv6.prefix_of(network, host)
        chains = rules(network, subnet, prefix) + routed.services_of(network, host)
        doors = routed.closed(network, subnet, prefix)
        return (
            *routed.segment(network, subnet, prefix, host),
            resources.nftables.NetworkChains(network.bridge, chains),
            resources.forward_guards.RouterGuard(network.bridge, "\n".join(doors)),
            routed.dnsmasq(network, subnet, prefix, host),
        )


def rules(network: Network, subnet: Subnet, prefix: Prefix | None) -> str:
    """Return the network's chains: frames between its guests pass, forwarded packets do not.

    The rule for frames matters if br_netfilter sends them through the inet forward hook.
    """
    dev = f'"{network.bridge}"'
    forward = resources.nftables.chain(
        network,
        "forward",
        "type filter hook forward priority filter; policy accept;",
        networks.routed.between_guests(network),
        f"iifname {dev} drop",
        f"oifname {dev} drop",
    )
    return forward + networks.routed.sources(network, subnet, prefix)
