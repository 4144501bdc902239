"""Which address a guest's NIC is to have alone: what others have by now is looked up."""

from __future__ import annotations

from qemu_netwrap.core import reservations
from qemu_netwrap.core.ipv4 import Subnet
from qemu_netwrap.host import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.core.model import Nic
    from qemu_netwrap.life.effects import Work
    from qemu_netwrap.life.networks import Info


def address_for(nic: Nic, mac: str, name: str, info: Info, work: Work) -> str:
    """Return the address for the NIC with MAC, its network being up; empty for none.

    To be called with the MACs' lock: of two that look, the second sees the first's.
    """
    folder = work.state.network(info.bridge)
    holders = {address: holder for holder, address in (*_reserved(folder), *_leased(folder))}
    wanted = reservations.configured(nic.network, mac, name)
    holder = holders.get(wanted, mac)
    if holder != mac:
        work.say(f"{nic.label}: {wanted} is in use by {holder}, so DHCP gives another address")
        return ""
    return wanted


def subnet_of(info: Info) -> Subnet:
    """Return the subnet of a network that is up."""
    return Subnet.around(info.address)


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
