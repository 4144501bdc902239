"""Every kind of resource is explained."""

from __future__ import annotations

import pytest

from qemu_netwrap.linux import ingress_filter
from qemu_netwrap.resources import explain
from qemu_netwrap.resources.base import KINDS, Resource
from qemu_netwrap.resources.dhcp_hosts import AnyClient, DhcpHost
from qemu_netwrap.resources.dnsmasq import DnsmasqServer
from qemu_netwrap.resources.firewall_accepts import FirewalldZone, IptablesAccepts, NftAccepts
from qemu_netwrap.resources.forward_guards import RouterGuard
from qemu_netwrap.resources.links import Address, AttachedTap, Bridge, Tap
from qemu_netwrap.resources.lookout import Lookout
from qemu_netwrap.resources.nftables import NetworkChains, PortForwardChains
from qemu_netwrap.resources.port_filters import IpFilter, MacFilter
from qemu_netwrap.resources.port_relay import PortRelay
from qemu_netwrap.resources.remark import Remark
from qemu_netwrap.resources.sysctls import Forwarding, Switch, Sysctl
from qemu_netwrap.resources.unmanaged import UnmanagedDevices
from qemu_netwrap.resources.uplink import BridgeUplink
from qemu_netwrap.resources.vfio import IommuGroupOwner, SriovFunctions, VfioBinding, VfSettings
from qemu_netwrap.runtime.membership import Membership

