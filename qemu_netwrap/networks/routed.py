"""What nat and host-only share: a bridge with a gateway address, and dnsmasq on it."""

from __future__ import annotations

import zlib

from qemu_netwrap import model, networks
from qemu_netwrap.errors import HostError
from qemu_netwrap.model import names, plain_text
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.networks import ipv6
from qemu_netwrap.networks.bridge import guarded, own_bridge
from qemu_netwrap.resources.dnsmasq import DnsmasqServer, resolver_lines
from qemu_netwrap.resources.links import Address
from qemu_netwrap.resources.nftables import chain
from qemu_netwrap.resources.port_filters import IpFilter
from qemu_netwrap.resources.sysctls import Sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.host import NetworkFacts, Route
    from qemu_netwrap.model.ipv6 import Prefix
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource

# Pools from which a /24 is chosen: away from common LANs, and from the defaults of Docker
# (from 172.17.0.0/16), libvirt (192.168.122.0/24) and Podman (10.88.0.0/16).
POOLS = (
    Subnet.parse("10.128.0.0/9"),
    Subnet.parse("172.20.0.0/14"),
    Subnet.parse("192.168.0.0/16"),
)
SUBNET_LENGTH = 24
# A route with a shorter prefix is part of a default route, as VPNs split it: not a network.
DEFAULT_LIKE = 2
LEASE = "1h"
ETHERNET_MTU = 1500
SMALLEST_MTU = 576  # RFC 791: the datagram that every host must accept


def subnet_pools(network: Network) -> tuple[Subnet, ...]:
    """Return the pools for the network's subnet: routes outside of them cannot overlap it."""
    return POOLS if network.subnet is None else (network.subnet,)


def subnet_of(network: Network, facts: NetworkFacts) -> Subnet:
    """Return the network's subnet: the configured one, else a free one, the same each time.

    Raises `HostError` if the subnet overlaps a route, which it names, or if none is free.
    """
    routes = [route for route in facts.routes if route.subnet.length >= DEFAULT_LIKE]
    if network.subnet is not None:
        in_the_way = next((r for r in routes if r.subnet.overlaps(network.subnet)), None)
        if in_the_way is not None:
            raise HostError(
                f"network {network.name}: subnet {network.subnet} overlaps the host's route"
                f" {in_the_way}",
                "choose another subnet, or leave it out: a free one is found",
            )
        return network.subnet
    for pool in POOLS:
        found = _free_in(pool, network.name, routes, facts.reserved)
        if found is not None:
            return found
    raise HostError(
        f"network {network.name}: no free /{SUBNET_LENGTH} in {', '.join(map(str, POOLS))}",
        "give it a subnet in the configuration",
    )


def _free_in(
    pool: Subnet, name: str, routes: list[Route], reserved: tuple[Subnet, ...]
) -> Subnet | None:
    """Return the first free subnet of POOL from a start derived from NAME; None if it is full."""
    taken = [s for s in (*(r.subnet for r in routes), *reserved) if s.overlaps(pool)]
    if any(subnet.length <= pool.length for subnet in taken):
        return None
    count = 1 << SUBNET_LENGTH - pool.length
    start = zlib.crc32(name.encode()) % count
    for number in range(count):
        place = (start + number) % count
        subnet = Subnet(pool.network + (place << 32 - SUBNET_LENGTH), SUBNET_LENGTH)
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    return None


def segment(
    network: Network, subnet: Subnet, prefix: Prefix | None, facts: NetworkFacts
) -> tuple[Resource, ...]:
    """Return the bridge with its gateway addresses. Raises `HostError` if its name is taken.

    No other host is on the segment yet that could have these addresses. dnsmasq sends router
    advertisements from the link-local one (src/radv.c).
    """
    if facts.is_left:
        raise HostError(
            f"network {network.name}: bridge {network.bridge} is left of a network whose state in"
            " /run/qemu-netwrap has been removed",
            "end the VMs that use it, if there are any, then: qemu-netwrap gc",
        )
    if facts.bridge_exists:
        raise HostError(
            f"network {network.name}: an interface {network.bridge} exists already,"
            " and is not qemu-netwrap's",
            f"give the network another bridge, or look at it with: ip link show {network.bridge}",
        )
    bridge = own_bridge(network, facts).replace(mtu=mtu_of(network, facts))
    if prefix is not None:
        bridge = bridge.replace(group=ipv6.GROUP, link_local=ipv6.link_local(bridge.mac))
    return (
        *guarded(bridge, filtered=not network.filters_ips),
        # The source of what guests send is looked up as well, with the mark that the network's
        # chains set, so that `closed` applies to it.
        Sysctl(network.bridge, "ipv4", "rp_filter", "1"),
        Sysctl(network.bridge, "ipv4", "src_valid_mark", "1"),
        Address(network.bridge, f"{subnet.first}/{subnet.length}"),
        *ipv6.addresses(network, prefix),
        *_ip_filter(network, subnet, prefix),
    )


def closed(network: Network, subnet: Subnet, prefix: Prefix | None) -> list[str]:
    """Return the doors that are closed to unmarked packets: into the network, and out of it.

    Out of it, IPv4 needs no door: the kernel also looks up the way back, to the packet's source
    from where the packet leaves (`rp_filter`), and the door into the network stops that. A door
    of its own would also stop that lookup for answers, which arrive on devices where the kernel
    does it without the mark (`src_valid_mark`).
    """
    six = [f"ipv6 iif {network.bridge}", f"ipv6 to {prefix}"] if prefix is not None else []
    return [f"ipv4 to {subnet}", *six]


