"""How facts about a host are rated."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from qemu_netwrap.doctor.checks import BROKEN, OK, WARNING, Line, diagnose, works
from qemu_netwrap.doctor.facts import DefaultRouteDevice, HostFacts, Ipv6, Program, UserFacts
from qemu_netwrap.linux.devices import LOADABLE, LOADED, MISSING, WRONG_NODE, Device
from qemu_netwrap.linux.proc import CAPABILITIES
from qemu_netwrap.model.coexistence import ClosedChain, CoexistenceFacts, IptablesFilter

GOOD = HostFacts(
    is_root=True,
    capabilities=frozenset(CAPABILITIES),
    container="",
    qemu=Program("/usr/bin/qemu-system-x86_64", "7.2"),
    nft=Program("/usr/sbin/nft", "v1.0.6"),
    dnsmasq=Program("/usr/sbin/dnsmasq"),
    tun=Device("/dev/net/tun", LOADED),
    kvm=Device("/dev/kvm", LOADED),
    vhost_net=Device("/dev/vhost-net", LOADABLE),
    bridge=LOADABLE,
    nf_tables=LOADED,
    iommu_groups=12,
    sysctl_writable=True,
    is_router=False,
    uplink=DefaultRouteDevice("eth0", is_ethernet=True),
    beside=CoexistenceFacts(bridged=("ip", "ip6")),
    running=frozenset(),
    leftovers=(),
    ipv6=Ipv6(uplink="eth0"),
)


def line(what: str, **changes: Any) -> Line:
    found = {each.what: each for each in diagnose(GOOD.replace(**changes))}
    return found[what]


def tun(error: int, driver: str = LOADED, **more: Any) -> Line:
    return line("/dev/net/tun", tun=Device("/dev/net/tun", driver, error), **more)


def test_a_good_host() -> None:
    lines = diagnose(GOOD)
    assert {each.state for each in lines} == {OK}
    assert [each for each in lines if each.remedy] == []
    assert works(lines)


@pytest.mark.parametrize(
    ("what", "changes", "found", "remedy"),
    [
        ("QEMU", {"qemu": Program()}, "none on PATH", "apt install qemu-system-x86"),
        ("nft", {"nft": Program()}, "no nat and host-only", "apt install nftables"),
        ("dnsmasq", {"dnsmasq": Program()}, "no nat", "apt install dnsmasq-base"),
        ("kernel: bridge", {"bridge": MISSING}, "missing", "modprobe bridge"),
        ("kernel: nf_tables", {"nf_tables": MISSING}, "missing", "modprobe nf_tables"),
        (
            "privilege",
            {"user": UserFacts("it is off", "sudo sysctl"), "is_root": False},
            "ordinary user",
            "sysctl",
        ),
        ("privilege", {"user": UserFacts("it is off", "mend it")}, "root without CAP_NET", "mend"),
        ("privilege", {"capabilities": frozenset(CAPABILITIES[1:])}, "CAP_NET_ADMIN", "capsh"),
        (
            "privilege",
            {"capabilities": frozenset(CAPABILITIES[2:]), "container": "docker"},
            "root without CAP_NET_ADMIN, CAP_NET_RAW, in docker",
            "--cap-add NET_ADMIN --cap-add NET_RAW",
        ),
    ],
)
def test_broken(what: str, changes: dict[str, Any], found: str, remedy: str) -> None:
    shown = line(what, **changes)
    assert shown.state == BROKEN
    assert found in shown.found
    assert remedy in shown.remedy
    assert not works((shown,))


def test_tun_missing_node_missing_module_and_permission_are_told_apart() -> None:
    cases = [
        tun(errno.ENOENT), tun(errno.ENOENT, LOADABLE),
        tun(errno.ENOENT, MISSING, container="podman"),
        tun(0, MISSING), tun(errno.EACCES), tun(errno.EPERM, container="docker"),
        tun(errno.EIO), tun(WRONG_NODE),
    ]  # fmt: skip
    assert {each.state for each in cases} == {BROKEN}
    assert [each.remedy.split()[0] for each in cases] == [
        "mkdir", "modprobe", "start", "modprobe", "sudo", "start", "modprobe", "rm",
    ]  # fmt: skip
    assert len({each.found for each in cases}) == len(cases)
    assert tun(0, LOADABLE).state == OK


@pytest.mark.parametrize(
    ("what", "changes", "found", "remedy"),
    [
        (
            "KVM",
            {"kvm": Device("/dev/kvm", LOADED, errno.EACCES)},
            "may not open",
            "usermod -aG kvm",
        ),
        ("KVM", {"kvm": Device("/dev/kvm", LOADED, errno.ENOENT)}, "no /dev/kvm", "modprobe"),
        ("KVM", {"kvm": Device("/dev/kvm", MISSING)}, "slowly", "modprobe"),
        ("vhost-net", {"vhost_net": Device("/v", LOADABLE, errno.ENOENT)}, "no /v", "modprobe"),
        ("vhost-net", {"vhost_net": Device("/v", MISSING, errno.ENOENT)}, "no driver", ""),
        ("IOMMU", {"iommu_groups": 0}, "vfio-pci", "iommu=on"),
        ("forwarding", {"sysctl_writable": False}, "read-only", "remount,rw"),
        ("uplink", {"uplink": DefaultRouteDevice()}, "no default route", "ip route add"),
        ("firewalld", {"running": frozenset({"firewalld"})}, "keep guests off", "firewall-cmd"),
        ("DHCP", {"beside": CoexistenceFacts(taken=(67,))}, "port 67", "ss -lunp 'sport = 67'"),
        (
            "NetworkManager",
            {"running": frozenset({"NetworkManager"})},
            "may take them",
            "managed=0\\n' >/etc/NetworkManager/conf.d/qemu-netwrap-all.conf",
        ),
        ("leftovers", {"leftovers": ("run 7",)}, "run 7", "qemu-netwrap gc"),
    ],
)
def test_warnings(what: str, changes: dict[str, Any], found: str, remedy: str) -> None:
    shown = line(what, **changes)
    assert shown.state == WARNING
    assert found in shown.found
    assert remedy in shown.remedy
    assert works((shown,))


@pytest.mark.parametrize(
    ("uplink", "found"),
    [
        (DefaultRouteDevice("br0", is_bridge=True, is_ethernet=True), "-nic bridge,br=br0"),
        (
            DefaultRouteDevice("eth0", is_ethernet=True, master="br1"),
            "a port of br1: -nic bridge,br=br1",
        ),
        (DefaultRouteDevice("wlan0", is_wifi=True, is_ethernet=True), "Wi-Fi"),
        (DefaultRouteDevice("wg0"), "no Ethernet"),
        (DefaultRouteDevice("eth0", is_ethernet=True), "could be put into a bridge"),
    ],
)
def test_uplinks(uplink: DefaultRouteDevice, found: str) -> None:
    shown = line("uplink", uplink=uplink)
    assert shown.state == OK
    assert found in shown.found


@pytest.mark.parametrize(
    ("what", "changes", "found"),
    [
        ("other firewalls", {}, "none drops"),
        (
            "other firewalls",
            {
                "beside": CoexistenceFacts(
                    filters=(IptablesFilter("iptables-nft", "DOCKER-USER"),),
                    chains=(ClosedChain("inet", "theirs", "in", "input"),),
                    firewalld=True,
                )
            },
            "iptables-nft, inet theirs in, firewalld: rules let",
        ),
        ("DNS", {"beside": CoexistenceFacts(dns_port=288)}, "networks use 288"),
        (
            "systemd-networkd",
            {
                "beside": CoexistenceFacts(managers=("systemd-networkd",)),
                "running": frozenset({"systemd-networkd"}),
            },
            "leaves qemu-netwrap",
        ),
    ],
)
def test_others_that_are_told(what: str, changes: dict[str, Any], found: str) -> None:
    shown = line(what, **changes)
    assert (shown.state, shown.remedy) == (OK, "")
    assert found in shown.found


def test_what_only_root_sees_is_left_out_for_others() -> None:
    seen = GOOD.replace(beside=None, leftovers=None)
    assert {"other firewalls", "leftovers"}.isdisjoint(each.what for each in diagnose(seen))


@pytest.mark.parametrize(
    ("ipv6", "found"),
    [
        (Ipv6("it is off"), "guests get none: it is off"),
        (Ipv6(), "no default route"),
        (Ipv6("", "eth0"), "out by eth0; switched on for nat's devices alone"),
        (Ipv6("", "eth0", is_router=True), "out by eth0; this host is a router"),
        (Ipv6("", "eth0", by_device=False), "nat switches net.ipv6.conf.all.forwarding on"),
    ],
)
def test_ipv6(ipv6: Ipv6, found: str) -> None:
    told = line("IPv6", ipv6=ipv6)
    assert told.state == OK
    assert found in told.found


def test_what_is_wrong_with_networks_that_are_up() -> None:
    faults = (("nat", "its bridge has gone", True), ("lab", "qn7-0 has been unplugged", False))
    lines = [each for each in diagnose(GOOD.replace(faults=faults)) if each.state != OK]
    assert [(each.what, each.remedy) for each in lines] == [
        ("network nat", "qemu-netwrap -- true -nic tap,network=nat"),
        ("network lab", ""),
    ]
    assert works(tuple(lines))
