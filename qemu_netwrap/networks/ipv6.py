"""IPv6 on nat and host-only: a ULA prefix, router advertisements and DHCPv6, the way out.

To route for its guests alone, a host takes one of two ways:

- Linux 6.17 has a switch for each device (`force_forwarding`). It is set for the bridge and for
  the devices that routes leave by, as for IPv4.
- Before, there is but the global one (`conf/all/forwarding`). It would have devices ignore the
  routers that they have listened to (`accept_ra` 1), which 2 prevents; and a rule drops what our
  guests have no part in (Documentation/networking/ip-sysctl.rst).

In both cases the bridge is to say of itself that it forwards. Whenever a device is told so, the
kernel throws away what all devices have learned from their routers, but for those whose
`accept_ra` is 2 (net/ipv6/addrconf.c, `addrconf_fixup_forwarding`): hence that comes first.
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

# A route as wide as this is no network: a default route in parts, or all there is of ULAs.
NO_NETWORK = 8
# The group of our bridges' devices, by which a rule tells all of them: "qn".
GROUP = 0x716E
_ATTEMPTS = 64
_FIRST_GUEST = 0x1000  # of DHCPv6; below are addresses that somebody chooses by hand
_INTERFACE_IDS = 1 << 64
_V6 = "meta nfproto ipv6"
_LINK_LOCAL = ipv6.Prefix(0xFE80 << 112)


def prefix_of(network: Network, facts: NetworkFacts) -> Prefix | None:
    """Return the network's prefix: the configured one, else a free one; None without IPv6.

    Raises `HostError` naming the route that is in a configured prefix's way.
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
    """Return why the network has no IPv6; None if it has. Empty: nobody wants to know."""
    if not network.ipv6 or facts.ipv6 is None:
        return ""
    if 0 < facts.mtu < ipv6.SMALLEST_MTU:
        return f"the way out has an MTU of {facts.mtu}, which is too small for it"
    leads_out = network.traits.has_way_out
    if facts.ipv6.is_fixed and leads_out and not facts.ipv6.is_router:
        return "/proc/sys is read-only, and by IPv6 this host does not forward"
    return facts.ipv6.missing or None


def addresses(network: Network, prefix: Prefix | None) -> tuple[Resource, ...]:
    """Return the gateway's address, if there is one."""
    if prefix is None:
        return ()
    return (Address(network.bridge, f"{prefix.gateway}/{prefix.length}"),)


def link_local(mac: str) -> str:
    """Return the link-local address that the kernel would give to a bridge with a MAC."""
    return f"{_LINK_LOCAL.of_mac(mac)}/{_LINK_LOCAL.length}"


def own_forwarding(network: Network, facts: Ipv6Facts | None) -> tuple[Resource, ...]:
    """Return what it takes that the bridge of a nat network forwards what its guests send.

    `forwarding` makes the host say that it is a router when guests ask for its MAC (RFC 4861,
    section 7.3.3); without, they would drop their default route.
    """
    if facts is None:
        return ()
    keys = ("forwarding", "force_forwarding") if facts.by_device else ("forwarding",)
    # A router's bridges forward from the start.
    is_so = facts.is_router
    own = (Sysctl(network.bridge, "ipv6", key, "1", optional=is_so) for key in keys)
    return (*_listening(network, facts), *own)


def _listening(network: Network, facts: Ipv6Facts) -> Iterator[Resource]:
    """Yield the switches that keep devices listening to their routers."""
    listeners = () if facts.is_fixed else facts.listeners
    return (Switch(d, "accept_ra", "1", "2", network.bridge) for d in listeners)


def late_way_out(network: Network, facts: Ipv6Facts) -> list[Resource]:
    """Return what a network that is up needs for what FACTS says of devices that came since."""
    return [*_listening(network, facts), *way_out(network, facts, ())]