def _ip_filter(network: Network, subnet: Subnet, prefix: Prefix | None) -> tuple[IpFilter, ...]:
    """Return the filter block for the network's guests, released with the bridge."""
    if not network.filters_ips:
        return ()
    gateways = [subnet.first, *([prefix.gateway] if prefix else [])]
    return (IpFilter(network.bridge, network.bridge, " ".join(gateways)),)


def mtu_of(network: Network, facts: NetworkFacts) -> int:
    """Return the MTU of a network if that of its way out is below Ethernet's; else 0.

    Without it guests would send packets that are too large. An MTU above Ethernet's (jumbo frames)
    is not adopted: many guest NICs could not receive what the host would then send.
    """
    leads_out = network.traits.has_way_out
    return facts.mtu if leads_out and SMALLEST_MTU <= facts.mtu < ETHERNET_MTU else 0


def services_of(network: Network, facts: NetworkFacts) -> str:
    """Return the chain that closes the host's services to guests; "" if all are open."""
    if network.host_services is None and facts.others is None:
        return ""

    return networks.host_services.rules(network, facts)


def sources(network: Network, subnet: Subnet, prefix: Prefix | None) -> str:
    """Return the chain for what guests send to the host itself.

    It accepts sources of the network, and 0.0.0.0 for DHCP requests. It drops ICMP redirects, which
    could change the host's routes.
    """
    dev = f'iifname "{network.bridge}"'
    return chain(
        network,
        "sources",
        "type filter hook input priority filter; policy accept;",
        f"{dev} ip saddr 0.0.0.0 udp dport 67 accept",
        f"{dev} ip saddr != {subnet} drop",
        f"{dev} icmp type redirect drop",
        *ipv6.sources(network, prefix),
    )


def between_guests(network: Network) -> str:
    """Return the rule for what the host forwards from guest to guest.

    With br_netfilter that includes bridged frames. Isolated ports exchange no frames, and the
    gateway must not become a way around that.
    """
    verdict = "drop" if network.isolated else "accept"
    return f'iifname "{network.bridge}" oifname "{network.bridge}" {verdict}'


def dnsmasq(
    network: Network, subnet: Subnet, prefix: Prefix | None, facts: NetworkFacts
) -> DnsmasqServer:
    """Return the network's dnsmasq: on its bridge only, with guests' names in NAME.internal."""
    domain = f"{network.name}.internal"
    lines = [
        f"interface={network.bridge}",
        "except-interface=lo",
        # Also check which interface a query arrives on: a neighbour of the host that routes to the
        # gateway's address gets no answer.
        "bind-dynamic",
        "no-hosts",
        f"domain={domain}",
        f"local=/{domain}/",
        "domain-needed",
        *_ranges(network, subnet),
        "dhcp-authoritative",
        "dhcp-ignore-clid",
        *_believed(network),
        # No other server assigns addresses here: a ping before each offer would only cost time.
        "no-ping",
        *ipv6.dnsmasq(network, prefix, facts),
        *([f"dhcp-option=option:mtu,{mtu}"] if (mtu := mtu_of(network, facts)) else []),
        *_boot(network),
        *(_host_record(name, address, domain) for name, address in network.hosts),
        *_reach(network, facts),
    ]
    duid = ipv6.duid(own_bridge(network, facts).mac) if prefix is not None else ""
    return DnsmasqServer(network.bridge, plain_text.dnsmasq(plain_text.joined(lines)), duid)


def _believed(network: Network) -> list[str]:
    """Return the lines that make dnsmasq ignore what DHCP clients claim.

    With mac_filter only known MACs are served, as a guest could otherwise take all addresses, and
    the runs assign the names. Without it guests may run nested guests, with other MACs and names.
    """
    if network.filters_macs:
        return ["dhcp-ignore=tag:!known", "dhcp-ignore-names"]
    reserved = [f"dhcp-name-match=set:reserved,{name}" for name in sorted(names.RESERVED)]
    return [*reserved, "dhcp-ignore-names=tag:reserved"]


def _ranges(network: Network, subnet: Subnet) -> list[str]:
    """Return the address ranges to lease: all but the gateway's and the reserved addresses."""
    if not network.addresses:
        return [f"dhcp-range={subnet.host(2)},{subnet.last},{LEASE}"]

    free = [f"dhcp-range={a},{b},{LEASE}" for a, b in model.reservations.ranges(network, subnet)]
    return free or [f"dhcp-range={subnet.host(0)},static,{LEASE}"]


def _boot(network: Network) -> list[str]:
    """Return the lines for network boot. TFTP uses one port, so that firewalls can match it."""
    tftp = ["enable-tftp", f"tftp-root={network.tftp}", "tftp-single-port"]
    boot = [f"dhcp-boot={network.bootfile}"] if network.bootfile else []
    return [*(tftp if network.tftp else []), *boot]


def _host_record(name: str, address: str, domain: str) -> str:
    """Return the line for a host's name; one without a dot is also in the network's domain."""
    known_as = name if "." in name else f"{name},{name}.{domain}"
    return f"host-record={known_as},{address}"


def _reach(network: Network, facts: NetworkFacts) -> list[str]:
    """Return the lines for DNS and routes beyond the network."""
    if not network.traits.has_way_out:
        # No default route, and no outside names: DNS queries would be a way out as well.
        return ["dhcp-option=option:router", "no-resolv"]
    if network.dns:
        return ["dns-loop-detect", "no-resolv", *(f"server={server}" for server in network.dns)]
    # The host's stub resolver may be among the servers, and forward back to this dnsmasq.
    return ["dns-loop-detect", *resolver_lines(facts.resolver, in_order=facts.in_order)]
