"""Facts about a NIC of the host before it becomes an uplink: what it carries, what manages it."""

from __future__ import annotations

import os

from qemu_netwrap.linux.netlink.interface_copy import InterfaceNetlink
from qemu_netwrap.linux.network_managers import manager_of
from qemu_netwrap.model import mac
from qemu_netwrap.model.host import UplinkCandidate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.links import Link

IFF_LOOPBACK = 0x8
ARPHRD_ETHER = 1
# Kinds of link that do not lead to a LAN, and how messages call them.
_NO_NICS = {"bridge": "a bridge", "tun": "a tap", "macvlan": "a macvlan", "ipvlan": "an ipvlan"}


def look(name: str) -> UplinkCandidate:
    """Return the facts about the interface NAME."""
    mover = InterfaceNetlink()
    try:
        link = mover.link(name)
        if link is None:
            return UplinkCandidate(name, exists=False)
        has = mover.belongings(link.index)
        return UplinkCandidate(
            name,
            mac=mac.unpack(link.mac),
            unfit=_unfit(mover, link),
            master=mover.index_name(link.master) if link.master else "",
            manager=manager_of(link),
            is_default=any(r.is_default and r.leaves_by(link.index) for r in has.every_route),
            addresses=tuple(address.text for address in has.movable),
            routes=len(has.every_route),
        )
    finally:
        mover.close()


def _unfit(mover: InterfaceNetlink, link: Link) -> str:
    """Return why an interface cannot be a port of a bridge; empty if it can.

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
