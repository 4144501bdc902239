"""What a network needs beside other firewalls, network managers and DNS servers on the host.

qemu-netwrap's rules have a table of their own; an accept there does not override a drop in another.
So accepts are inserted at the head of the other firewall's chains. They open nothing that the own
chains close: a packet must pass both. A remark names what only the administrator can change.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError
from qemu_netwrap.model import names, network_managers, plain_text
from qemu_netwrap.model.coexistence import (
    ARP,
    FORWARD,
    FRAMES,
    INET,
    INPUT,
    IP,
    IP6,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
)
from qemu_netwrap.networks import host_services
from qemu_netwrap.networks.host_services import DHCP6_PORT, DHCP_PORT, DNS_PORT
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.firewall_accepts import FirewalldZone, IptablesAccepts, NftAccepts
from qemu_netwrap.resources.nftables import NetworkChains, chain
from qemu_netwrap.resources.remark import Remark
from qemu_netwrap.resources.unmanaged import UnmanagedDevices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qemu_netwrap.model.coexistence import ClosedChain, CoexistenceFacts, IptablesFilter
    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource

_ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
TRUSTED = "trusted"  # firewalld's only predefined zone that accepts what comes in and is forwarded


def completed(
    network: Network, facts: NetworkFacts, others: CoexistenceFacts, made: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Return MADE, NETWORK's own resources, and those for coexistence. Raises `HostError`."""
    return (
        *_before(network, facts, others),
        *_moved(network, others, made),
        *_after(network, facts, others),
        *_shared(network, others, made),
    )


def _before(
    network: Network, facts: NetworkFacts, others: CoexistenceFacts
) -> tuple[Resource, ...]:
    """Return what precedes the creation of devices; nothing if the bridge exists already."""
    if facts.bridge_exists:
        return ()
    if others.managers and not network_managers.can_name(network.bridge):
        return (_unnameable(network, others),)
    return tuple(UnmanagedDevices(network.bridge, manager) for manager in others.managers)


