"""nat: guests reach what the host reaches, under the host's addresses; nothing new comes in."""

from __future__ import annotations

from qemu_netwrap.core import names
from qemu_netwrap.core.resources import DeviceSetting, Forwarding, Rules
from qemu_netwrap.planning.backends.segment import (
    between_guests,
    chain,
    dnsmasq,
    segment,
    subnet_of,
)

_FORWARD = "type filter hook forward priority filter; policy accept;"
_ANSWERS = ("ct state established,related accept", "ct status dnat accept")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.resources import Resource


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return a bridge with a gateway address, forwarding, the rules and dnsmasq.

    IPv4 forwarding is decided by the device a packet comes in by (Documentation/networking/
    ip-sysctl.rst, conf/DEVICE/forwarding): the bridge for what guests send, and each device that
    routes leave through for the answers. The global switch stays as it is.
    """
    subnet = subnet_of(network, around)
    uplinks = [d for d in dict.fromkeys(r.device for r in around.routes) if d not in around.inner]
    guards = guarded(uplinks, around)
    return (
        *segment(network, subnet, around),
        DeviceSetting(network.bridge, "ipv4", "forwarding", "1"),
        # Rules before forwarding: no packet is forwarded that they have not seen.
        Rules(network.bridge, rules(network, subnet, guards)),
        *(Forwarding(device, network.bridge) for device in uplinks),
        dnsmasq(network, subnet, around),
    )


def late_uplink(network: Network, device: str) -> tuple[Resource, ...]:
    """Return what a network that is up needs for an uplink that has come since."""
    guard = chain(network, f"guard_{device}", _FORWARD, *_ANSWERS, _guard(network, device))
    # Here the device's name is part of a chain's, which cannot be quoted.
    guards = (Rules(network.bridge, guard),) if names.plain_ifname(device) else ()
    return (*guards, Forwarding(device, network.bridge))


def guarded(uplinks: list[str], around: Surroundings) -> list[str]:
    """Return the uplinks whose forwarding only we switch on."""
    return [u for u in uplinks if u not in around.routers and names.quotable(u)]


def rules(network: Network, subnet: Subnet, guards: list[str]) -> str:
    """Return the network's chains.

    A host that was no router does not become one for its neighbours: what comes in by an uplink
    in GUARDS goes to our guests or nowhere.
    """
    dev = f'"{network.bridge}"'
    forward = chain(
        network,
        "forward",
        _FORWARD,
        between_guests(network),
        f"iifname {dev} ip saddr != {subnet} drop",
        f"iifname {dev} meta nfproto != ipv4 drop",
        *_ANSWERS,
        f"oifname {dev} drop",
        *(_guard(network, device) for device in guards),
    )
    postrouting = chain(
        network,
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        # Not between guests: with br_netfilter their frames pass here too.
        f"ip saddr {subnet} oifname != {dev} masquerade",
    )
    return forward + postrouting


def _guard(network: Network, uplink: str) -> str:
    """Return the rule that keeps the host from routing for an uplink's neighbours.

    It comes after `_ANSWERS`. From the uplink to the uplink passes: with br_netfilter that is what
    goes between the ports of an uplink that is a bridge.
    """
    outside = f'{{ "{network.bridge}", "{uplink}" }}'
    return f'iifname "{uplink}" oifname != {outside} drop'
