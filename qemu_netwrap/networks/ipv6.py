"""IPv6 on nat and host-only: a ULA prefix, router advertisements and DHCPv6, the way out.

There are two ways to make a host route for its guests alone:

- Since Linux 6.17 there is a sysctl for each device (`force_forwarding`). It is set for the bridge
  and for the devices that routes leave by, as for IPv4.
- Older kernels only have the global one (`conf/all/forwarding`). It makes devices with `accept_ra`
  1 ignore router advertisements, so `accept_ra` is set to 2; and a rule drops forwarded packets
  that are not to or from guests (Documentation/networking/ip-sysctl.rst).

In both cases `forwarding` is set for the bridge. Each time that is set for a device, the kernel
discards what all devices have learned from their routers, except those whose `accept_ra` is 2
(net/ipv6/addrconf.c, `addrconf_fixup_forwarding`): hence `accept_ra` is set first.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError
from qemu_netwrap.model import ipv6, names
from qemu_netwrap.resources.base import ALL
from qemu_netwrap.resources.links import Address
from qemu_netwrap.resources.sysctls import Switch, Sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.ipv6 import Ipv6Facts, Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource

# A route with this prefix length or less is part of a default route, or covers all ULAs.
NO_NETWORK = 8
# The device group of bridges of qemu-netwrap, so that one rule matches all of them: "qn".
GROUP = 0x716E
_ATTEMPTS = 64
_FIRST_GUEST = 0x1000  # of DHCPv6; addresses below are left for manual assignment
_INTERFACE_IDS = 1 << 64
_V6 = "meta nfproto ipv6"
_LINK_LOCAL = ipv6.Prefix(0xFE80 << 112)


def prefix_of(network: Network, facts: NetworkFacts) -> Prefix | None:
    """Return the network's prefix: the configured one, else a free one; None without IPv6.

    Raises `HostError`, naming the route, if a configured prefix overlaps one of the host.
    """
    if missing_reason(network, facts) is not None or facts.ipv6 is None:
        return None
    routes = [route for route in facts.ipv6.routes if route.prefix.length > NO_NETWORK]
    if network.subnet6 is not None:
        in_the_way = next((r for r in routes if r.prefix.overlaps(network.subnet6)), None)
        if in_the_way is not None:
            raise HostError(
                f"network {network.name}: subnet6 {network.subnet6} overlaps the host's route"
                f" {in_the_way}",
                "choose another subnet6, or leave it out: a free one is found",
            )
        return network.subnet6
    for attempt in range(_ATTEMPTS):
        found = ipv6.Prefix.derive(facts.machine, network.name, attempt)
        if not any(route.prefix.overlaps(found) for route in routes):
            return found
    return None


def missing_reason(network: Network, facts: NetworkFacts) -> str | None:
    """Return why the network has no IPv6: None if it has, "" if IPv6 was not requested."""
    if not network.ipv6 or facts.ipv6 is None:
        return ""
    if 0 < facts.mtu < ipv6.SMALLEST_MTU:
        return f"the way out has an MTU of {facts.mtu}, which is too small for it"
    leads_out = network.traits.has_way_out
    if facts.ipv6.is_fixed and leads_out and not facts.ipv6.is_router:
        return "/proc/sys is read-only, and by IPv6 this host does not forward"
    return facts.ipv6.missing or None


def addresses(network: Network, prefix: Prefix | None) -> tuple[Resource, ...]:
    """Return the gateway's address on the bridge; nothing without IPv6."""
    if prefix is None:
        return ()
    return (Address(network.bridge, f"{prefix.gateway}/{prefix.length}"),)


def link_local(mac: str) -> str:
    """Return the link-local address, with prefix length, that the kernel derives from a MAC."""
    return f"{_LINK_LOCAL.of_mac(mac)}/{_LINK_LOCAL.length}"


def own_forwarding(network: Network, facts: Ipv6Facts | None) -> tuple[Resource, ...]:
    """Return the sysctls that make the bridge of a nat network forward what its guests send.

    `forwarding` makes the host set the Router flag in its neighbour advertisements (RFC 4861,
    section 7.3.3); without that flag guests would drop their default route.
    """
    if facts is None:
        return ()
    keys = ("forwarding", "force_forwarding") if facts.by_device else ("forwarding",)
    # On a router new bridges forward by default.
    is_so = facts.is_router
    own = (Sysctl(network.bridge, "ipv6", key, "1", optional=is_so) for key in keys)
    return (*_listening(network, facts), *own)


def _listening(network: Network, facts: Ipv6Facts) -> Iterator[Resource]:
    """Yield the switches that let devices accept router advertisements while they forward."""
    listeners = () if facts.is_fixed else facts.listeners
    return (Switch(d, "accept_ra", "1", "2", network.bridge) for d in listeners)


def late_way_out(network: Network, facts: Ipv6Facts) -> list[Resource]:
    """Return what a network that is up needs for devices that appeared later, as in FACTS."""
    return [*_listening(network, facts), *way_out(network, facts, ())]