def way_out(network: Network, facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[Resource]:
    """Return the switches that let answers in. INNER are devices that lead nowhere."""
    if facts is None or facts.is_router:
        return []
    outer = uplinks(facts, inner)
    if facts.by_device:
        return [Switch(d, "force_forwarding", "0", "1", network.bridge) for d in outer]
    # Without a way out there is nothing to forward to.
    return [Switch(ALL, "forwarding", "0", "1", network.bridge)] if outer else []


def uplinks(facts: Ipv6Facts, inner: tuple[str, ...]) -> list[str]:
    """Return the devices that routes leave by."""
    return [d for d in dict.fromkeys(route.device for route in facts.routes) if d not in inner]


def router_guards(network: Network, facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[str]:
    """Return the rules that keep a host which was no router from routing for its neighbours."""
    if facts is None or facts.is_router:
        return []
    if not facts.by_device:
        if not uplinks(facts, inner):
            return []
        # From bridge to bridge: with br_netfilter that is what goes between a bridge's ports.
        return [
            f'{_V6} meta iifkind "bridge" meta oifkind "bridge" accept',
            f"{_V6} iifgroup != {GROUP} oifgroup != {GROUP} drop",
        ]
    return [rule for d in _ours(facts, inner) for rule in guard(network, d, "ipv6")]


def doors(facts: Ipv6Facts | None, inner: tuple[str, ...]) -> list[str]:
    """Return the doors that are closed to what has no mark (`RouterGuard`) for the same end."""
    if facts is None or facts.is_router:
        return []
    if not facts.by_device:
        return [f"ipv6 {ALL}"] if uplinks(facts, inner) else []
    return [f"ipv6 iif {device}" for device in _ours(facts, inner)]


def _ours(facts: Ipv6Facts, inner: tuple[str, ...]) -> list[str]:
    """Return the devices that routes leave by whose forwarding only we switch on."""
    return [d for d in uplinks(facts, inner) if d not in facts.routers]


def guard(network: Network, uplink: str, family: str) -> tuple[str, ...]:
    """Return the rules that keep the host from routing for an uplink's neighbours.

    They come after those that let answers pass. From the uplink to the uplink passes where that is
    a bridge: with br_netfilter that is what goes between its ports.
    """
    if not names.quotable(uplink):
        return ()
    comes = f'meta nfproto {family} iifname "{uplink}"'
    return (
        f'{comes} oifname "{uplink}" meta iifkind != "bridge" drop',
        f'{comes} oifname != {{ "{network.bridge}", "{uplink}" }} drop',
    )


def anti_spoofing_rule(network: Network, prefix: Prefix | None) -> str:
    """Return the rule against what guests send out with addresses that are not the network's."""
    dev = f'iifname "{network.bridge}"'
    if prefix is None:
        return f"{dev} meta nfproto != ipv4 drop"
    return f"{dev} ip6 saddr != {prefix} drop"


def sources(network: Network, prefix: Prefix | None) -> tuple[str, ...]:
    """Return the rules for what guests send to the host itself: from where, and what not."""
    dev = f'iifname "{network.bridge}"'
    if prefix is None:
        return (f"{dev} meta nfproto ipv6 drop",)
    return (
        f"{dev} icmpv6 type {{ nd-router-advert, nd-redirect }} drop",
        # Without an address: who looks for duplicates of its own, or joins a group.
        f"{dev} ip6 saddr :: meta l4proto ipv6-icmp accept",
        f"{dev} ip6 saddr != {{ {prefix}, {_LINK_LOCAL.text}/10 }} drop",
    )


def duid(mac: str) -> str:
    """Return the DUID of a DHCPv6 server with a MAC (RFC 8415, 11.4: DUID-LL, Ethernet)."""
    return f"00:03:00:01:{mac}"


def dnsmasq(network: Network, prefix: Prefix | None, facts: NetworkFacts) -> list[str]:
    """Return what dnsmasq's configuration says of IPv6.

    Guests take addresses by router advertisement or by DHCPv6. `ra-names`: dnsmasq knows a guest
    by its IPv4 lease, and looks whether it has the address that SLAAC makes of its MAC. The MTU in
    advertisements is the bridge's.
    """
    if prefix is None:
        why = missing_reason(network, facts)
        return [f"# no IPv6: {why}"] if why else []
    # Where each guest has an address reserved, no other is leased: one guest could ask for so many,
    # by as many DUIDs, that dnsmasq has no lease left for others, of IPv4 either.
    last = "static" if network.filters_ips else prefix.host(_INTERFACE_IDS - 1)
    lines = [
        "enable-ra",
        f"dhcp-range={prefix.host(_FIRST_GUEST)},{last},slaac,ra-names,{prefix.length},1h",
    ]
    if not network.traits.has_way_out:
        lines.append(f"ra-param={network.bridge},0,0")  # no default route: a lifetime of 0
    return lines
