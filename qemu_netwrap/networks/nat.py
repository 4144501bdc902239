"""nat: guests reach what the host reaches, under the host's addresses; nothing new comes in."""

from __future__ import annotations

from qemu_netwrap.model import names
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
from qemu_netwrap.resources.lookout import Lookout
from qemu_netwrap.resources.nftables import Rules
from qemu_netwrap.resources.sysctls import DeviceSetting, Forwarding

_FORWARD = "type filter hook forward priority filter; policy accept;"
# When conntrack knows a packet, and it has the destination that it is to go to.
_MARKING = "type filter hook prerouting priority -90; policy accept;"
MARK = "0x10000000"  # no mark that Docker, Kubernetes, Calico or Tailscale give has this bit alone
_ANSWERS = ("ct state established,related accept", "ct status dnat accept")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.model.host import Surroundings
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Around6, Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource


def resources(network: Network, around: Surroundings) -> tuple[Resource, ...]:
    """Return a bridge with gateway addresses, forwarding, the rules and dnsmasq.

    IPv4 forwarding is decided by the device a packet comes in by (Documentation/networking/
    ip-sysctl.rst, conf/DEVICE/forwarding): the bridge for what guests send, and each device that
    routes leave through for the answers. The global switch stays as it is. For IPv6 see `ipv6`.
    """
    subnet, prefix = subnet_of(network, around), ipv6.prefix_of(network, around)
    six = around.six if prefix is not None else None
    uplinks = [d for d in dict.fromkeys(r.device for r in around.routes) if d not in around.inner]
    ours = [device for device in uplinks if device not in around.routers]
    guards = [
        *(rule for device in ours for rule in ipv6.guard(network, device, "ipv4")),
        *ipv6.guards(network, six, around.inner),
    ]
    doors = [
        *closed(network, subnet, prefix),
        *(f"ipv4 iif {device}" for device in ours),
        *ipv6.doors(six, around.inner),
    ]
    return (
        *segment(network, subnet, prefix, around),
        DeviceSetting(network.bridge, "ipv4", "forwarding", "1"),
        *ipv6.own_forwarding(network, six),
        # Rules before forwarding: no packet is forwarded that they have not seen.
        Rules(
            network.bridge, rules(network, subnet, prefix, guards) + services_of(network, around)
        ),
        Guard(network.bridge, "\n".join(doors)),
        *(Forwarding(device, network.bridge) for device in uplinks),
        *ipv6.way_out(network, six, around.inner),
        dnsmasq(network, subnet, prefix, around),
        Lookout(network.bridge),
    )


def late_uplink(network: Network, device: str) -> tuple[Resource, ...]:
    """Return what a network that is up needs for an uplink that has come since."""
    rules = ipv6.guard(network, device, "ipv4")
    guards = _late_guard(network, "guard", device, rules, [f"ipv4 iif {device}"])
    return (*guards, Forwarding(device, network.bridge))


def late_uplink6(network: Network, device: str, around: Around6) -> tuple[Resource, ...]:
    """Return the same for IPv6; AROUND is the host as it is by now."""
    rules = ipv6.guards(network, around, ())
    guards = _late_guard(network, "guard6", device, rules, ipv6.doors(around, ()))
    return (*guards, *ipv6.late_way_out(network, around))


def _late_guard(
    network: Network, name: str, device: str, rules: Iterable[str], doors: list[str]
) -> tuple[Resource, ...]:
    """Return a chain with the guards for DEVICE, and the doors that are closed.

    A device whose name nft's language cannot say has the latter alone.
    """
    found: list[Resource] = []
    if rules:
        hook = f"{name}_{names.in_chain_name(device)}"
        found.append(Rules(network.bridge, chain(network, hook, _FORWARD, *_ANSWERS, *rules)))
    if doors:
        found.append(Guard(network.bridge, "\n".join(doors)))
    return tuple(found)


def rules(network: Network, subnet: Subnet, prefix: Prefix | None, guards: list[str]) -> str:
    """Return the network's chains.

    A host that was no router does not become one for its neighbours: of what comes in from outside
    GUARDS let pass what goes to our guests.
    """
    dev = f'"{network.bridge}"'
    marking = chain(network, "prerouting", _MARKING, *_marks(network, subnet, prefix))
    forward = chain(
        network,
        "forward",
        _FORWARD,
        f"meta mark {MARK} meta mark set 0",
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
    return marking + forward + sources(network, subnet, prefix) + postrouting


def _marks(network: Network, subnet: Subnet, prefix: Prefix | None) -> list[str]:
    """Return the rules that mark what may be forwarded, for as long as it takes to route it.

    Policy rules drop the rest (`Guard`). What has a mark of somebody else's keeps that.
    """
    dev, mark = f'"{network.bridge}"', f"fib daddr type unicast meta mark set {MARK}"
    six = [f"iifname {dev} ip6 saddr {prefix} {mark}"] if prefix is not None else []
    return [
        "meta mark != 0 accept",
        f"iifname {dev} ip saddr {subnet} {mark}",
        *six,
        f"iifname != {dev} ct state established,related {mark}",
        f"iifname != {dev} ct status dnat {mark}",
    ]
