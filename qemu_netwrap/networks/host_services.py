"""Which services of the host a network's guests may use: a chain at the input hook.

Guests always reach what the network itself needs: DHCP, DNS and ICMP with neighbour discovery, and
they may answer connections that the host opened. Other services are open to them if the host has no
firewall, and closed if it has any: firewalld's zone `trusted`, which accepts their packets, would
otherwise open what even the host's LAN cannot reach. The key `host_services` overrides both
defaults. Port forwards (`hostfwd`) do not pass this chain, since they are forwarded.
"""

from __future__ import annotations

from qemu_netwrap.model import host_services
from qemu_netwrap.model.coexistence import IP, IP6
from qemu_netwrap.resources.nftables import chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.network import Network

DNS_PORT, DHCP_PORT, TFTP_PORT, DHCP6_PORT = 53, 67, 69, 547
CHAIN = "services"
_WHY = "# the host's other services are closed to guests; host_services in the configuration opens"
_ALL = (host_services.ALL,)


def rules(network: Network, facts: NetworkFacts) -> str:
    """Return the chain that closes all but some services of the host; "" if all are open."""
    others = facts.others
    dns_port = others.dns_port if others is not None else DNS_PORT
    wanted = network.host_services
    if is_open(network) or (wanted is None and not (others is not None and others.close_services)):
        return ""
    dev = f'iifname "{network.bridge}"'
    own = dict.fromkeys((*needed(IP, dns_port), *needed(IP6, dns_port)))
    return chain(
        network,
        CHAIN,
        "type filter hook input priority filter; policy accept;",
        f"{dev} ct state established,related accept",
        *(f"{dev} {nft_match(*each)} accept" for each in (*own, *chosen(network))),
        f"{dev} reject with icmpx admin-prohibited",
    ).replace("\n", f"\n  {_WHY}\n", 1)


def needed(family: str, dns_port: int) -> tuple[tuple[str, int, int], ...]:
    """Return what guests need of the host: (protocol, first port, last port), 0 for all ports.

    That is DHCP, DNS and ICMP, by which they find the gateway and receive errors.
    """
    own = (("icmp", 0, 0), ("udp", DHCP_PORT, DHCP_PORT))
    if family == IP6:
        own = (("ipv6-icmp", 0, 0), ("udp", DHCP6_PORT, DHCP6_PORT))
    return (*own, ("udp", dns_port, dns_port), ("tcp", dns_port, dns_port))


def chosen(network: Network) -> list[tuple[str, int, int]]:
    """Return the services that the configuration opens; none if it opens all (`is_open`)."""
    if is_open(network):
        return []
    tftp = [("udp", TFTP_PORT, TFTP_PORT)] if network.tftp else []
    return [*tftp, *host_services.ports(network.host_services or ())]


def is_open(network: Network) -> bool:
    """Whether the configuration opens all of the host's services."""
    return network.host_services == _ALL


def nft_match(protocol: str, first: int, last: int) -> str:
    """Return the nft(8) match for a service; FIRST is 0 for all ports."""
    if not first:
        return f"meta l4proto {protocol}"
    return f"{protocol} dport {first if first == last else f'{first}-{last}'}"


def iptables_match(protocol: str, first: int, last: int) -> str:
    """Return the iptables(8) match for a service; FIRST is 0 for all ports."""
    if not first:
        return f"-p {protocol}"
    return f"-p {protocol} --dport {first if first == last else f'{first}:{last}'}"
