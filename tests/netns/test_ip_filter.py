"""ip_filter: what a hostile guest says under its own MAC, by real taps, bridge and dnsmasq."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final

import pytest

from lab import packets as p
from lab.netns import Host, wait_for
from lab.pumped import guest_of
from lab.standin import StandIn
from lab.tool import netwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EVIL: Final = "52:54:00:00:00:66"
VICTIM: Final = "52:54:00:00:00:77"
ROGUE: Final = "fe80::66"
CONFIG: Final = """\
[networks.nat]
mode = "nat"
subnet = "192.168.0.0/24"
"""
GATEWAY: Final = "192.168.0.1"
FREE: Final = "192.168.0.2"
NOBODY: Final = "0.0.0.0"  # noqa: S104 - the sender of a look for duplicates
MARK: Final = b"mark of a test"
_NEXT: Final = iter(range(1, 1 << 16))


class Segment:
    """Two guests on nat."""

    def __init__(self, host: Host, evil: StandIn, victim: StandIn) -> None:
        self.host, self.evil, self.victim = host, evil, victim

    @property
    def address(self) -> str:
        """What is reserved for the victim."""
        return reserved(self.host, VICTIM)[0]

    @property
    def prefix(self) -> str:
        """The network's IPv6 prefix."""
        return str(network(self.host)["address6"]).partition("/")[0]

    def passes(self, frame: bytes, message: bytes = b"") -> bool:
        """Whether the victim hears a frame, told by another that comes after it.

        Or the MESSAGE in it: br_netfilter puts fragments together.
        """
        self.victim.heard()
        mark = MARK + struct.pack("!H", next(_NEXT))
        self.evil.send(frame, p.ethernet(EVIL, 0x88B5, mark.ljust(46, b"\0")))
        heard: list[bytes] = []

        def is_over() -> bool:
            heard.extend(self.victim.heard())
            return any(mark in each for each in heard)

        wait_for(is_over, "the frame behind")
        return any((message or frame) in each for each in heard)


def network(host: Host) -> dict[str, Any]:
    """What `ps` says of nat."""
    (found,) = json.loads(netwrap(host, "ps", "--json", check=True).stdout)["networks"]
    return dict(found)


def reserved(host: Host, mac: str) -> list[str]:
    """The addresses that dnsmasq keeps for a MAC."""
    line = host.sh(f"cat /run/qemu-netwrap/*/networks/qn-nat/hosts/{mac}").strip()
    return [word.strip("[]") for word in line.split(",")[1:]]


def nic(mac: str) -> tuple[str, str]:
    return "-nic", f"nat,mac={mac}"


@pytest.fixture
def host6(uplinked6: Any) -> Host:  # noqa: ANN401
    """A machine with IPv6."""
    found: Host = uplinked6.host
    found.write("/etc/qemu-netwrap/config.toml", CONFIG)
    return found


@pytest.fixture
def segment(host6: Host) -> Iterator[Segment]:
    with StandIn(host6, *nic(EVIL)) as evil, StandIn(host6, "-name", "web", *nic(VICTIM)) as victim:
        yield Segment(host6, evil, victim)
    netwrap(host6, "wait", check=True)


def test_a_server_among_the_guests(segment: Segment) -> None:
    """DHCP of either kind; in one piece or more, with options, from other ports, behind a tag."""
    offer = p.udp(67, 68, p.bootp(VICTIM, 2, op=2))
    elsewhere = p.udp(1067, 68, p.bootp(VICTIM, 2, op=2))
    for answer in (offer, elsewhere):
        frame = p.ipv4(EVIL, FREE, "255.255.255.255", answer)
        assert not segment.passes(frame)
        assert not segment.passes(p.tagged(frame, 0))
        assert not segment.passes(p.tagged(frame, 0, 0))
        assert not segment.passes(p.tagged(frame, 0, 0, 0))
        assert not segment.passes(p.ipv4(EVIL, FREE, "255.255.255.255", answer, options=bytes(8)))
        assert not segment.passes(
            p.ipv4(EVIL, FREE, "255.255.255.255", answer[:8], fragment=0x2000)
        )
    for ports in ((547, 546), (1547, 546)):
        answer = p.udp(*ports, bytes(40))
        assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, answer, p.UDP))
        options = bytes((p.UDP, 0, 1, 4, 0, 0, 0, 0)) + answer
        assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, options, p.DESTINATION_OPTIONS))