def _moved(
    network: Network, others: CoexistenceFacts, made: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Return MADE adapted to servers that hold the DNS or DHCP port on every address.

    DNS moves to another port, to which guests' queries are redirected transparently. DHCP cannot
    be moved like this: if its port is taken, `HostError` is raised.
    """
    servers = [each for each in made if isinstance(each, DnsmasqServer)]
    for server in servers:
        _check_dhcp(network, others, server)
        _check_dns(network, others)
    if not servers or others.dns_port == DNS_PORT:
        return made
    query = f'iifname "{network.bridge}" fib daddr type local'
    redirect = chain(
        network,
        "dns",
        "type nat hook prerouting priority dstnat; policy accept;",
        *(f"{query} {p} dport {DNS_PORT} redirect to :{others.dns_port}" for p in ("udp", "tcp")),
    )
    rest = (
        _on_port(each, others.dns_port) if isinstance(each, DnsmasqServer) else each
        for each in made
    )
    return (*rest, NetworkChains(network.bridge, redirect))


def _check_dhcp(network: Network, others: CoexistenceFacts, server: DnsmasqServer) -> None:
    """Raise `HostError` if another server holds a DHCP port that SERVER needs."""
    wanted = (DHCP_PORT, DHCP6_PORT) if _has_dhcp6(server) else (DHCP_PORT,)
    for port in wanted:
        if port in others.taken:
            raise HostError(
                f"network {network.name}: another DHCP server has port {port} on every interface",
                "have it keep to its own (dnsmasq: bind-dynamic);"
                f" ss -lunp sport = {port} names it",
            )


def _check_dns(network: Network, others: CoexistenceFacts) -> None:
    """Raise `HostError` if port 53 is taken and there is no free port to move DNS to."""
    if not others.dns_port:
        raise HostError(
            f"network {network.name}: port {DNS_PORT} is taken on every address, and so is every"
            " other port that DNS could be on",
            f"have the other DNS server keep to its own addresses; ss -lunp sport = {DNS_PORT}"
            " names it",
        )


def _shared(
    network: Network, others: CoexistenceFacts, made: tuple[Resource, ...]
) -> tuple[Remark, ...]:
    """Return a remark if any local user can bind a port that serves the guests, else nothing."""
    servers = [each for each in made if isinstance(each, DnsmasqServer)]
    has_dhcp6 = any(map(_has_dhcp6, servers))
    served = {others.dns_port: "DNS", DHCP_PORT: "DHCP"}
    if has_dhcp6:
        served[DHCP6_PORT] = "DHCPv6"
    joined = ", ".join(name for port, name in served.items() if port >= others.open_from)
    if not (servers and joined):
        return ()
    return (
        Remark(
            network.bridge,
            f"network {network.name}: any local user can answer its guests' {joined}, for"
            f" net.ipv4.ip_unprivileged_port_start is {others.open_from}; remedy:"
            f" sysctl -w net.ipv4.ip_unprivileged_port_start={max(served) + 1}",
        ),
    )


def _has_dhcp6(server: DnsmasqServer) -> bool:
    """Whether a dnsmasq serves DHCPv6 or router advertisements."""
    lines = server.config.splitlines()
    return any(line.startswith("dhcp-range=") and "::" in line for line in lines)


def _on_port(server: DnsmasqServer, port: int) -> DnsmasqServer:
    """Return a dnsmasq with DNS on PORT, which still announces itself as the guests' resolver."""
    lines = [f"port={port}", "dhcp-option=option:dns-server,0.0.0.0"]
    lines += ["dhcp-option=option6:dns-server,[::]"] if _has_dhcp6(server) else []
    return server.replace(config=server.config + plain_text.joined(lines))


def _after(network: Network, facts: NetworkFacts, others: CoexistenceFacts) -> tuple[Resource, ...]:
    """Return what follows NETWORK's own rules: zones, accepts and remarks."""
    needed: list[Resource] = []
    if others.firewalld and network.traits.is_routed:
        needed.append(FirewalldZone(network.bridge, TRUSTED))
    elif others.firewalld and others.bridged:
        needed.append(_beyond_firewalld(network, others))
    is_made = not facts.bridge_exists
    by_iptables = (_by_iptables(network, each, others) for each in others.filters)
    by_nft = (
        _by_nft(network, each, others) for each in others.chains if is_made or each.family != FRAMES
    )
    accepts = [each for each in (*by_iptables, *by_nft) if each is not None]
    foreign = [each for each in others.chains if each.family == FRAMES and not is_made]
    if foreign:
        needed.append(_over_foreign_bridge(network, foreign))
    if accepts and not names.plain_ifname(network.bridge):
        return (*needed, _unspeakable(network))
    return (*needed, *accepts)


def _by_iptables(
    network: Network, table: IptablesFilter, others: CoexistenceFacts
) -> IptablesAccepts | None:
    """Return the accepts that a table of iptables needs; None when it needs none."""
    dev, family, is_routed = network.bridge, table.family, network.traits.is_routed
    rules: list[str] = []
    tells = host_services.iptables_match
    if table.prerouting and is_routed:
        is_all = PREROUTING not in table.selective
        matches = [""] if is_all else _in(network, [family], others, tells, is_early=True)
        rules += (f"PREROUTING -i {dev}{match}" for match in matches)
    if table.input and is_routed:
        rules += (f"INPUT -i {dev}{match}" for match in _in(network, [family], others, tells))
    if table.output and is_routed:
        rules += (f"OUTPUT -o {dev} {match}" for match in _out_by_iptables(table))
    into = table.forward
    if into and network.traits.has_way_out:
        rules += (f"{into} -i {dev}", f"{into} -o {dev} {_ANSWERS}")
    elif into and family in others.bridged:
        # br_netfilter sends frames from port to port through this chain too.
        rules.append(f"{into} -i {dev} -o {dev}")
    tail = f'-m comment --comment "{_mark(network)}" -j ACCEPT'
    lines = plain_text.joined(" ".join(f"-I {rule} {tail}".split()) for rule in rules)
    if not rules:
        return None
    return IptablesAccepts(dev, table.program, _mark(network), lines, table.table)


def _out_by_iptables(table: IptablesFilter) -> tuple[str, ...]:
    """Return the iptables(8) matches for what the host must be able to send to guests."""
    if table.table == "raw":
        return ("",)  # connections are not tracked there yet
    own = (("icmp", DHCP_PORT), ("ipv6-icmp", DHCP6_PORT))[table.family == IP6]
    return (_ANSWERS, f"-p {own[0]}", f"-p udp --sport {own[1]}")


def _by_nft(network: Network, closed: ClosedChain, others: CoexistenceFacts) -> NftAccepts | None:
    """Return the accepts that another program's chain needs; None when it needs none."""
    if closed.family == FRAMES:
        rules = _for_frames(network, closed)
    elif closed.hook == FORWARD:
        rules = _forwarded_by_nft(network, closed, others)
    else:
        rules = _local_by_nft(network, closed, others) if network.traits.is_routed else []
    lines = plain_text.joined(f"{rule} accept" for rule in rules)
    chain_of = (closed.family, closed.table, closed.chain)
    return NftAccepts(network.bridge, *chain_of, _mark(network), lines) if rules else None


def _families(closed: ClosedChain) -> tuple[str, ...]:
    """Return the IP families that pass through a chain."""
    return (IP, IP6) if closed.family == INET else (closed.family,)


def _local_by_nft(network: Network, closed: ClosedChain, others: CoexistenceFacts) -> list[str]:
    """Return the rules, still without `accept`, for traffic between guests and the host."""
    dev, is_arp = f'"{network.bridge}"', closed.family == ARP
    if closed.hook in (PREROUTING, INPUT):
        is_early = closed.hook == PREROUTING
        is_all = is_arp or (is_early and not closed.selective)
        families, tells = _families(closed), host_services.nft_match
        matches = [""] if is_all else _in(network, families, others, tells, is_early=is_early)
        return [f"iifname {dev}{match}" for match in matches]
    out = f"oifname {dev}"
    if is_arp or closed.hook == POSTROUTING:
        return [out]
    own = {IP: ("icmp", DHCP_PORT), IP6: ("ipv6-icmp", DHCP6_PORT)}
    kinds = [own[family] for family in _families(closed)]
    return [
        f"{out} ct state established,related",
        f"{out} ct status dnat",
        *(f"{out} meta l4proto {protocol}" for protocol, _ in kinds),
        *(f"{out} udp sport {port}" for _, port in kinds),
    ]


def _forwarded_by_nft(network: Network, closed: ClosedChain, others: CoexistenceFacts) -> list[str]:
    """Return the rules, still without `accept`, for forwarded traffic; empty if none are needed."""
    dev = f'"{network.bridge}"'
    if network.traits.has_way_out:
        ways = ("ct state established,related", "ct status dnat")
        return [f"iifname {dev}", *(f"oifname {dev} {way}" for way in ways)]
    is_seen = set(_families(closed)) & set(others.bridged)
    return [f"iifname {dev} oifname {dev}"] if is_seen else []


def _for_frames(network: Network, closed: ClosedChain) -> list[str]:
    """Return the rule for a chain of family `bridge`: it sees ports, so match on their bridge."""
    way = "obrname" if closed.hook in (OUTPUT, POSTROUTING) else "ibrname"
    return [f'meta {way} "{network.bridge}"']


def _in(
    network: Network,
    families: Sequence[str],
    others: CoexistenceFacts,
    tells: Callable[[str, int, int], str],
    *,
    is_early: bool = False,
) -> list[str]:
    """Return matches for what guests may send to the host, each after a blank; [""] matches all.

    IS_EARLY: before a redirect to another port, where DNS queries still have the usual port.
    """
    if host_services.is_open(network):
        return [""]
    ports = dict.fromkeys((DNS_PORT, others.dns_port) if is_early else (others.dns_port,))
    own = (s for port in ports for family in families for s in host_services.needed(family, port))
    wanted = dict.fromkeys((*own, *host_services.chosen(network)))
    return [f" {tells(*each)}" for each in wanted]


def _mark(network: Network) -> str:
    """Return the comment that marks our rules in others' chains; it names the network's bridge."""
    return f"qemu-netwrap: {network.bridge}"


def _beyond_firewalld(network: Network, others: CoexistenceFacts) -> Remark:
    """Return a remark for a plain bridge: in no zone, as it may carry the host's uplink."""
    keys = {IP: "iptables", IP6: "ip6tables"}
    off = " ".join(f"net.bridge.bridge-nf-call-{keys[family]}=0" for family in others.bridged)
    return Remark(
        network.bridge,
        f"network {network.name}: firewalld may drop what guests send each other, for br_netfilter"
        f" shows it to firewalls; remedy: sysctl -w {off}",
    )


def _unnameable(network: Network, others: CoexistenceFacts) -> Remark:
    """Return a remark for a bridge whose name a network manager would read as a pattern."""
    return Remark(
        network.bridge,
        f"network {network.name}: {' and '.join(others.managers)} may take over {network.bridge}:"
        " its name would be a pattern in their files; remedy: give the bridge a name of letters,"
        " digits, - . and _",
    )


def _over_foreign_bridge(network: Network, closed: list[ClosedChain]) -> Remark:
    """Return a remark for chains that may drop frames on a bridge that is not qemu-netwrap's."""
    chains = ", ".join(map(str, closed))
    return Remark(
        network.bridge,
        f"network {network.name}: {chains} may drop frames of its guests, and bridge"
        f" {network.bridge} cannot be opened there by qemu-netwrap;"
        f" remedy: nft 'insert rule {closed[0]} meta"
        f' ibrname "{network.bridge}" accept\'',
    )


def _unspeakable(network: Network) -> Remark:
    """Return a remark for a bridge whose name cannot be written in firewall rules."""
    return Remark(
        network.bridge,
        f"network {network.name}: a firewall drops what guests send, and bridge {network.bridge}"
        " has a name that cannot stand in its rules; remedy: use a bridge with a plain name",
    )
