"""hostfwd= on a nat network: what is refused, and the nftables chains of one NIC's forwards.

No process serves the port: a packet for it gets another destination before it is routed, also one
that the host itself sends. Decision 0018 (docs/decisions) describes loopback addresses.
"""

from __future__ import annotations

from qemu_netwrap.errors import HostError, UsageError
from qemu_netwrap.model import names, plain_text, reservations
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.ipv6 import Prefix
from qemu_netwrap.model.network import MODES
from qemu_netwrap.networks.host_services import DHCP6_PORT, DHCP_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.model.network import Network
    from qemu_netwrap.model.run import PortForward, TapRequest
    from qemu_netwrap.qemu.netdev_options import NetOption

    Chain = tuple[str, str, list[str]]

_MULTICAST = 224  # 224.0.0.0/4, and the reserved and broadcast addresses above
_LOOPBACK = {"ip": "127.0.0.1", "ip6": "::1"}
_LOOPBACKS = {"ip": "127.0.0.0/8", "ip6": "::1"}


def wanted(net: NetOption, network: Network, *, has_nic: bool) -> tuple[PortForward, ...]:
    """Return the port forwards of a netdev on NETWORK. Raises `UsageError` for invalid ones."""
    where = net.option.typed
    if not network.traits.allows_hostfwd:
        modes = " and ".join(name for name, mode in MODES.items() if mode.allows_hostfwd)
        raise UsageError(
            f"{where}: hostfwd= is for {modes}, and {network.name} is a {network.mode} network",
            "leave it out: guests are reached by their own addresses there",
        )
    for forward in net.forwards:
        if forward.is_ipv6 and not network.ipv6:
            raise UsageError(
                f"{where}: {forward}: network {network.name} has no IPv6",
                "leave out ipv6 = false in the configuration, or use the IPv4 address",
            )
        if _is_nobodys(forward):
            raise UsageError(
                f"{where}: {forward}: {forward.host} is no address of one host",
                "name an address of this host (ip address), or none",
            )
        if _is_dhcps(forward):
            raise UsageError(
                f"{where}: {forward}: the network's own DHCP server needs udp port {forward.port}"
                " of the host",
                "choose another port for hostfwd=",
            )
        if not (forward.guest or has_nic):
            raise UsageError(
                f"{where}: {forward}: there is no NIC of the guest's to lead to",
                "name the guest's address, or give the guest a NIC on this netdev",
            )
        segment = network.subnet6 if forward.is_ipv6 else network.subnet
        wrong = _unfit(forward, segment) if segment is not None else ""
        if wrong:
            raise UsageError(f"{where}: {wrong}", _REMEDY)
    return net.forwards


def _is_nobodys(forward: PortForward) -> bool:
    """Whether the host address is no unicast address: multicast, reserved or broadcast."""
    if forward.is_ipv6:
        return forward.host.lower().startswith("ff")
    return bool(forward.host) and int(forward.host.partition(".")[0]) >= _MULTICAST


def _is_dhcps(forward: PortForward) -> bool:
    """Whether a port is one that a nat network's DHCP server binds on every address."""
    return forward.protocol == "udp" and forward.port == (
        DHCP6_PORT if forward.is_ipv6 else DHCP_PORT
    )


def refuse_twins(nics: Iterable[TapRequest]) -> None:
    """Raise `UsageError` if two port forwards use the same port of the host."""
    seen: dict[tuple[str, int], list[PortForward]] = {}
    for nic in nics:
        for forward in nic.forwards:
            others = seen.setdefault((forward.protocol, forward.port), [])
            if any(forward.meets(other) for other in others):
                raise UsageError(
                    f"{nic.label}: {forward.protocol} port {forward.port} is there twice",
                    "give each hostfwd= a port of its own",
                )
            others.append(forward)


def resolved(
    nic: TapRequest, own: tuple[str, str], gateways: Iterable[str]
) -> tuple[PortForward, ...]:
    """Return a NIC's port forwards with each guest address filled in, by default from OWN.

    OWN is (IPv4, IPv6). GATEWAYS are the network's, with their prefix lengths, one per family in
    use. Raises `HostError` for a guest outside the network, or a family that it does not have.
    """
    segments = {":" in gateway: facts(gateway) for gateway in gateways}
    found = []
    for forward in nic.forwards:
        if forward.is_ipv6 not in segments:
            raise HostError(
                f"{nic.label}: {forward}: its network has no IPv6 here",
                "qemu-netwrap plan says why; use the IPv4 address",
            )
        led = forward.replace(guest=forward.guest or own[forward.is_ipv6])
        wrong = _unfit(led, segments[forward.is_ipv6])
        if wrong:
            raise HostError(f"{nic.label}: {wrong}", _REMEDY)
        found.append(led)
    return tuple(found)


