"""Rating of the facts about a host: each line is ok, a warning or broken, with its remedy."""

from __future__ import annotations

import errno

from qemu_netwrap.linux import devices, proc, remedies
from qemu_netwrap.linux import tun as tun_device
from qemu_netwrap.linux.devices import LOADABLE, LOADED, MISSING
from qemu_netwrap.model.network_managers import FIREWALLD, MANAGERS
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.doctor.facts import HostFacts, Ipv6, Program, UserFacts
    from qemu_netwrap.linux.devices import Device

OK, WARNING, BROKEN = "ok", "warning", "broken"
DNS_PORT, DHCP6_PORT = 53, 547


class Line(Record):
    """One check: its subject, OK, WARNING or BROKEN, what was found, and a command as remedy."""

    what: str
    state: str
    found: str
    remedy: str = ""


def works(lines: tuple[Line, ...]) -> bool:
    """Whether the basic modes work: bridge, nat and host-only."""
    return not any(line.state == BROKEN for line in lines)


def diagnose(seen: HostFacts) -> tuple[Line, ...]:
    """Return a line for each check of what was seen, in the order in which they are printed."""
    lines = [
        _qemu(seen),
        _privilege(seen) if seen.user is None else _user(seen.user, is_root=seen.is_root),
        *_tun(seen),
        _kernel("bridge", seen.bridge, "bridge", seen),
        _kernel("nf_tables", seen.nf_tables, "nat and host-only", seen),
        _program("nft", seen.nft, "nftables"),
        _program("dnsmasq", seen.dnsmasq, "dnsmasq-base"),
        _kvm(seen.kvm),
        _vhost(seen.vhost_net),
        *(_host(seen) if seen.user is None else (_way_out(seen.user),)),
        *_leftovers(seen),
        *_faults(seen),
    ]
    return tuple(lines)


def _host(seen: HostFacts) -> Iterator[Line]:
    """Yield what concerns networks on the host itself, and its devices."""
    yield _iommu(seen)
    yield _forwarding(seen)
    yield _ipv6(seen.ipv6)
    yield _uplink(seen)
    yield from _beside(seen)
    yield from _managers(seen)


def _user(user: UserFacts, *, is_root: bool) -> Line:
    """Rate whether an ordinary user, or root without CAP_NET_ADMIN, can have networks."""
    who = "root without CAP_NET_ADMIN" if is_root else "an ordinary user"
    if user.refused:
        found = f"{who}, who can make no network namespace: {user.refused}"
        return Line("privilege", BROKEN, found, user.remedy)
    found = f"{who}: nat and host-only are in a network namespace of the user's own"
    return Line("privilege", OK, found)


def _way_out(user: UserFacts) -> Line:
    """Rate what leads out of an ordinary user's networks."""
    if user.way_out.path:
        return Line("way out", OK, _where(user.way_out))
    found = user.way_out_error or "no program leads out of a user's nat"
    found = f"{found}: guests reach each other only"
    return Line("way out", WARNING, found, "apt install slirp4netns")


def _qemu(seen: HostFacts) -> Line:
    if not seen.qemu.path:
        return Line("QEMU", BROKEN, "there is none on PATH", "apt install qemu-system-x86")
    return Line("QEMU", OK, _where(seen.qemu))


def _privilege(seen: HostFacts) -> Line:
    lacking = remedies.privilege(_standing(seen))
    if lacking is None:
        found = "root" if seen.is_root else "not root, with capabilities"
        alone = ", alone in its user namespace: dnsmasq runs as root of it" if seen.is_lone else ""
        return Line("privilege", OK, f"{found}{alone}")
    return Line("privilege", BROKEN, lacking.why, lacking.remedy)


def _standing(seen: HostFacts) -> remedies.Standing:
    """Return the privilege by which networks are made: a user lacks none in their own namespace."""
    needed = proc.CAPABILITIES if seen.user is None else ()
    lacking = tuple(name for name in needed if name not in seen.capabilities)
    loaded = {"tun": seen.tun, "vhost_net": seen.vhost_net}
    drivers = frozenset(name for name, device in loaded.items() if device.driver == LOADED)
    return remedies.Standing(seen.is_root, lacking, seen.container, drivers)


