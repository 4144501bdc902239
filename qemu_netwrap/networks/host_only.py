"""host-only: guests and host reach each other, and nothing else passes, in either direction."""

from __future__ import annotations

from qemu_netwrap.networks import ipv6
from qemu_netwrap.networks.routed import (
    between_guests,
    chain,
    closed,
    dnsmasq,
    segment,
    services_of,
    sources,
    subnet_of,
)
from qemu_netwrap.resources.forward_guards import Guard
from qemu_netwrap.resources.nftables import Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.host import Surroundings
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return a bridge with gateway addresses, the rules that keep it closed, and dnsmasq."""
    subnet, prefix = subnet_of(network, around), ipv6.prefix_of(network, around)
    return (
        *segment(network, subnet, prefix, around),
        Rules(network.bridge, rules(network, subnet, prefix) + services_of(network, around)),
        Guard(network.bridge, "\n".join(closed(network, subnet, prefix))),
        dnsmasq(network, subnet, prefix, around),
    )


def rules(network: Network, subnet: Subnet, prefix: Prefix | None) -> str:
    """Return the network's chains: frames between its guests pass, forwarded packets do not.

    The first matters where br_netfilter sends bridged frames through the inet forward hook.
    """
    dev = f'"{network.bridge}"'
    forward = chain(
        network,
        "forward",
        "type filter hook forward priority filter; policy accept;",
        between_guests(network),
        f"iifname {dev} drop",
        f"oifname {dev} drop",
    )
    return forward + sources(network, subnet, prefix)