def address6_for(nic: TapRequest, mac: str, gateway: str) -> str:
    """Return the IPv6 address that a NIC's port forwards lead to; empty when none do.

    It is the one that a hostfwd= names, or the one that SLAAC derives from MAC; DHCPv6 must lease
    the same. GATEWAY is the network's, with its prefix length; empty without IPv6.
    """
    six = [forward for forward in nic.forwards if forward.is_ipv6]
    if not (six and gateway):
        return ""
    prefix = Prefix.parse_around(gateway)
    return next((each.guest for each in six if each.guest), "") or prefix.of_mac(mac)


def facts(gateway: str) -> Subnet | Prefix:
    """Return the subnet or prefix of GATEWAY, an address with its prefix length."""
    return Prefix.parse_around(gateway) if ":" in gateway else Subnet.around(gateway)


_REMEDY = "leave the guest's address out, as in hostfwd=tcp::2222-:22: it is the NIC's own"


def _unfit(forward: PortForward, segment: Subnet | Prefix) -> str:
    """Return why no guest of SEGMENT can have the forward's guest address; "" if one can."""
    if not forward.guest:
        return ""
    if isinstance(segment, Prefix):
        wrong = segment.guest_fault(forward.guest)
    else:
        wrong = reservations.guest_fault(forward.guest, segment)
    return f"{forward}: {wrong}" if wrong else ""


def rules(tap: str, bridge: str, gateways: Iterable[str], forwards: Iterable[PortForward]) -> str:
    """Return the chains, as nft(8) reads them, for port forwards to guests on BRIDGE.

    GATEWAYS are the bridge's addresses with their prefix lengths, one per family in use.
    """
    segments = dict(map(_segment, gateways))
    outside, host, hairpin, leaving, coming = [], [], [], [], []
    for forward in forwards:
        family = "ip6" if forward.is_ipv6 else "ip"
        own, subnet = segments[family]
        port = f"{forward.protocol} dport {forward.port}"
        to = f"[{forward.guest}]" if forward.is_ipv6 else forward.guest
        lead = f"{_destination(forward, family)} {port} dnat {family} to {to}:{forward.guest_port}"
        host.append(lead)
        if not forward.is_for_loopback:
            outside.append(lead)
            # A client on the same bridge only knows answers from the host's address.
            hairpin.append(
                f'oifname "{bridge}" {family} saddr {subnet} {family} daddr {forward.guest}'
                " ct status dnat masquerade"
            )
        if forward.is_for_loopback or not forward.host:
            local, loop = _LOOPBACK[family], forward.host or _LOOPBACKS[family]
            leaving.append(
                f"{family} saddr {local} {family} daddr {loop} {port} {family} saddr set {own}"
            )
            coming.append(
                f'iifname "{bridge}" {family} saddr {loop} {family} daddr {own}'
                f" {forward.protocol} sport {forward.port} {family} daddr set {local}"
            )
    chains: tuple[Chain, ...] = (
        ("prerouting", "type nat hook prerouting priority dstnat", outside),
        ("output", "type nat hook output priority -100", host),
        ("postrouting", "type nat hook postrouting priority srcnat", list(dict.fromkeys(hairpin))),
        # Before conntrack sees the packet, and after it has restored the answer's source.
        ("leaving", "type filter hook output priority raw", leaving),
        ("coming", "type filter hook input priority 110", coming),
    )
    owner = _owner(tap)
    return "".join(_chain(owner, *chain) for chain in chains if chain[2])


def _segment(gateway: str) -> tuple[str, tuple[str, str]]:
    """Return a gateway's (family, (address, subnet))."""
    return "ip6" if ":" in gateway else "ip", (gateway.partition("/")[0], str(facts(gateway)))


def _destination(forward: PortForward, family: str) -> str:
    """Return the match for packets to the forward's host address, or to any of the host's."""
    if forward.host:
        return f"{family} daddr {forward.host}"
    return f"meta nfproto {'ipv6' if forward.is_ipv6 else 'ipv4'} fib daddr type local"


def _owner(tap: str) -> str:
    """Return the prefix of a tap's chain names: its name, hex-encoded if nft cannot take it.

    A tap and a bridge never have the same name, so chains of a network and a NIC do not collide.
    """
    plain = names.plain_ifname(tap)
    return tap if plain else f"tap/{tap.encode('utf-8', 'surrogateescape').hex()}"


def _chain(owner: str, name: str, kind: str, lines: list[str]) -> str:
    """Return one chain."""
    inside = plain_text.joined(f'  {line} comment "qemu-netwrap: {owner}"' for line in lines)
    return f"chain {owner}_{name} {{\n  {kind}; policy accept;\n{inside}}}\n"
