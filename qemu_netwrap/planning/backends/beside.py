"""What a network of ours needs beside others on the host: firewalls, managers, DNS servers.

Our rules are in a table of their own; an accept there does not help against a drop in another. So
accepts go to the head of that other's chains. They open nothing that our own chains keep closed: a
packet has to pass both. What is not ours to change the user is told, with the remedy.
"""

from __future__ import annotations

from qemu_netwrap.core import managers, names, plain
from qemu_netwrap.core.errors import HostError
from qemu_netwrap.core.model import BRIDGE, NAT
from qemu_netwrap.core.neighbours import FORWARD, INPUT, IP, IP6
from qemu_netwrap.core.resources import (
    Dnsmasq,
    FirewalldZone,
    IptablesAccepts,
    NftAccepts,
    Remark,
    Rules,
    Unmanaged,
)
from qemu_netwrap.planning.backends import services
from qemu_netwrap.planning.backends.segment import chain
from qemu_netwrap.planning.backends.services import DHCP6_PORT, DHCP_PORT, DNS_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qemu_netwrap.core.model import Network, Surroundings
    from qemu_netwrap.core.neighbours import ClosedChain, IptablesFilter, Neighbours
    from qemu_netwrap.core.resources import Resource

TRUSTED = "trusted"  # the one zone of firewalld's own that lets through what comes and goes


def completed(
    network: Network, around: Surroundings, near: Neighbours, made: tuple[Resource, ...]
) -> tuple[Resource, ...]:
    """Return MADE, what makes NETWORK, with what it needs beside others. Raises `HostError`."""
    return (
        *_before(network, around, near),
        *_moved(network, near, made),
        *_after(network, near),
        *_shared(network, near, made),
    )


def _before(network: Network, around: Surroundings, near: Neighbours) -> tuple[Resource, ...]:
    """Return what comes first, before there are devices; nothing on a bridge of somebody else."""
    if around.bridge_exists:
        return ()
    if near.managers and not managers.can_name(network.bridge):
        return (_unnameable(network, near),)
    return tuple(Unmanaged(network.bridge, manager) for manager in near.managers)