def _tun(seen: HostFacts) -> Iterator[Line]:
    """Distinguish a missing node, driver and permission; say what works without taps."""
    tun, what = seen.tun, seen.tun.path
    error = tun.error
    if tun.driver == MISSING and error != errno.ENOENT:
        error = errno.ENODEV
    found = remedies.cause(error, devices.TUN, _standing(seen)) if error else None
    if found is not None:
        more = f"; its driver {_is(tun.driver)}" if error == errno.ENOENT else ""
        yield Line(what, BROKEN, f"{found.why}{more}", found.remedy)
        yield Line("without taps", OK, tun_device.WITHOUT)
        return
    yield Line(what, OK, "there" if tun.driver == LOADED else "there, its driver on demand")


def _kernel(what: str, state: str, used_by: str, seen: HostFacts) -> Line:
    found = {LOADED: "in the kernel", LOADABLE: "loaded on demand"}
    if state in found:
        return Line(f"kernel: {what}", OK, found[state])
    where = ", in the host of this container" if seen.container else ""
    return Line(f"kernel: {what}", BROKEN, f"missing: no {used_by}{where}", f"modprobe {what}")


def _program(name: str, program: Program, package: str) -> Line:
    if not program.path:
        return Line(name, BROKEN, "missing: no nat and host-only", f"apt install {package}")
    return Line(name, OK, _where(program))


def _kvm(kvm: Device) -> Line:
    slow = "QEMU emulates (-accel tcg), slowly"
    if kvm.error == errno.EACCES:
        remedy = 'sudo usermod -aG kvm "$USER"  # then log in again'
        return Line("KVM", WARNING, f"this user may not open {kvm.path}: {slow}", remedy)
    if kvm.error or kvm.driver == MISSING:
        remedy = "modprobe -a kvm_intel kvm_amd  # if the firmware has virtualisation on"
        return Line("KVM", WARNING, f"no {kvm.path}: {slow}", remedy)
    return Line("KVM", OK, kvm.path)


def _vhost(vhost: Device) -> Line:
    if vhost.error == errno.EACCES:
        # The launcher opens it, as the user who creates the tap.
        found = f"this user may not open {vhost.path}: no vhost=on"
        return Line("vhost-net", WARNING, found, f"sudo chmod 666 {vhost.path}")
    if vhost.driver == MISSING:
        return Line("vhost-net", WARNING, "this kernel has no driver vhost_net: no vhost=on")
    if vhost.error:
        return Line("vhost-net", WARNING, f"no {vhost.path}: no vhost=on", "modprobe vhost_net")
    return Line("vhost-net", OK, vhost.path)


def _iommu(seen: HostFacts) -> Line:
    if seen.iommu_groups:
        return Line("IOMMU", OK, f"{seen.iommu_groups} groups")
    remedy = (
        "add intel_iommu=on to the kernel's command line (AMD: on by default); see the firmware"
    )
    return Line("IOMMU", WARNING, "off, or there is none: no -device vfio-pci", remedy)


def _forwarding(seen: HostFacts) -> Line:
    if not seen.sysctl_writable and seen.is_root:
        found = "/proc/sys is read-only: IPv4's is switched on by netlink"
        if seen.ipv6.missing or seen.ipv6.is_router:
            return Line("forwarding", OK, found)
        remedy = "mount -o remount,rw /proc/sys"
        if seen.container:
            remedy = remedies.in_container("--security-opt systempaths=unconfined")
        return Line("forwarding", WARNING, f"{found}, IPv6's not: nat has none", remedy)
    found = (
        "this host is a router" if seen.is_router else "off; switched on for nat's devices alone"
    )
    return Line("forwarding", OK, found)


def _ipv6(ipv6: Ipv6) -> Line:
    if ipv6.missing:
        return Line("IPv6", OK, f"guests get none: {ipv6.missing}")
    if not ipv6.uplink:
        return Line("IPv6", OK, "no default route: guests reach this host and each other by it")
    found = "switched on for nat's devices alone"
    if ipv6.is_router:
        found = "this host is a router"
    elif not ipv6.by_device:
        found = "before Linux 6.17 nat switches net.ipv6.conf.all.forwarding on, behind rules"
    return Line("IPv6", OK, f"out by {ipv6.uplink}; {found}")


