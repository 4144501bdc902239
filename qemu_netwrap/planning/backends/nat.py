"""nat: guests reach what the host reaches, under the host's addresses; nothing new comes in."""

from __future__ import annotations

from qemu_netwrap.core import names
from qemu_netwrap.core.resources import DeviceSetting, Forwarding, Rules
from qemu_netwrap.planning.backends import ipv6
from qemu_netwrap.planning.backends.segment import (
    between_guests,
    chain,
    dnsmasq,
    segment,
    services_of,
    subnet_of,
)

_FORWARD = "type filter hook forward priority filter; policy accept;"
_ANSWERS = ("ct state established,related accept", "ct status dnat accept")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.ipv6 import Around6, Prefix
    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.resources import Resource


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return a bridge with gateway addresses, forwarding, the rules and dnsmasq.

    IPv4 forwarding is decided by the device a packet comes in by (Documentation/networking/
    ip-sysctl.rst, conf/DEVICE/forwarding): the bridge for what guests send, and each device that
    routes leave through for the answers. The global switch stays as it is. For IPv6 see `ipv6`.
    """
    subnet, prefix = subnet_of(network, around), ipv6.prefix_of(network, around)
    six = around.six if prefix is not None else None
    uplinks = [d for d in dict.fromkeys(r.device for r in around.routes) if d not in around.inner]
    guards = [
        *(_guard(network, device) for device in guarded(uplinks, around)),
        *ipv6.guards(network, six, around.inner),
    ]
    return (
        *segment(network, subnet, prefix, around),
        DeviceSetting(network.bridge, "ipv4", "forwarding", "1"),
        *ipv6.own_forwarding(network, six),
        # Rules before forwarding: no packet is forwarded that they have not seen.
        Rules(
            network.bridge, rules(network, subnet, prefix, guards) + services_of(network, around)
        ),
        *(Forwarding(device, network.bridge) for device in uplinks),
        *ipv6.way_out(network, six, around.inner),
        dnsmasq(network, subnet, prefix, around),
    )


def late_uplink(network: Network, device: str) -> tuple[Resource, ...]:
    """Return what a network that is up needs for an uplink that has come since."""
    guards = _late_guard(network, f"guard_{device}", device, [_guard(network, device)])
    return (*guards, Forwarding(device, network.bridge))


def late_uplink6(network: Network, device: str, around: Around6) -> tuple[Resource, ...]:
    """Return the same for IPv6; AROUND is the host as it is by now."""
    rules = ipv6.guards(network, around, ())
    guards = _late_guard(network, f"guard6_{device}", device, rules)
    return (*guards, *ipv6.late_way_out(network, around))


def _late_guard(network: Network, name: str, device: str, rules: list[str]) -> tuple[Rules, ...]:
    """Return a chain with the guards for DEVICE, whose name is part of the chain's NAME."""
    if not rules or not names.plain_ifname(device):
        return ()  # the names of chains cannot be quoted
    return (Rules(network.bridge, chain(network, name, _FORWARD, *_ANSWERS, *rules)),)


def guarded(uplinks: list[str], around: Surroundings) -> list[str]:
    """Return the uplinks whose forwarding only we switch on."""
    return [u for u in uplinks if u not in around.routers and names.quotable(u)]


def rules(network: Network, subnet: Subnet, prefix: Prefix | None, guards: list[str]) -> str:
    """Return the network's chains.

    A host that was no router does not become one for its neighbours: of what comes in from outside
    GUARDS let pass what goes to our guests.
    """
    dev = f'"{network.bridge}"'
    forward = chain(
        network,
        "forward",
        _FORWARD,
        between_guests(network),
        f"iifname {dev} ip saddr != {subnet} drop",
        ipv6.spoofed(network, prefix),
        *_ANSWERS,
        f"oifname {dev} drop",
        *guards,
    )
    postrouting = chain(
        network,
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        # Not between guests: with br_netfilter their frames pass here too.
        f"ip saddr {subnet} oifname != {dev} masquerade",
        *([f"ip6 saddr {prefix} oifname != {dev} masquerade"] if prefix is not None else []),
    )
    return forward + postrouting


def _guard(network: Network, uplink: str) -> str:
    """Return the rule that keeps the host from routing for an uplink's neighbours.

    It comes after `_ANSWERS`. From the uplink to the uplink passes: with br_netfilter that is what
    goes between the ports of an uplink that is a bridge.
    """
    outside = f'{{ "{network.bridge}", "{uplink}" }}'
    return f'meta nfproto ipv4 iifname "{uplink}" oifname != {outside} drop'
