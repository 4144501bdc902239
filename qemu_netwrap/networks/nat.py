"""nat: guests reach what the host reaches, by its addresses; no connections come in."""

from __future__ import annotations

from qemu_netwrap import networks, resources
from qemu_netwrap.model import names
from qemu_netwrap.model.host import Needs
from qemu_netwrap.networks.base import NetworkDriver

_FORWARD = "type filter hook forward priority filter; policy accept;"
# After conntrack (-200) and dstnat (-100): the packet has its final destination.
_MARKING = "type filter hook prerouting priority -90; policy accept;"
MARK = "0x10000000"  # Docker, Kubernetes, Calico and Tailscale set no mark of this bit alone
_ANSWERS = ("ct state established,related accept", "ct status dnat accept")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qemu_netwrap.model.host import NetworkFacts, WayOut
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Ipv6Facts, Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.networks.base import Reader
    from qemu_netwrap.resources.base import Resource


class Driver(NetworkDriver):
    """A bridge with the host's address, dnsmasq, and masquerading to wherever the host routes."""

    def readers(self) -> Mapping[str, Reader]:
        """Return the keys of a bridge, of its subnet, and of the services on it, DNS included."""
        keys = networks.keys
        return {**keys.BRIDGED, **keys.ROUTED, "dns": keys.servers, **keys.SERVED}

    def needs(self, network: Network) -> Needs:
        """Return the pools for the subnet, the way out, and whether IPv6 is wanted."""
        return Needs(networks.routed.subnet_pools(network), way_out=True, ipv6=network.ipv6)

    def network_resources(self, network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
        """Return a bridge with gateway addresses, forwarding, the rules and dnsmasq.

        The device that a packet arrives on decides on IPv4 forwarding (Documentation/networking/
        ip-sysctl.rst, conf/DEVICE/forwarding): the bridge for what guests send, and each device
        that routes leave by for the answers. The global sysctl is left alone. For IPv6 see
        `networks.ipv6`.
        """
        routed, ipv6, sysctls = networks.routed, networks.ipv6, resources.sysctls
        subnet, prefix = routed.subnet_of(network, host), ipv6.prefix_of(network, host)
        six = host.ipv6 if prefix is not None else None
        uplinks = [d for d in dict.fromkeys(r.device for r in host.routes) if d not in host.inner]
        ours = [device for device in uplinks if device not in host.routers]
        guards = [
            *(rule for device in ours for rule in ipv6.guard(network, device, "ipv4")),
            *ipv6.router_guards(network, six, host.inner),
        ]
        doors = [
            *routed.closed(network, subnet, prefix),
            *(f"ipv4 iif {device}" for device in ours),
            *ipv6.doors(six, host.inner),
        ]
        chains = rules(network, subnet, prefix, guards) + routed.services_of(network, host)
        return (
            *routed.segment(network, subnet, prefix, host),
            sysctls.Sysctl(network.bridge, "ipv4", "forwarding", "1"),
            *ipv6.own_forwarding(network, six),
            # Rules before forwarding: no packet is forwarded unfiltered.
            resources.nftables.NetworkChains(network.bridge, chains),
            resources.forward_guards.RouterGuard(network.bridge, "\n".join(doors)),
            *(sysctls.Forwarding(device, network.bridge) for device in uplinks),
            *ipv6.way_out(network, six, host.inner),
            routed.dnsmasq(network, subnet, prefix, host),
            resources.lookout.Lookout(network.bridge),
        )

    def follow_host(self, network: Network, came: WayOut) -> tuple[Resource, ...]:
        """Return forwarding for a device that appeared, and the guards against its neighbours."""
        if came.ipv6 is None:
            return _late_uplink(network, came.device)
        return _late_uplink6(network, came.device, came.ipv6)


def _late_uplink(network: Network, device: str) -> tuple[Resource, ...]:
    """Return what a network that is up needs for an uplink that appeared later."""
    rules = networks.ipv6.guard(network, device, "ipv4")
    guards = _late_guard(network, "ipv4", device, rules, [f"ipv4 iif {device}"])
    return (*guards, resources.sysctls.Forwarding(device, network.bridge))


def _late_uplink6(network: Network, device: str, facts: Ipv6Facts) -> tuple[Resource, ...]:
    """Return the same for IPv6; FACTS is the host's current state."""
    rules = networks.ipv6.router_guards(network, facts, ())
    guards = _late_guard(network, "ipv6", device, rules, networks.ipv6.doors(facts, ()))
    return (*guards, *networks.ipv6.late_way_out(network, facts))


def _late_guard(
    network: Network, family: str, device: str, rules: Iterable[str], doors: list[str]
) -> tuple[Resource, ...]:
    """Return a chain with the guards for DEVICE, and the doors that are closed.

    RULES is empty if nft cannot quote the device's name; the doors are then all there is.
    """
    found: list[Resource] = []
    if rules:
        nftables = resources.nftables
        hook = f"{nftables.LATE[family]}_{names.in_chain_name(device)}"
        chain = nftables.chain(network, hook, _FORWARD, *_ANSWERS, *rules)
        found.append(nftables.NetworkChains(network.bridge, chain))
    if doors:
        found.append(resources.forward_guards.RouterGuard(network.bridge, "\n".join(doors)))
    return tuple(found)


def rules(network: Network, subnet: Subnet, prefix: Prefix | None, guards: list[str]) -> str:
    """Return the network's chains.

    A host that was no router does not become one for its neighbours: of what comes in from outside,
    GUARDS pass only what goes to the network's guests.
    """
    dev, chain = f'"{network.bridge}"', resources.nftables.chain
    marking = chain(network, "prerouting", _MARKING, *_marks(network, subnet, prefix))
    forward = chain(
        network,
        "forward",
        _FORWARD,
        f"meta mark {MARK} meta mark set 0",
        networks.routed.between_guests(network),
        f"iifname {dev} ip saddr != {subnet} drop",
        networks.ipv6.anti_spoofing_rule(network, prefix),
        *_ANSWERS,
        f"oifname {dev} drop",
        *guards,
    )
    postrouting = chain(
        network,
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
        # Not between guests: with br_netfilter their frames traverse this chain too.
        f"ip saddr {subnet} oifname != {dev} masquerade",
        *([f"ip6 saddr {prefix} oifname != {dev} masquerade"] if prefix is not None else []),
    )
    return marking + forward + networks.routed.sources(network, subnet, prefix) + postrouting


def _marks(network: Network, subnet: Subnet, prefix: Prefix | None) -> list[str]:
    """Return the rules that mark what may be forwarded; the forward chain clears the mark again.

    Policy rules drop the rest (`RouterGuard`). A packet that another program marked is left alone.
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