def _uplink(seen: HostFacts) -> Line:
    uplink = seen.uplink
    name = uplink.device
    if not name:
        found = "no default route: nat guests reach this host's networks only"
        return Line("uplink", WARNING, found, "ip route add default via GATEWAY")
    if uplink.is_bridge:
        return Line(
            "uplink", OK, f"{name}, a bridge: -nic tap goes there, or -nic bridge,br={name}"
        )
    if uplink.master:
        return Line(
            "uplink", OK, f"{name}, a port of {uplink.master}: -nic bridge,br={uplink.master}"
        )
    if uplink.is_wifi:
        # A station sends frames only with its own MAC (IEEE 802.11, three addresses).
        return Line(
            "uplink", OK, f"{name} is Wi-Fi, which no bridge can have as a port: use -nic nat"
        )
    if not uplink.is_ethernet:
        return Line(
            "uplink", OK, f"{name} carries no Ethernet, so no bridge can have it: use -nic nat"
        )
    return Line("uplink", OK, f"{name} could be put into a bridge; -nic nat leaves it as it is")


def _beside(seen: HostFacts) -> Iterator[Line]:
    """Yield how other programs affect guests, and what is done about it while a network is up."""
    near = seen.beside
    if near is None:
        return
    closed = [
        *(str(each) for each in near.filters),
        *(str(each) for each in near.chains),
        *(["firewalld"] if near.firewalld else []),
    ]
    found = "none drops by default"
    if closed:
        found = f"{', '.join(closed)}: rules let a network's packets through while it is up"
    yield Line("other firewalls", OK, found)
    if FIREWALLD in seen.running and not near.firewalld:
        remedy = "firewall-cmd --zone=trusted --add-interface=qn-nat"
        yield Line(FIREWALLD, WARNING, "its chains are not seen: it may keep guests off", remedy)
    if near.taken:
        port = near.taken[0]
        found = f"another program has port {port} on every address: no nat and host-only"
        yield Line("DHCP", WARNING, found, f"ss -lunp 'sport = {port}'  # have it keep to its own")
    if near.open_from <= DHCP6_PORT:
        found = f"any local user may bind to ports from {near.open_from} on, and answer guests"
        remedy = "sysctl -w net.ipv4.ip_unprivileged_port_start=1024"
        yield Line("local users", WARNING, found, remedy)
    if not near.dns_port:
        found = f"another program has port {DNS_PORT} on every address: no nat and host-only"
        remedy = f"ss -lunp 'sport = {DNS_PORT}'  # have it keep to its own"
        yield Line("DNS", WARNING, found, remedy)
    elif near.dns_port != DNS_PORT:
        found = f"another program has port {DNS_PORT} on every address"
        yield Line("DNS", OK, f"{found}; networks use {near.dns_port}, guests do not see it")


def _managers(seen: HostFacts) -> Iterator[Line]:
    """Yield the network managers, and whether they will leave qemu-netwrap's devices alone."""
    if seen.beside is None:
        return
    for name in sorted(seen.running - {FIREWALLD}):
        if name in seen.beside.managers:
            yield Line(name, OK, "leaves qemu-netwrap's interfaces alone")
        else:
            manager = MANAGERS[name]
            found = "D-Bus cannot have it leave qemu-netwrap's interfaces alone: it may take them"
            text = manager.text_of("qn-*").replace("\n", "\\n")
            path = manager.path_of("all").replace("/run/", "/etc/")
            remedy = f"printf '{text}' >{path}  # then restart it"
            yield Line(name, WARNING, found, remedy)


def _leftovers(seen: HostFacts) -> Iterator[Line]:
    if seen.leftovers:
        found = f"of dead runs, or without state: {', '.join(seen.leftovers)}"
        yield Line("leftovers", WARNING, found, "qemu-netwrap gc")
    elif seen.leftovers is not None:
        yield Line("leftovers", OK, "none of dead runs")


def _faults(seen: HostFacts) -> Iterator[Line]:
    for name, found, mended in seen.faults:
        remedy = f"qemu-netwrap -- true -nic tap,network={name}" if mended else ""
        yield Line(f"network {name}", WARNING, found, remedy)


def _where(program: Program) -> str:
    return f"{program.path}, {program.version}" if program.version else program.path


def _is(driver: str) -> str:
    return {LOADED: "is there", LOADABLE: "is not loaded"}.get(driver, "is missing")
