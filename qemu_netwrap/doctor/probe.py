"""Collecting facts about the host for `doctor`: it changes nothing and loads no module."""

from __future__ import annotations

import _socket
import os

from qemu_netwrap.doctor.facts import DefaultRouteDevice, HostFacts, Ipv6, Program, UserFacts
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import (
    coexistence,
    commands,
    devices,
    dnsmasq,
    files,
    ipv6_facts,
    namespaces,
    proc,
    processes,
    programs,
    remedies,
    sysctl,
    uplink_helpers,
)
from qemu_netwrap.linux.netlink.links import Rtnl
from qemu_netwrap.model.coexistence import CoexistenceFacts
from qemu_netwrap.model.network_managers import FIREWALLD, MANAGERS

_MACHINES = {"i686": "i386", "i586": "i386", "armv7l": "arm", "ppc64le": "ppc64"}
_OTHER_QEMUS = ("qemu-kvm", "/usr/libexec/qemu-kvm", "kvm")
_ARPHRD_ETHER = "1"
_MAC = bytes.fromhex("525400000001")
_BRIDGE = "qn-nat"  # the bridge that doctor assumes for a network


def look(leftovers: tuple[str, ...] | None) -> HostFacts:
    """Return all facts but the faults. The caller has found the LEFTOVERS of dead runs."""
    capabilities = proc.capabilities()
    nf_tables = devices.driver("nf_tables")
    may_list = nf_tables == devices.LOADED and "net_admin" in capabilities
    return HostFacts(
        is_root=os.geteuid() == 0,
        capabilities=capabilities,
        container=remedies.container(),
        qemu=qemu(),
        nft=_program("nft"),
        dnsmasq=_program("dnsmasq"),
        tun=devices.tun(),
        kvm=devices.look("/dev/kvm", "kvm", (10, 232)),
        vhost_net=devices.vhost_net(),
        bridge=devices.driver("bridge"),
        nf_tables=nf_tables,
        iommu_groups=len(_names("/sys/kernel/iommu_groups")),
        sysctl_writable=sysctl.is_writable(),
        is_lone=dnsmasq.is_lone(),
        is_router=sysctl.read("ipv4", "all", "forwarding") == "1",
        uplink=_uplink(),
        beside=_beside() if may_list else None,
        running=processes.running((FIREWALLD, *MANAGERS)),
        leftovers=leftovers,
        ipv6=_ipv6(),
    )


def look_as_user(seen: HostFacts, wanted: str) -> HostFacts:
    """Return what was SEEN with what an ordinary user has; WANTED is `uplink_helper`.

    A network namespace is made, and a bridge in it: where user namespaces are restricted, it may
    be the second that is refused.
    """
    cause = None
    try:
        made = namespaces.make()
    except OSError:
        cause = remedies.user_namespace(remedies.standing())
    else:
        if not namespaces.inside(made, _make_bridge):
            cause = remedies.user_namespace(remedies.standing())
        made.close()
    user = UserFacts() if cause is None else UserFacts(cause.why, cause.remedy)
    try:
        helper = uplink_helpers.find(wanted)
    except HostError as error:
        return seen.replace(user=user.replace(way_out_error=error.message))
    if helper is not None:
        version = commands.version(helper.path)
        user = user.replace(way_out=Program(helper.path, version))
    return seen.replace(user=user)


def _make_bridge() -> str:
    """Make a bridge, which goes with the namespace; return its name, empty if it is refused."""
    rtnl = Rtnl()
    try:
        rtnl.add_bridge(_BRIDGE, _MAC, stp=False, forward_delay=0, hello_time=-1)
    except OSError:
        return ""
    return _BRIDGE


def _beside() -> CoexistenceFacts:
    """Return what a launch would find of other programs: firewalls, servers, managers."""
    return coexistence.look(_BRIDGE, routed=True) or CoexistenceFacts()


def qemu() -> Program:
    """Return the QEMU for this machine's architecture, or else another one."""
    machine = os.uname().machine
    own = f"qemu-system-{_MACHINES.get(machine, machine)}"
    names = (own, *_OTHER_QEMUS, *programs.beginning("qemu-system-"))
    path = next((found for found in map(programs.find, names) if found), "")
    return Program(path, commands.version(path, "-version")) if path else Program()


def _program(name: str) -> Program:
    """Return a program that no other user could replace; sbin folders are searched too."""
    path = programs.find_trusted(name, programs.SBIN)
    return Program(path, commands.version(path)) if path else Program()


def _uplink() -> DefaultRouteDevice:
    """Return the device of the default route, and whether a bridge could have it."""
    rtnl = Rtnl()
    try:
        device = rtnl.default_device() or rtnl.default_device(_socket.AF_INET6)
    finally:
        rtnl.close()
    if not device:
        return DefaultRouteDevice()
    folder = f"/sys/class/net/{device}"
    master = f"{folder}/master"
    return DefaultRouteDevice(
        device,
        is_bridge=os.path.isdir(f"{folder}/bridge"),
        is_wifi=any(os.path.exists(f"{folder}/{mark}") for mark in ("phy80211", "wireless")),
        is_ethernet=files.peek(f"{folder}/type").strip() == _ARPHRD_ETHER,
        master=os.path.basename(os.readlink(master)) if os.path.islink(master) else "",
    )


def _ipv6() -> Ipv6:
    """Return the state of IPv6 on the host."""
    missing = ipv6_facts.why_missing()
    if missing:
        return Ipv6(missing)
    rtnl = Rtnl()
    try:
        device = rtnl.default_device(_socket.AF_INET6)
    finally:
        rtnl.close()
    is_router = sysctl.read("ipv6", "all", "forwarding") == "1"
    return Ipv6("", device, is_router, ipv6_facts.forwards_by_device())


def _names(folder: str) -> list[str]:
    """Return the names in a folder; [] if it cannot be read."""
    try:
        return files.listdir(folder)
    except OSError:
        return []