def test_a_router_among_the_guests(segment: Segment) -> None:
    """By advertisement or redirect; behind headers, in fragments, with VLAN tags of no VLAN."""
    advertised = p.router(ROGUE)
    redirect = p.icmp6(ROGUE, p.ALL_NODES, p.REDIRECT, bytes(36))
    for message in (advertised, redirect):
        frame = p.ipv6(EVIL, ROGUE, p.ALL_NODES, message)
        assert not segment.passes(frame)
        for tags in ((0,), (0, 0), (0, 0, 0), (5,), (5, 0)):
            assert not segment.passes(p.tagged(frame, *tags))
        for headers in ((60,), (0,), (60, 60), (0, 43, 60), (60,) * 4, (60,) * 5, (60,) * 9):
            hidden = p.behind(message, *headers)
            assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, hidden, headers[0]), message)
        # An atomic fragment; the first of several, which ends before the message begins.
        for headers in ((44,), (60, 44), (44, 60)):
            hidden = p.behind(message, *headers)
            assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, hidden, headers[0]), message)
        first = bytes((60, 0, 0, 1, 0, 0, 0, 7)) + bytes((58, 0, 1, 4, 0, 0, 0, 0))
        assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, first, p.FRAGMENT))
    # What is not for the link alone passes, behind headers and in fragments too.
    ping = p.icmp6(ROGUE, p.ALL_NODES, 128, bytes(4))
    ways: tuple[tuple[int, ...], ...] = ((), (60,), (44,), (0, 60, 44))
    for way in ways:
        hidden = p.behind(ping, *way) if way else ping
        assert segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, hidden, (*way, p.ICMPV6)[0]), ping)


def test_addresses_of_others(segment: Segment) -> None:
    """ARP and neighbor discovery: of the gateway, and what is reserved for a neighbour."""
    local = p.slaac("fe80::", VICTIM)
    theirs6 = [local, p.slaac(segment.prefix, VICTIM), segment.prefix, gateway_local(segment.host)]
    assert reserved(segment.host, VICTIM)[1] == theirs6[1]
    for address in (GATEWAY, segment.address):
        for kind in (p.ARP_REQUEST, p.ARP_REPLY):
            frame = p.arp(EVIL, address, FREE, kind)
            assert not segment.passes(frame)
            assert not segment.passes(p.tagged(frame, 0))
    for address in theirs6:
        assert not segment.passes(p.advertisement(EVIL, address))
        assert not segment.passes(p.solicitation(EVIL, address, "fe80::1"))
    # Its own, and those that are nobody's.
    for address in (reserved(segment.host, EVIL)[0], FREE):
        assert segment.passes(p.arp(EVIL, address, GATEWAY))
    for prefix in ("fe80::", segment.prefix):
        for address in (p.slaac(prefix, EVIL), p.slaac(prefix, "52:54:00:00:00:99")):
            assert segment.passes(p.advertisement(EVIL, address))
    # A look for duplicates, which would have the one who is just looking too give the address up.
    assert segment.passes(p.arp(EVIL, NOBODY, FREE))
    assert not segment.passes(p.arp(EVIL, NOBODY, segment.address))
    assert segment.passes(p.looking(EVIL, p.slaac("fe80::", EVIL)))
    for address in theirs6[:2]:
        assert not segment.passes(p.looking(EVIL, address))
    # To ask for them is no such look.
    assert segment.passes(p.arp(EVIL, FREE, segment.address))
    assert segment.passes(p.solicitation(EVIL, p.slaac("fe80::", EVIL), local))
    segment.victim.end()
    netwrap(segment.host, "wait", segment.victim.run, check=True)
    assert (
        "pref 2 bpf chain 0 handle"
        in segment.host.run("tc", "filter", "show", "block", block(segment.host)).stdout
    )


