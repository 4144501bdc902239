"""Looking at the host for `doctor`: nothing is changed, and no module is loaded by looking."""

from __future__ import annotations

import _socket
import errno
import os

from qemu_netwrap.doctor.facts import (
    LOADABLE,
    LOADED,
    MISSING,
    WRONG_NODE,
    Device,
    Ipv6,
    Program,
    Survey,
    Uplink,
)
from qemu_netwrap.linux import (
    coexistence,
    commands,
    dnsmasq,
    files,
    ipv6_facts,
    processes,
    programs,
    sysctl,
)
from qemu_netwrap.linux.netlink.links import Rtnl
from qemu_netwrap.model.causes import CAPABILITIES, TUN, VHOST, Standing
from qemu_netwrap.model.coexistence import Neighbours
from qemu_netwrap.model.network_managers import FIREWALLD, MANAGERS

# Numbers of capabilities: linux/capability.h.
_CAPABILITIES = {"setgid": 6, "setuid": 7, "net_bind_service": 10, "net_admin": 12, "net_raw": 13}
# A function of each driver: how one that is built in is told where no module list is.
_SYMBOLS = {
    "bridge": "br_add_bridge", "kvm": "kvm_init", "nf_tables": "nf_tables_newtable",
    "tun": "tun_chr_open", "vhost_net": "vhost_net_open",
}  # fmt: skip
_MACHINES = {"i686": "i386", "i586": "i386", "armv7l": "arm", "ppc64le": "ppc64"}
_OTHER_QEMUS = ("qemu-kvm", "/usr/libexec/qemu-kvm", "kvm")
_ARPHRD_ETHER = "1"
_BRIDGE = "qn-nat"  # the one that doctor asks for


def look(leftovers: tuple[str, ...] | None) -> Survey:
    """Look at everything. LEFTOVERS of dead runs are for others to find."""
    capabilities = _capabilities()
    nf_tables = driver("nf_tables")
    may_list = nf_tables == LOADED and "net_admin" in capabilities
    return Survey(
        is_root=os.geteuid() == 0,
        capabilities=capabilities,
        container=_container(),
        qemu=_qemu(),
        nft=_program("nft"),
        dnsmasq=_program("dnsmasq"),
        tun=tun(),
        kvm=_device("/dev/kvm", "kvm", (10, 232)),
        vhost_net=vhost_net(),
        bridge=driver("bridge"),
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


def standing() -> Standing:
    """Return with what privilege this process asks, and where."""
    held = _capabilities()
    return Standing(
        os.geteuid() == 0,
        tuple(name for name in CAPABILITIES if name not in held),
        _container(),
        frozenset(name for name in ("tun", "vhost_net") if driver(name) == LOADED),
    )


def tun() -> Device:
    """Look at the device that taps are made by."""
    return _device(TUN, "tun", (10, 200))


def vhost_net() -> Device:
    """Look at the device that vhost=on takes."""
    return _device(VHOST, "vhost_net", (10, 238))


def _beside() -> Neighbours:
    """Return what a launch would find of others."""
    return coexistence.look(_BRIDGE, routed=True) or Neighbours()


def driver(name: str) -> str:
    """Return whether the kernel has a driver: LOADED (or built in), LOADABLE or MISSING.

    Modules with parameters have a folder in /sys/module even when they are built in; of the
    others modules.builtin tells, or, where there is none, the kernel's symbols.
    """
    if os.path.isdir(f"/sys/module/{name}"):
        return LOADED
    lists = f"/lib/modules/{os.uname().release}"
    ends = tuple(f"/{name.replace('_', mark)}.ko" for mark in "_-")
    if any(line.endswith(ends) for line in files.peek(f"{lists}/modules.builtin").splitlines()):
        return LOADED
    if f" {_SYMBOLS[name]}\n" in files.peek("/proc/kallsyms"):
        return LOADED
    known = (line.partition(":")[0] for line in files.peek(f"{lists}/modules.dep").splitlines())
    return LOADABLE if any(end in path for path in known for end in ends) else MISSING


def _device(path: str, module: str, number: tuple[int, int]) -> Device:
    """Look at a device node; open it only when that cannot load a driver (devname aliases do).

    NUMBER is of Documentation/admin-guide/devices.txt.
    """
    there = driver(module)
    try:
        if os.stat(path).st_rdev != os.makedev(*number):
            return Device(path, there, WRONG_NODE)
        if there == LOADED:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
        elif not os.access(path, os.R_OK | os.W_OK):
            return Device(path, there, "EACCES")
    except OSError as error:
        return Device(path, there, errno.errorcode.get(error.errno or 0, str(error)))
    return Device(path, there)


def _capabilities() -> frozenset[str]:
    """Return those of the capabilities we may need that this process has."""
    status = files.read("/proc/self/status")
    bits = int(status.partition("CapEff:")[2].split()[0], 16)
    return frozenset(name for name, number in _CAPABILITIES.items() if bits >> number & 1)


def _container() -> str:
    """Return what kind of container this is, empty for none (systemd's CONTAINER_INTERFACE)."""
    told = files.peek("/run/systemd/container").strip() or os.environ.get("container", "")  # noqa: SIM112
    if told:
        return told
    marks = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
    return next((kind for path, kind in marks.items() if os.path.exists(path)), "")


def _qemu() -> Program:
    """Return the QEMU of this machine's kind, or another."""
    machine = os.uname().machine
    own = f"qemu-system-{_MACHINES.get(machine, machine)}"
    names = (own, *_OTHER_QEMUS, *programs.beginning("qemu-system-"))
    path = next((found for found in map(programs.find, names) if found), "")
    return Program(path, commands.version(path, "-version")) if path else Program()


def _program(name: str) -> Program:
    """Return a program that may be an administrator's."""
    path = programs.find_trusted(name, programs.SBIN)
    return Program(path, commands.version(path)) if path else Program()


def _uplink() -> Uplink:
    """Return the device of the default route, and whether a bridge could have it."""
    rtnl = Rtnl()
    try:
        device = rtnl.default_device() or rtnl.default_device(_socket.AF_INET6)
    finally:
        rtnl.close()
    if not device:
        return Uplink()
    folder = f"/sys/class/net/{device}"
    master = f"{folder}/master"
    return Uplink(
        device,
        is_bridge=os.path.isdir(f"{folder}/bridge"),
        is_wifi=any(os.path.exists(f"{folder}/{mark}") for mark in ("phy80211", "wireless")),
        is_ethernet=files.peek(f"{folder}/type").strip() == _ARPHRD_ETHER,
        master=os.path.basename(os.readlink(master)) if os.path.islink(master) else "",
    )


def _ipv6() -> Ipv6:
    """Return what there is of IPv6."""
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
    """Return the names in a folder; none where we may not look."""
    try:
        return files.listdir(folder)
    except OSError:
        return []