PCI = "/sys/bus/pci"
SAMPLES: list[tuple[Resource, list[str], list[str]]] = [
    (
        Bridge("b", "52:54:00:00:00:01"),
        [
            "ip link add b address 52:54:00:00:00:01 type bridge stp_state 0 forward_delay 0",
            "ip link set b up",
        ],
        ["ip link del b"],
    ),
    (
        Bridge("b", "52:54:00:00:00:01", stp=True, forward_delay=-1, hello_time=2, mtu=1400),
        [
            "ip link add b address 52:54:00:00:00:01 type bridge stp_state 1 hello_time 200",
            "ip link set b up",
            "ip link set b mtu 1400",
        ],
        ["ip link del b"],
    ),
    (
        BridgeUplink("eth0", "b", addresses="192.0.2.2/24 2001:db8::2/64", routes=3),
        [
            "ip addr add 192.0.2.2/24 dev b",
            "ip addr add 2001:db8::2/64 dev b",
            "ip link set eth0 master b up",
            "ip route replace ROUTE dev b  # each of 3, in every table",
            "ip addr del 192.0.2.2/24 dev eth0",
            "ip addr del 2001:db8::2/64 dev eth0",
            "# its nexthops, neighbours, rules and net/*/conf settings too",
        ],
        [
            "ip addr add 192.0.2.2/24 dev eth0",
            "ip addr add 2001:db8::2/64 dev eth0",
            "ip route replace ROUTE dev eth0  # each of 3, in every table",
            "ip link set eth0 nomaster",
            "ip addr del 192.0.2.2/24 dev b",
            "ip addr del 2001:db8::2/64 dev b",
        ],
    ),
    (
        BridgeUplink("eth0", "b", stp=True, forward_delay=15, hello_time=2),
        [
            "ip link set eth0 master b up",
            "ip link set b type bridge stp_state 1 forward_delay 1500 hello_time 200",
            "# its nexthops, neighbours, rules and net/*/conf settings too",
        ],
        ["ip link set eth0 nomaster"],
    ),
    (
        Bridge(
            "b", "52:54:00:00:00:01", group=7, guarded=True, filtered=True, link_local="fe80::1/64"
        ),
        [
            (
                "ip link add b address 52:54:00:00:00:01 group 7"
                " type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
            "ip link set b addrgenmode none",
            "sysctl -w net/ipv4/conf/b/rp_filter=1",
            "sysctl -w net/ipv4/conf/b/accept_redirects=0",
            "sysctl -w net/ipv4/conf/b/accept_source_route=0",
            "sysctl -w net/ipv4/conf/b/route_localnet=0",
            *ingress_filter.commands("b"),
            "ip link set b up",
            "ip addr add fe80::1/64 dev b nodad",
        ],
        ["ip link del b"],
    ),
    (
        Address("b", "fd00::1/64"),
        ["ip addr add fd00::1/64 dev b nodad"],
        ["ip addr del fd00::1/64 dev b"],
    ),
    (
        Switch("eth0", "accept_ra", "1", "2", "b"),
        ["sysctl -w net/ipv6/conf/eth0/accept_ra=2  # only if it is 1"],
        [
            (
                "sysctl -w net/ipv6/conf/eth0/accept_ra=1"
                "  # only if it was, and when no other network needs it"
            )
        ],
    ),
    (
        Address("b", "10.0.0.1/24"),
        ["ip addr add 10.0.0.1/24 dev b brd +"],
        ["ip addr del 10.0.0.1/24 dev b"],
    ),
    (
        Sysctl("b", "ipv6", "accept_ra", "0"),
        ["sysctl -w net/ipv6/conf/b/accept_ra=0"],
        [],
    ),
    (
        Forwarding("eth0", "b"),
        ["sysctl -w net/ipv4/conf/eth0/forwarding=1"],
        ["sysctl -w net/ipv4/conf/eth0/forwarding=0  # only if"],
    ),
    (
        Lookout("b"),
        ["# b follows the host's way out: a process sleeps until that changes"],
        ["# that process ends"],
    ),
    (
        RouterGuard("b", "ipv4 iif eth0\nipv6 all"),
        [
            "ip -4 rule add pref 32765 nop protocol kernel",
            "ip -4 rule add pref 32763 iif lo goto 32765 protocol kernel",
            "ip -4 rule add pref 32763 iif eth0 fwmark 0 blackhole protocol kernel",
            "ip -6 rule add pref 32765 nop protocol kernel",
            "ip -6 rule add pref 32763 iif lo goto 32765 protocol kernel",
            "ip -6 rule add pref 32764 fwmark 0 blackhole protocol kernel",
        ],
        [
            "ip -6 rule del pref 32764 fwmark 0 blackhole protocol kernel",
            "ip -6 rule del pref 32763 iif lo goto 32765 protocol kernel",
            "ip -6 rule del pref 32765 nop protocol kernel",
            "ip -4 rule del pref 32763 iif eth0 fwmark 0 blackhole protocol kernel",
            "ip -4 rule del pref 32763 iif lo goto 32765 protocol kernel",
            "ip -4 rule del pref 32765 nop protocol kernel",
        ],
    ),
    (
        NetworkChains("b", "chain b_forward {\n  x\n}\nchain b_post {\n  y\n}\n"),
        [
            (
                "nft -f - <<'EOF'\ntable inet qemu_netwrap {\nchain b_forward {\n  x\n}\n"
                "chain b_post {\n  y\n}\n}\nEOF"
            ),
        ],
        [
            "nft delete chain inet qemu_netwrap b_forward",
            "nft delete chain inet qemu_netwrap b_post",
            "nft delete table inet qemu_netwrap",
        ],
    ),
    (
        DnsmasqServer("b", "interface=b\n"),
        ["dnsmasq --conf-file=- <<'EOF'\ninterface=b\nEOF"],
        ["kill "],
    ),
    (
        IptablesAccepts("b", "iptables-nft", "m", "-I FORWARD -i b -j ACCEPT\n"),
        ["iptables-nft -I FORWARD -i b -j ACCEPT"],
        ["iptables-nft -D FORWARD -i b -j ACCEPT"],
    ),
    (
        NftAccepts("b", "inet", "t", "fwd", "m", 'iifname "b" accept\n'),
        ['nft \'insert rule inet t fwd iifname "b" accept comment "m"\''],
        ["nft 'delete rule inet t fwd handle HANDLE'"],
    ),
    (
        FirewalldZone("b", "trusted"),
        ["firewall-cmd --zone=trusted --add-interface=b"],
        ["firewall-cmd --zone=trusted --remove-interface=b"],
    ),
    (
        UnmanagedDevices("b", "NetworkManager"),
        [
            (
                "cat >/run/NetworkManager/conf.d/qemu-netwrap-b.conf <<'EOF'\n"
                "[device-qemu-netwrap-b]\nmatch-device=interface-name:b;interface-name:qn*-*\n"
                "managed=0\nEOF"
            ),
            (
                "busctl call org.freedesktop.NetworkManager /org/freedesktop/NetworkManager"
                " org.freedesktop.NetworkManager Reload u 1"
            ),
        ],
        ["rm /run/NetworkManager/conf.d/qemu-netwrap-b.conf", "busctl call org"],
    ),
    (Remark("b", "Do this."), ["# Do this."], []),
    (
        PortForwardChains("t", "chain t_output {\n}\nchain t_coming {\n}\n"),
        [
            "nft -f - <<'EOF'\n"  # noqa: ISC004 - one command
            "table inet qemu_netwrap {\nchain t_output {\n}\nchain t_coming {\n}\n}\nEOF"
        ],
        [
            "nft delete chain inet qemu_netwrap t_output",
            "nft delete chain inet qemu_netwrap t_coming",
            "nft delete table inet qemu_netwrap ",
        ],
    ),
    (
        MacFilter("t", "52:54:00:00:00:01 52:54:00:00:00:02"),
        [
            "bridge fdb replace 52:54:00:00:00:01 dev t master static sticky",
            "bridge fdb replace 52:54:00:00:00:02 dev t master static sticky",
            "bridge link set dev t learning off locked on",
        ],
        [],
    ),
    (
        IpFilter("b", "b", "10.0.0.1/24"),
        [
            "tc qdisc add dev b ingress_block 954169341 clsact",
            (
                "tc filter replace block 954169341 protocol all pref 1 handle 1 bpf da"
                " bytecode-file PROGRAM  # no DHCP server, router or gateway"
                "'s address among the guests"
            ),
        ],
        [],
    ),
    (
        IpFilter("t", "b", foreign=True),
        ["tc qdisc add dev t ingress_block 954169341 clsact"],
        ["tc qdisc del dev t clsact"],
    ),
    (
        DhcpHost("b", "7", "52:54:00:00:00:02", "", "10.0.0.9", guarded=True),
        [
            "# dnsmasq of b: 52:54:00:00:00:02 is at 10.0.0.9",
            (
                "tc filter replace block 954169341 protocol all pref 2 handle 0xd3190078 bpf da"
                " bytecode-file PROGRAM  # ARP and ND for 10.0.0.9 from 52:54:00:00:00:02 alone"
            ),
        ],
        [
            "tc filter del block 954169341 protocol all pref 2 handle 0xd3190078 bpf",
            "# 52:54:00:00:00:02 is forgotten",
        ],
    ),
    (
        PortRelay("t", "tcp::2222-10.0.0.9:22 tcp::80-10.0.0.9:80"),
        ["# a relay leads tcp::2222-10.0.0.9:22, tcp::80-10.0.0.9:80"],
        ["# the relay ends"],
    ),
    (Membership("b", "7"), ["# run 7 joins b"], ["# run 7 leaves b"]),
    (
        DhcpHost("b", "7", "52:54:00:00:00:02", "web"),
        ["# dnsmasq of b: 52:54:00:00:00:02 is web"],
        ["# 52:54:00:00:00:02 is forgotten"],
    ),
    (
        DhcpHost("b", "7", "52:54:00:00:00:02", "web", "10.0.0.9", "fd00::9"),
        ["# dnsmasq of b: 52:54:00:00:00:02 is web at 10.0.0.9 and fd00::9"],
        ["# 52:54:00:00:00:02 is forgotten"],
    ),
    (
        DhcpHost("b", "7", "52:54:00:00:00:02", ""),
        ["# 52:54:00:00:00:02 on b"],
        ["# 52:54:00:00:00:02 is forgotten"],
    ),
    (
        AnyClient("b", "t"),
        ["# dnsmasq of b serves every MAC, for those on t are not known"],
        [],
    ),
    (
        Tap("t", "b"),
        [
            "ip tuntap add t mode tap vnet_hdr",
            "ip link set t addrgenmode none",
            "ip link set t master b up",
        ],
        ["# t goes"],
    ),
    (
        Tap("t", "b", isolated=True),
        [
            "ip tuntap add t mode tap vnet_hdr",
            "ip link set t addrgenmode none",
            "ip link set t master b up",
            "ip link set t type bridge_slave isolated on",
        ],
        ["# t goes"],
    ),
    (
        Tap("t", "b", 4, vnet_hdr=False),
        [
            "ip tuntap add t mode tap multi_queue",
            "ip link set t addrgenmode none",
            "ip link set t master b up",
        ],
        ["# t goes"],
    ),
    (
        Tap("t", "b", checksums=True),
        [
            "ip tuntap add t mode tap vnet_hdr",
            "ip link set t addrgenmode none",
            "ip link set t master b up",
            "tc qdisc replace dev t clsact",
            (
                "tc filter add dev t egress protocol ip u32 match ip protocol 17 0xff "
                "match ip sport 67 0xffff action csum udp"
            ),
        ],
        ["# t goes"],
    ),
    (
        AttachedTap("t", 5, "b", "52:54:00:00:00:03", 1500, up=False, plugged=False),
        ["ip link set t addrgenmode none", "ip link set t master b up"],
        ["ip link set t nomaster address 52:54:00:00:00:03 mtu 1500 down "],
    ),
    (
        AttachedTap("t", 5, "b", "52:54:00:00:00:03", 1500, up=True, plugged=True),
        ["ip link set t addrgenmode none", "ip link set t master b up"],
        ["ip link set t address 52:54:00:00:00:03 mtu 1500 up "],
    ),
    (
        AttachedTap("t", 5, "b", "52:54:00:00:00:03", 1500, up=True, plugged=True, isolated=True),
        [
            "ip link set t addrgenmode none",
            "ip link set t master b up",
            "ip link set t type bridge_slave isolated on",
        ],
        [
            "ip link set t type bridge_slave isolated off",
            "ip link set t address 52:54:00:00:00:03 mtu 1500 up ",
        ],
    ),
    (
        VfioBinding("0000:02:00.0", "RUN", "e1000e"),
        [
            f"echo vfio-pci >{PCI}/devices/0000:02:00.0/driver_override",
            f"echo 0000:02:00.0 >{PCI}/devices/0000:02:00.0/driver/unbind",
            f"echo 0000:02:00.0 >{PCI}/drivers_probe",
        ],
        [
            f"echo 0000:02:00.0 >{PCI}/devices/0000:02:00.0/driver/unbind",
            f"echo >{PCI}/devices/0000:02:00.0/driver_override",
            f"echo 0000:02:00.0 >{PCI}/drivers_probe  # e1000e takes it",
        ],
    ),
    (
        VfioBinding("0000:02:00.0", "RUN"),
        [
            f"echo vfio-pci >{PCI}/devices/0000:02:00.0/driver_override",
            f"echo 0000:02:00.0 >{PCI}/drivers_probe",
        ],
        [
            f"echo 0000:02:00.0 >{PCI}/devices/0000:02:00.0/driver/unbind",
            f"echo >{PCI}/devices/0000:02:00.0/driver_override",
        ],
    ),
    (
        VfioBinding("0000:02:00.0", "RUN", "vfio-pci"),
        ["# 0000:02:00.0 is on vfio-pci already"],
        ["# 0000:02:00.0 is left there"],
    ),
    (
        SriovFunctions("0000:01:00.0", "RUN", 7, "eth0"),
        [f"echo 7 >{PCI}/devices/0000:01:00.0/sriov_numvfs", "ip link set eth0 up"],
        [f"echo 0 >{PCI}/devices/0000:01:00.0/sriov_numvfs", "ip link set eth0 down"],
    ),
    (
        SriovFunctions("0000:01:00.0", "RUN", 0, "eth0"),
        ["ip link set eth0 up"],
        ["ip link set eth0 down"],
    ),
    (
        VfSettings("0000:01:00.0", 2, "52:54:00:00:00:04", "7", "0", "1", "100", "eth0"),
        [
            (
                "ip link set eth0 vf 2 mac 52:54:00:00:00:04 vlan 7 spoofchk off trust on"
                " max_tx_rate 100"
            ),
        ],
        ["ip link set eth0 vf 2 mac ... vlan ... spoofchk ... trust ... max_tx_rate ...  # as"],
    ),
    (
        IommuGroupOwner("9", 1000),
        ["chown 1000 /dev/vfio/9"],
        ["chown 0 /dev/vfio/9"],
    ),
]


@pytest.mark.parametrize(("resource", "do", "undo"), SAMPLES)
def test_explains(resource: Resource, do: list[str], undo: list[str]) -> None:
    step = explain.explain(resource)
    assert step.resource == resource
    assert list(step.do) == do
    assert len(step.undo) == len(undo)
    assert all(said.startswith(start) for said, start in zip(step.undo, undo, strict=True))


def test_every_kind_is_explained() -> None:
    assert {resource.kind for resource, _, _ in SAMPLES} == set(KINDS)