def test_who_just_comes_keeps_the_address(host6: Host, tmp_path: Path) -> None:
    """A guest's kernel looks for duplicates, and a hostile neighbour then says that it does too."""
    local = p.slaac("fe80::", VICTIM)
    with Host("guest") as guest, guest_of(host6, guest, tmp_path, "nat", up=False):
        guest.set_sysctl("net.ipv6.conf.eth0.accept_dad", 1)
        with StandIn(host6, *nic(EVIL)) as evil:
            guest.run("ip", "link", "set", "eth0", "up")
            evil.wait_heard(p.ip("::") + p.ip(p.solicited(local)), "the look for duplicates")
            evil.send(*[p.looking(EVIL, local)] * 3)
            shown = ("ip", "-6", "address", "show", "dev", "eth0", "scope", "link")
            wait_for(
                lambda: "tentative" not in (told := guest.run(*shown).stdout) or "dadf" in told,
                "the end of the look",
            )
            assert local in guest.run(*shown, "-dadfailed").stdout


def test_multicast_reaches_whoever_it_is_for(segment: Segment) -> None:
    """A guest that asks who wants multicast does not take neighbor discovery from the others."""
    local = p.slaac("fe80::", VICTIM)
    group = p.solicited(local)
    question = p.icmp6(ROGUE, group, p.NEIGHBOR_SOLICITATION, bytes(4) + p.ip(local))
    segment.evil.send(p.query(EVIL, ROGUE))
    # A bridge that listens acts on it a millisecond later, when answers are there.
    for _ in range(50):
        assert segment.passes(p.ipv6(EVIL, ROGUE, group, question))


def gateway_local(host: Host) -> str:
    """The link-local address of the network's bridge."""
    (told,) = json.loads(host.run("ip", "-j", "link", "show", "qn-nat").stdout)
    return p.slaac("fe80::", told["address"])


def block(host: Host) -> str:
    """The number of the network's filter block."""
    words = host.run("tc", "qdisc", "show", "dev", "qn-nat").stdout.split()
    return words[words.index("ingress_block") + 1]


def leases(host: Host) -> set[str]:
    """The MACs that dnsmasq has given an address."""
    return {lease["mac"] for lease in network(host)["leases"]}


def test_a_lease_under_anothers_mac(segment: Segment) -> None:
    """Nor many: a flood of clients takes none, and a guest that asks as itself gets its own."""
    evil = segment.evil
    for number in range(300):
        client = f"52:54:00:00:01:{number & 255:02x}" if number > 1 else (VICTIM, EVIL)[number]
        evil.send(p.discover(EVIL, client, hlen=7 if client == EVIL else 6))
        evil.send(p.request(EVIL, client, f"192.168.0.{2 + number % 250}"))
        if number == 0:
            whole = p.request(EVIL, VICTIM, segment.address)[14:]
            evil.send(p.ipv4(EVIL, FREE, GATEWAY, whole[20:], fragment=0x2000))
    assert f"{evil.tap}" in "\n".join(network(segment.host)["faults"])
    evil.send(p.request(EVIL, EVIL, reserved(segment.host, EVIL)[0]))
    wait_for(lambda: EVIL in leases(segment.host), "the lease")
    assert leases(segment.host) == {EVIL}
    told = next(each for each in network(segment.host)["leases"])
    assert told["address"] == reserved(segment.host, EVIL)[0]


def test_many_leases_by_dhcpv6(segment: Segment) -> None:
    """A guest gets one address, by however many client identifiers it asks."""
    host, evil = segment.host, segment.evil
    local = p.slaac("fe80::", EVIL)
    (told,) = json.loads(host.run("ip", "-j", "link", "show", "qn-nat").stdout)
    server = b"\0\3\0\1" + p.raw(told["address"])
    evil.send(p.solicitation(EVIL, local, gateway_local(host)))
    for number in range(40):
        evil.send(p.request6(EVIL, local, number, server))
    # The answer to the last request, which comes after those to the others.
    evil.wait_heard(b"\x07" + (39).to_bytes(3, "big"), "the answers")

    def leased() -> list[str]:
        file = host.sh("cat /run/qemu-netwrap/*/networks/qn-nat/leases")
        return [line.split()[2] for line in file.partition("duid")[2].splitlines()[1:]]

    # It writes the file after it has answered.
    wait_for(lambda: leased() == [p.slaac(segment.prefix, EVIL)], "one lease")