def way_out(network: Network, facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[Resource]:
    """Return the switches that forward incoming answers. INNER: bridges that are no way out."""
    if facts is None or facts.is_router:
        return []
    outer = uplinks(facts, inner)
    if facts.by_device:
        return [Switch(d, "force_forwarding", "0", "1", network.bridge) for d in outer]
    # Without a way out there is nothing to forward to.
    return [Switch(ALL, "forwarding", "0", "1", network.bridge)] if outer else []


def uplinks(facts: Ipv6Facts, inner: tuple[str, ...]) -> list[str]:
    """Return the devices by which routes leave the host, without INNER."""
    return [d for d in dict.fromkeys(route.device for route in facts.routes) if d not in inner]


def router_guards(network: Network, facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[str]:
    """Return the rules that keep a host that is no router from routing for its neighbours."""
    if facts is None or facts.is_router:
        return []
    if not facts.by_device:
        if not uplinks(facts, inner):
            return []
        # From bridge to bridge: with br_netfilter, frames between ports of a bridge match this.
        return [
            f'{_V6} meta iifkind "bridge" meta oifkind "bridge" accept',
            f"{_V6} iifgroup != {GROUP} oifgroup != {GROUP} drop",
        ]
    return [rule for d in _ours(facts, inner) for rule in guard(network, d, "ipv6")]


def doors(facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[str]:
    """Return the doors that `RouterGuard` closes to unmarked packets, for the same purpose."""
    if facts is None or facts.is_router:
        return []
    if not facts.by_device:
        return [f"ipv6 {ALL}"] if uplinks(facts, inner) else []
    return [f"ipv6 iif {device}" for device in _ours(facts, inner)]


def _ours(facts: Ipv6Facts, inner: tuple[str, ...]) -> list[str]:
    """Return the devices that routes leave by on which only qemu-netwrap enables forwarding."""
    return [d for d in uplinks(facts, inner) if d not in facts.routers]


def guard(network: Network, uplink: str, family: str) -> tuple[str, ...]:
    """Return the rules that keep the host from routing for an uplink's neighbours.

    They follow the rules that accept answers. What enters and leaves by the same uplink passes if
    that is a bridge: with br_netfilter, frames between its ports look like this.
    """
    if not names.quotable(uplink):
        return ()
    comes = f'meta nfproto {family} iifname "{uplink}"'
    return (
        f'{comes} oifname "{uplink}" meta iifkind != "bridge" drop',
        f'{comes} oifname != {{ "{network.bridge}", "{uplink}" }} drop',
    )


def anti_spoofing_rule(network: Network, prefix: Prefix | None) -> str:
    """Return the rule that drops what guests send out with a source outside the network."""
    dev = f'iifname "{network.bridge}"'
    if prefix is None:
        return f"{dev} meta nfproto != ipv4 drop"
    return f"{dev} ip6 saddr != {prefix} drop"


def sources(network: Network, prefix: Prefix | None) -> tuple[str, ...]:
    """Return the rules for what guests send to the host: valid sources, and rejected ICMPv6."""
    dev = f'iifname "{network.bridge}"'
    if prefix is None:
        return (f"{dev} meta nfproto ipv6 drop",)
    return (
        f"{dev} icmpv6 type {{ nd-router-advert, nd-redirect }} drop",
        # The unspecified source is used for duplicate address detection and to join groups.
        f"{dev} ip6 saddr :: meta l4proto ipv6-icmp accept",
        f"{dev} ip6 saddr != {{ {prefix}, {_LINK_LOCAL.text}/10 }} drop",
    )


def duid(mac: str) -> str:
    """Return the DUID of a DHCPv6 server with a MAC (RFC 8415, 11.4: DUID-LL, Ethernet)."""
    return f"00:03:00:01:{mac}"


def dnsmasq(network: Network, prefix: Prefix | None, facts: NetworkFacts) -> list[str]:
    """Return the lines on IPv6 of dnsmasq's configuration.

    Guests get addresses by router advertisement or by DHCPv6. `ra-names`: dnsmasq takes a guest's
    name from its IPv4 lease, and checks whether it has the address that SLAAC makes of its MAC. The
    MTU in advertisements is the bridge's.
    """
    if prefix is None:
        why = missing_reason(network, facts)
        return [f"# no IPv6: {why}"] if why else []
    # With ip_filter each guest has a reserved address, and no other is leased: one guest could use
    # so many DUIDs that dnsmasq has no lease left for others, IPv4 included.
    last = "static" if network.filters_ips else prefix.host(_INTERFACE_IDS - 1)
    lines = [
        "enable-ra",
        f"dhcp-range={prefix.host(_FIRST_GUEST)},{last},slaac,ra-names,{prefix.length},1h",
    ]
    if not network.traits.has_way_out:
        lines.append(f"ra-param={network.bridge},0,0")  # no default route: a lifetime of 0
    return lines
