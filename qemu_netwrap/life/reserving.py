"""Which address a guest's NIC is to have alone: what others have by now is looked up."""

from __future__ import annotations

from qemu_netwrap.core.errors import HostError
from qemu_netwrap.core.ipv4 import Subnet
from qemu_netwrap.core.reservations import choose, configured, guest_fault
from qemu_netwrap.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.core.model import Nic
    from qemu_netwrap.life.effects import Work
    from qemu_netwrap.life.networks import Info


def address_for(
    nic: Nic, known_as: tuple[str, str], info: Info, work: Work, *, needed: bool
) -> str:
    """Return the address for a NIC of NIC's, KNOWN_AS MAC and name; empty for none.

    Where one is NEEDED and none is meant for it, it is the one that a hostfwd= names, the one that
    it has leased, or a free one, the same each time. Raises `HostError` if there is none.

    To be called with the MACs' lock: of two that look, the second sees the first's.
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


def _reserved(folder: str) -> Iterator[tuple[str, str]]:
    """Yield MAC and address of the NICs that have one alone."""
    for mac in files.listdir(f"{folder}/hosts"):
        words = files.read(f"{folder}/hosts/{mac}").strip().split(",")
        if len(words) > 1 and words[1].count(".") == 3:
            yield mac, words[1]


def _leased(folder: str) -> Iterator[tuple[str, str]]:
    """Yield MAC and address of the leases (dnsmasq's lease file: expiry, MAC, address, …)."""
    for line in files.read(f"{folder}/leases").splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].isdigit():
            yield words[1], words[2]
