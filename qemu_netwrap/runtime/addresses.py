"""The address that is reserved for a guest's NIC: one that no other NIC has by now."""

from __future__ import annotations

import _socket

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, frame_filter
from qemu_netwrap.model.ipv4 import Subnet
from qemu_netwrap.model.mac import pack
from qemu_netwrap.model.reservations import choose, configured, guest_fault
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.links import packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.run import TapRequest
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.runtime.membership import NetworkInfo


def address_for(
    nic: TapRequest, known_as: tuple[str, str], info: NetworkInfo, work: Context, *, needed: bool
) -> str:
    """Return the IPv4 address to reserve for a guest NIC, KNOWN_AS (MAC, name); "" for none.

    If one is NEEDED and none is configured for it, it is one that a hostfwd= names, the one that
    the NIC has leased, or a free one, the same each time. Raises `HostError` if none is free.

    The caller holds the MACs' lock: of two concurrent launches, the second sees the first's choice.
    """
    mac, name = known_as
    folder = work.state.network(info.bridge)
    holders = {address: holder for holder, address in (*_reserved(folder), *_leased(folder))}
    wanted = configured(nic.network, mac, name)
    holder = holders.get(wanted, mac)
    if holder != mac:
        work.say(f"{nic.label}: {wanted} is in use by {holder}, so DHCP gives another address")
        wanted = ""
    if wanted or not needed:
        return wanted
    meant = {address for _, address in nic.network.addresses}
    others = {address for address, each in holders.items() if each != mac} | meant
    mine = [address for address, each in holders.items() if each == mac]
    asked = [each.guest for each in nic.forwards if each.guest and not each.is_ipv6]
    subnet = Subnet.around(info.address)
    fit = (a for a in (*asked, *mine) if a not in others and not guest_fault(a, subnet))
    found = next(fit, "") or choose(mac, subnet, others)
    if not found:
        raise HostError(
            f"{nic.label}: network {info.name} has no free address for hostfwd=",
            "give it a larger subnet in the configuration",
        )
    return found


def free_address(nic: TapRequest, mac: str, info: NetworkInfo, work: Context) -> str:
    """Return an unused IPv4 address for MAC, the same each time if still free; "" if none is left.

    The caller holds the MACs' lock, as for `address_for`.
    """
    subnet = Subnet.around(info.address)
    leased = {a: holder for holder, a in _leased(work.state.network(info.bridge))}
    meant = dict(nic.network.addresses).values()
    taken = _Taken(mac, info.bridge, {a for a, each in leased.items() if each != mac}, work)
    taken.known.update(meant)
    mine = (a for a, each in leased.items() if each == mac and not guest_fault(a, subnet))
    return next((a for a in mine if a not in taken), "") or choose(mac, subnet, taken)


def claim_for_elders(bridge: str, work: Context) -> None:
    """Record which names and addresses living runs of an older version have on a network.

    That version recorded none, and the first to claim one has it. The caller holds the MACs' lock.
    """
    state = work.state
    for run in filter(state.is_alive, state.members(bridge)):
        for entry in Journal(f"{state.run(run)}/journal").peek():
            entry.resource.claim_again(run, bridge, work)


def slaac_address(mac: str, info: NetworkInfo) -> str:
    """Return the IPv6 address that SLAAC derives from MAC (text); "" on a network without IPv6."""
    if not info.address6:
        return ""
    prefix = packed(info.address6.partition("/")[0])[:8]
    return _socket.inet_ntop(_socket.AF_INET6, prefix + frame_filter.interface_id(pack(mac)))


class _Taken:
    """The addresses that a NIC other than MAC has, looked up one by one."""

    def __init__(self, mac: str, bridge: str, known: set[str], work: Context) -> None:
        """Start with the addresses that are KNOWN to be taken."""
        self.known = known
        self._mac, self._bridge, self._work = mac, bridge, work
        self._link = work.rtnl.link(bridge)

    def __contains__(self, address: object) -> bool:
        """Whether ADDRESS is known as taken, a living run's, or one that a guest gave itself."""
        if address in self.known or not isinstance(address, str):
            return True
        state = self._work.state
        if any(mac != self._mac for _, mac in state.holders(state.address(self._bridge, address))):
            return True
        link = self._link
        seen = self._work.rtnl.neighbor(link.index, packed(address)) if link else b""
        return seen not in (b"", pack(self._mac))


def _reserved(folder: str) -> Iterator[tuple[str, str]]:
    """Yield (MAC, address), text, of each NIC that has a reserved address."""
    for mac in files.listdir(f"{folder}/hosts"):
        words = files.read(f"{folder}/hosts/{mac}").strip().split(",")
        if len(words) > 1 and words[1].count(".") == 3:
            yield mac, words[1]


def _leased(folder: str) -> Iterator[tuple[str, str]]:
    """Yield (MAC, address), text, of each lease (dnsmasq's lease file: expiry, MAC, address, …)."""
    for line in files.read(f"{folder}/leases").splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].isdigit():
            yield words[1], words[2]
