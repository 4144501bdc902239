"""What a network needs beside others on the host, decided from facts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_netwrap.errors import HostError
from qemu_netwrap.model.coexistence import (
    FORWARD,
    INPUT,
    IP,
    IP6,
    ClosedChain,
    CoexistenceFacts,
    IptablesFilter,
)
from qemu_netwrap.model.host import NetworkFacts
from qemu_netwrap.model.network import BRIDGE, HOST_ONLY, NAT, Network
from qemu_netwrap.networks import coexistence
from qemu_netwrap.networks.base import network_resources
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.firewall_accepts import FirewalldZone, IptablesAccepts, NftAccepts
from qemu_netwrap.resources.nftables import NetworkChains
from qemu_netwrap.resources.remark import Remark
from qemu_netwrap.resources.unmanaged import UnmanagedDevices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.resources.base import Resource

DOCKER = IptablesFilter("iptables-nft", "DOCKER-USER")
UFW_6 = IptablesFilter("ip6tables-legacy", "FORWARD", input=True)


def needed(
    mode: str, near: CoexistenceFacts, *, there: bool = False, bridge: str = "b"
) -> list[Resource]:
    """Return what a network needs more than without neighbours."""
    network = Network("n", mode, bridge)
    alone = network_resources(network, NetworkFacts(bridge_exists=there))
    beside_others = network_resources(network, NetworkFacts(bridge_exists=there, others=near))
    return [each for each in beside_others if each not in alone]


def rules(found: Iterable[Resource]) -> list[str]:
    """Return rules for others' chains, without their comment and verdict."""
    told = [each for each in found if isinstance(each, (IptablesAccepts, NftAccepts))]
    lines = [line for each in told for line in each.rules.splitlines()]
    return [line.partition(" -m comment")[0].removesuffix(" accept") for line in lines]


def test_nobody() -> None:
    assert needed(NAT, CoexistenceFacts()) == []


def test_forwarded_packets_are_nats_and_answers_come_back() -> None:
    accepts = [
        "-I DOCKER-USER -i b",
        "-I DOCKER-USER -o b -m conntrack --ctstate RELATED,ESTABLISHED,DNAT",
    ]
    assert rules(needed(NAT, CoexistenceFacts(filters=(DOCKER,)))) == accepts
    assert needed(HOST_ONLY, CoexistenceFacts(filters=(DOCKER,))) == []
    assert needed(BRIDGE, CoexistenceFacts(filters=(DOCKER,))) == []


@pytest.mark.parametrize("mode", [HOST_ONLY, BRIDGE])
@pytest.mark.parametrize(("family", "bridged"), [(IP, (IP,)), (IP6, (IP6,)), (IP6, (IP,))])
def test_bridged_frames_by_family(mode: str, family: str, bridged: tuple[str, ...]) -> None:
    program = "iptables-nft" if family == IP else "ip6tables-nft"
    near = CoexistenceFacts(
        filters=(IptablesFilter(program, "FORWARD"),),
        chains=(ClosedChain(family, "theirs", "fwd", FORWARD),),
        bridged=bridged,
    )
    expected = ["-I FORWARD -i b -o b", 'iifname "b" oifname "b"'] if family in bridged else []
    assert rules(needed(mode, near)) == expected


def test_what_guests_need_of_the_host_by_family() -> None:
    near = CoexistenceFacts(
        filters=(UFW_6,), chains=(ClosedChain("inet", "t", "c", INPUT),), dns_port=288
    )
    told = rules(needed(HOST_ONLY, near))
    assert told == [
        "-I INPUT -i b -p ipv6-icmp",
        "-I INPUT -i b -p udp --dport 547",
        "-I INPUT -i b -p udp --dport 288",
        "-I INPUT -i b -p tcp --dport 288",
        'iifname "b" meta l4proto icmp',
        'iifname "b" udp dport 67',
        'iifname "b" udp dport 288',
        'iifname "b" tcp dport 288',
        'iifname "b" meta l4proto ipv6-icmp',
        'iifname "b" udp dport 547',
    ]


def test_managers_are_told_first_and_of_our_bridges_alone() -> None:
    near = CoexistenceFacts(managers=("NetworkManager",))
    unmanaged = UnmanagedDevices("b", "NetworkManager")
    assert network_resources(Network("n", BRIDGE, "b"), NetworkFacts(others=near))[0] == unmanaged
    assert needed(BRIDGE, near, there=True) == []


def test_firewalld_is_not_given_a_bridge_that_may_be_the_hosts_own_way() -> None:
    near = CoexistenceFacts(firewalld=True, bridged=(IP, IP6))
    zone, closed = needed(NAT, near)[1], needed(NAT, near)[0]
    assert zone == FirewalldZone("b", "trusted")
    assert isinstance(closed, NetworkChains)
    assert "chain b_services {" in closed.rules
    (remark,) = needed(BRIDGE, near)
    assert isinstance(remark, Remark)
    assert remark.text.endswith(
        "sysctl -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
    )
    assert needed(BRIDGE, CoexistenceFacts(firewalld=True)) == []


def test_a_bridge_whose_name_no_rule_can_have_is_told() -> None:
    (remark,) = needed(NAT, CoexistenceFacts(filters=(DOCKER,)), bridge="q+n")
    assert isinstance(remark, Remark)
    assert "remedy: " in remark.text


def test_dns_moves_and_guests_are_still_told_of_it() -> None:
    server, redirect = needed(NAT, CoexistenceFacts(dns_port=288))
    assert isinstance(server, DnsmasqServer)
    assert "\nport=288\ndhcp-option=option:dns-server,0.0.0.0\n" in server.config
    assert "option6" not in server.config
    assert isinstance(redirect, NetworkChains)
    assert redirect.rules.count("dport 53 redirect to :288") == 2


def test_dhcp_cannot_move() -> None:
    with pytest.raises(HostError, match="port 67 on every interface"):
        needed(HOST_ONLY, CoexistenceFacts(taken=(67,)))
    assert needed(BRIDGE, CoexistenceFacts(taken=(67, 547))) == []


def test_dhcp_of_ipv6_matters_where_it_is_served() -> None:
    network, made = Network("n", NAT, "b"), (DnsmasqServer("b", "dhcp-range=::,constructor:b\n"),)
    assert needed(NAT, CoexistenceFacts(taken=(547,))) == []
    with pytest.raises(HostError, match="port 547 on every interface"):
        coexistence.completed(network, NetworkFacts(), CoexistenceFacts(taken=(547,)), made)
    server, _ = coexistence.completed(network, NetworkFacts(), CoexistenceFacts(dns_port=288), made)
    assert isinstance(server, DnsmasqServer)
    assert server.config.endswith("dhcp-option=option6:dns-server,[::]\n")