def test_the_host_is_not_deceived(segment: Segment) -> None:
    """Its neighbours are who they are; a guest with an address of its own choice is reached."""
    host, evil = segment.host, segment.evil
    evil.send(p.arp(EVIL, segment.address, GATEWAY), p.arp(EVIL, GATEWAY, GATEWAY))
    evil.send(p.arp(EVIL, FREE, GATEWAY))
    neighbors = ("ip", "neigh", "show", "dev", "qn-nat")
    wait_for(lambda: f"{FREE} lladdr {EVIL}" in host.run(*neighbors).stdout, "the neighbour")
    assert f"{segment.address} lladdr {EVIL}" not in host.run(*neighbors).stdout
    evil.wait_heard(p.raw(EVIL) + bytes(0) + p.ip(FREE), "the host's answer")
    # Such an address is not given to somebody else.
    for number in range(3):
        mac = f"52:54:00:00:02:0{number}"
        with StandIn(host, *nic(mac)) as other:
            assert reserved(host, mac)[0] != FREE
        netwrap(host, "wait", other.run, check=True)


def test_the_key_switches_it_off(host6: Host) -> None:
    host6.write("/etc/qemu-netwrap/config.toml", f"{CONFIG}ip_filter = false\n")
    with StandIn(host6, *nic(EVIL)) as evil, StandIn(host6, *nic(VICTIM)) as victim:
        segment = Segment(host6, evil, victim)
        assert segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, p.router(ROGUE)))
        assert segment.passes(p.arp(EVIL, GATEWAY, FREE))
    netwrap(host6, "wait", check=True)


def test_where_it_bites_the_key_is_named(segment: Segment) -> None:
    assert network(segment.host)["faults"] == []
    segment.evil.send(p.ipv6(EVIL, ROGUE, p.ALL_NODES, p.router(ROGUE)))
    (fault,) = network(segment.host)["faults"]
    assert fault.startswith(f"{segment.evil.tap}: 1 ")
    assert "ip_filter = false" in fault


@pytest.mark.parametrize(
    "taken", ["tc qdisc del dev qn-nat clsact", "tc filter del block {block} pref 1"]
)
def test_who_joins_puts_it_back(segment: Segment, taken: str) -> None:
    segment.host.sh(taken.format(block=block(segment.host)))
    with StandIn(segment.host, *nic("52:54:00:00:00:99")):
        assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, p.router(ROGUE)))
    segment.host.sh("ip link del qn-nat")
    with StandIn(segment.host, *nic("52:54:00:00:00:98")):
        assert not segment.passes(p.ipv6(EVIL, ROGUE, p.ALL_NODES, p.router(ROGUE)))
        assert not segment.passes(p.arp(EVIL, segment.address, FREE))


def test_on_a_bridge_of_the_users(host: Host) -> None:
    """There it has to be asked for, and knows no gateway."""
    config: Callable[[str], str] = '[networks.lan]\nmode = "bridge"\nbridge = "br7"\n{}\n'.format
    words = ("-nic", f"tap,network=lan,mac={EVIL}")
    rogue = p.ipv6(EVIL, ROGUE, p.ALL_NODES, p.router(ROGUE))
    for key, passes in (("", True), ("ip_filter = true", False)):
        host.write("/etc/qemu-netwrap/config.toml", config(key))
        with StandIn(host, *words) as evil, StandIn(host, "-nic", "tap,network=lan") as victim:
            segment = Segment(host, evil, victim)
            assert segment.passes(rogue) == passes
            assert segment.passes(p.arp(EVIL, GATEWAY, FREE))
        netwrap(host, "wait", check=True)
