"""What a NIC of the host is, before it becomes an uplink: fit for a bridge, and whose."""

from __future__ import annotations

import os

from qemu_netwrap.core import mac
from qemu_netwrap.core.model import Candidate
from qemu_netwrap.host import files
from qemu_netwrap.host.belongings import Mover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.host.rtnetlink import Link

IFF_LOOPBACK = 0x8
ARPHRD_ETHER = 1
# Kinds of link that are no way to a LAN, and what they are.
_NO_NICS = {"bridge": "a bridge", "tun": "a tap", "macvlan": "a macvlan", "ipvlan": "an ipvlan"}


def look(name: str) -> Candidate:
    """Return what interface NAME is."""
    mover = Mover()
    try:
        link = mover.link(name)
        if link is None:
            return Candidate(name, exists=False)
        has = mover.belongings(link.index)
        return Candidate(
            name,
            mac=mac.unpack(link.mac),
            unfit=_unfit(mover, link),
            master=mover.index_name(link.master) if link.master else "",
            manager=manager(link),
            is_default=any(r.is_default and r.leaves_by(link.index) for r in has.every_route),
            addresses=tuple(address.text for address in has.movable),
            routes=len(has.every_route),
        )
    finally:
        mover.close()


def _unfit(mover: Mover, link: Link) -> str:
    """Return why a bridge cannot have an interface; empty if it can.

    A Wi-Fi client may send under its own MAC only, and the access point forwards to no other
    (IEEE 802.11, three addresses a frame; net/wireless/util.c, `cfg80211_change_iface`).
    """
    flags, hardware = mover.nature(link.index)
    if flags & IFF_LOOPBACK:
        return "it is the loopback interface"
    folder = f"/sys/class/net/{link.name}"
    if any(os.path.exists(f"{folder}/{name}") for name in ("phy80211", "wireless")):
        return "it is Wi-Fi, which carries no frames of other MACs: it cannot be bridged"
    if link.kind in _NO_NICS:
        return f"it is {_NO_NICS[link.kind]}, and no NIC"
    return "" if hardware == ARPHRD_ETHER else "it is no Ethernet device"


def manager(link: Link) -> str:
    """Return the program that would undo what is done to an interface; empty if none is seen.

    NetworkManager(8) and systemd-networkd(8) write down, by ifindex, what they manage; dhcpcd(8)
    has a process for each interface.
    """
    path = f"/run/NetworkManager/devices/{link.index}"
    if _values(path, "managed") & {"1", "true"} and _lives("NetworkManager"):
        return "NetworkManager"
    path = f"/run/systemd/netif/links/{link.index}"
    states = _values(path, "ADMIN_STATE")
    if states and not states & {"unmanaged", "initialized"} and _lives("systemd-network"):
        return "systemd-networkd"
    pids = (f"/run/dhcpcd/{link.name}{tail}.pid" for tail in ("", "-4", "-6"))
    running = (files.read(path).strip() for path in pids)
    return "dhcpcd" if any(p.isdigit() and os.path.exists(f"/proc/{p}") for p in running) else ""


def _values(path: str, key: str) -> set[str]:
    """Return what KEY is in a file of KEY=VALUE lines."""
    rows = (line.partition("=") for line in files.read(path).splitlines())
    return {value.strip() for name, _, value in rows if name.strip() == key}


def _lives(program: str) -> bool:
    """Whether a process has that name, of which proc(5) keeps 15 bytes."""
    pids = filter(str.isdigit, files.listdir("/proc"))
    return any(_comm(pid).startswith(program[:15]) for pid in pids)


def _comm(pid: str) -> str:
    """Return a process's name; empty when it is gone."""
    try:
        return files.read(f"/proc/{pid}/comm")
    except OSError:
        return ""