def _moved(network: Network, near: Neighbours, made: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return what MADE becomes where somebody has the ports of DHCP or DNS on every address.

    DNS moves to another port, and guests' queries are redirected to it: they do not see it. DHCP
    cannot be moved so. Raises `HostError` then.
    """
    servers = [each for each in made if isinstance(each, Dnsmasq)]
    for server in servers:
        _check_dhcp(network, near, server)
        _check_dns(network, near)
    if not servers or near.dns_port == DNS_PORT:
        return made
    query = f'iifname "{network.bridge}" fib daddr type local'
    redirect = chain(
        network,
        "dns",
        "type nat hook prerouting priority dstnat; policy accept;",
        *(f"{query} {p} dport {DNS_PORT} redirect to :{near.dns_port}" for p in ("udp", "tcp")),
    )
    others = (_on_port(each, near.dns_port) if isinstance(each, Dnsmasq) else each for each in made)
    return (*others, Rules(network.bridge, redirect))


def _check_dhcp(network: Network, near: Neighbours, server: Dnsmasq) -> None:
    """Raise `HostError` when SERVER could not have its DHCP's port."""
    wanted = (DHCP_PORT, DHCP6_PORT) if _has_dhcp6(server) else (DHCP_PORT,)
    for port in wanted:
        if port in near.taken:
            raise HostError(
                f"network {network.name}: another DHCP server has port {port} on every interface",
                "have it keep to its own (dnsmasq: bind-dynamic);"
                f" ss -lunp sport = {port} names it",
            )


def _check_dns(network: Network, near: Neighbours) -> None:
    """Raise `HostError` when no port is left for DNS that it could be moved to."""
    if not near.dns_port:
        raise HostError(
            f"network {network.name}: port {DNS_PORT} is taken on every address, and so is every"
            " other port that DNS could be on",
            f"have the other DNS server keep to its own addresses; ss -lunp sport = {DNS_PORT}"
            " names it",
        )


def _shared(network: Network, near: Neighbours, made: tuple[Resource, ...]) -> tuple[Remark, ...]:
    """Return what to tell where any local user may join in on a port that serves the guests."""
    servers = [each for each in made if isinstance(each, Dnsmasq)]
    has_dhcp6 = any(map(_has_dhcp6, servers))
    served = {near.dns_port: "DNS", DHCP_PORT: "DHCP"}
    if has_dhcp6:
        served[DHCP6_PORT] = "DHCPv6"
    joined = ", ".join(name for port, name in served.items() if port >= near.open_from)
    if not (servers and joined):
        return ()
    return (
        Remark(
            network.bridge,
            f"network {network.name}: any local user can answer its guests' {joined}, for"
            f" net.ipv4.ip_unprivileged_port_start is {near.open_from}; remedy:"
            f" sysctl -w net.ipv4.ip_unprivileged_port_start={max(served) + 1}",
        ),
    )


def _has_dhcp6(server: Dnsmasq) -> bool:
    """Whether a dnsmasq is to serve DHCPv6, or router advertisements."""
    lines = server.config.splitlines()
    return any(line.startswith("dhcp-range=") and "::" in line for line in lines)


def _on_port(server: Dnsmasq, port: int) -> Dnsmasq:
    """Return a dnsmasq that has its DNS on another port, and tells guests of its address still."""
    lines = [f"port={port}", "dhcp-option=option:dns-server,0.0.0.0"]
    lines += ["dhcp-option=option6:dns-server,[::]"] if _has_dhcp6(server) else []
    return server.replace(config=server.config + plain.joined(lines))


def _after(network: Network, near: Neighbours) -> tuple[Resource, ...]:
    """Return what comes last, when NETWORK's own rules are in place."""
    needed: list[Resource] = []
    if near.firewalld and network.mode != BRIDGE:
        needed.append(FirewalldZone(network.bridge, TRUSTED))
    elif near.firewalld and near.bridged:
        needed.append(_beyond_firewalld(network, near))
    by_iptables = (_by_iptables(network, each, near) for each in near.filters)
    by_nft = (_by_nft(network, each, near) for each in near.chains)
    accepts = [each for each in (*by_iptables, *by_nft) if each is not None]
    if accepts and not names.plain_ifname(network.bridge):
        return (*needed, _unspeakable(network))
    return (*needed, *accepts)


def _by_iptables(
    network: Network, table: IptablesFilter, near: Neighbours
) -> IptablesAccepts | None:
    """Return the accepts that a filter table of iptables needs; None when it needs none."""
    dev, family = network.bridge, table.family
    rules: list[str] = []
    if table.input and network.mode != BRIDGE:
        matches = (
            f" {services.iptables_match(*each)}" for each in _wanted(network, [family], near)
        )
        rules += (f"INPUT -i {dev}{m}" for m in ([""] if services.is_open(network) else matches))
    into = table.forward
    if into and network.mode == NAT:
        answers = "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
        rules += (f"{into} -i {dev}", f"{into} -o {dev} {answers}")
    elif into and family in near.bridged:
        # What one port sends to another meets the firewall as well.
        rules.append(f"{into} -i {dev} -o {dev}")
    tail = f'-m comment --comment "{_mark(network)}" -j ACCEPT'
    lines = plain.joined(f"-I {rule} {tail}" for rule in rules)
    return IptablesAccepts(dev, table.program, _mark(network), lines) if rules else None


def _by_nft(network: Network, closed: ClosedChain, near: Neighbours) -> NftAccepts | None:
    """Return the accepts that a chain of somebody's own needs; None when it needs none."""
    dev = f'"{network.bridge}"'
    families = (IP, IP6) if closed.family == "inet" else (closed.family,)
    rules: list[str] = []
    if closed.hook == INPUT and network.mode != BRIDGE:
        matches = (f" {services.nft_match(*each)}" for each in _wanted(network, families, near))
        rules += (f"iifname {dev}{m}" for m in ([""] if services.is_open(network) else matches))
    elif closed.hook == FORWARD and network.mode == NAT:
        ways = ("ct state established,related", "ct status dnat")
        rules += (f"iifname {dev}", *(f"oifname {dev} {way}" for way in ways))
    elif closed.hook == FORWARD and set(families) & set(near.bridged):
        rules.append(f"iifname {dev} oifname {dev}")
    lines = plain.joined(f"{rule} accept" for rule in rules)
    chain_of = (closed.family, closed.table, closed.chain)
    return NftAccepts(network.bridge, *chain_of, _mark(network), lines) if rules else None


def _wanted(
    network: Network, families: Sequence[str], near: Neighbours
) -> Iterable[tuple[str, int, int]]:
    """Return what guests are to reach of the host: protocol, first and last port."""
    own = (each for family in families for each in services.needed(family, near.dns_port))
    return dict.fromkeys((*own, *services.chosen(network)))


def _mark(network: Network) -> str:
    """Return the comment of rules of ours in others' chains: it names their network's bridge."""
    return f"qemu-netwrap: {network.bridge}"


def _beyond_firewalld(network: Network, near: Neighbours) -> Remark:
    """Return what to tell of a plain bridge, which may be the host's own way to the world."""
    keys = {IP: "iptables", IP6: "ip6tables"}
    off = " ".join(f"net.bridge.bridge-nf-call-{keys[family]}=0" for family in near.bridged)
    return Remark(
        network.bridge,
        f"network {network.name}: firewalld may drop what guests send each other, for br_netfilter"
        f" shows it to firewalls; remedy: sysctl -w {off}",
    )


def _unnameable(network: Network, near: Neighbours) -> Remark:
    """Return what to say of a bridge whose name a manager would read as a pattern."""
    return Remark(
        network.bridge,
        f"network {network.name}: {' and '.join(near.managers)} may take over {network.bridge}:"
        " its name would be a pattern in their files; remedy: give the bridge a name of letters,"
        " digits, - . and _",
    )


def _unspeakable(network: Network) -> Remark:
    """Return what to tell of a bridge whose name firewalls cannot be given."""
    return Remark(
        network.bridge,
        f"network {network.name}: a firewall drops what guests send, and bridge {network.bridge}"
        " has a name that cannot stand in its rules; remedy: use a bridge with a plain name",
    )
