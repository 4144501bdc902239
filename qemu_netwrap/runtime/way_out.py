"""The devices that a nat network forwards by: what is for those that lead nowhere any more."""

from __future__ import annotations

from qemu_netwrap.linux import files, ipv6_facts, nft
from qemu_netwrap.model import names
from qemu_netwrap.resources.base import ALL
from qemu_netwrap.resources.forward_guards import Guard
from qemu_netwrap.resources.nftables import Rules
from qemu_netwrap.resources.sysctls import Forwarding, Switch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from qemu_netwrap.resources.base import Context, Resource
    from qemu_netwrap.resources.journal import Entry, Journal

_V4, _V6 = "ipv4", "ipv6"


def give_up(journal: Journal, work: Context) -> None:
    """Release what a network has for devices that no route leaves by any more, its lock held."""
    entries = journal.live()
    used = {
        _V4: {route.device for route in work.rtnl.routes(())},
        _V6: {route.device for route in ipv6_facts.around(frozenset()).routes},
    }
    gone = {
        (family, device)
        for entry in entries
        for family, device in _devices(entry.resource)
        if device not in used[family]
    }
    if gone:
        with files.Lock(work.state.host_lock):
            _release([e for e in entries if _is_for(e.resource, gone)], journal, work)


def _release(entries: Iterable[Entry], journal: Journal, work: Context) -> None:
    """Release entries of a journal, the last first."""
    for entry in reversed(list(entries)):
        for _ in entry.resource.release(work, entry.facts):
            pass
        journal.done(entry.number)


def _devices(resource: Resource) -> list[tuple[str, str]]:
    """Return the device of the host's that a resource has forward, with the family."""
    if isinstance(resource, Forwarding):
        return [(_V4, resource.device)]
    if isinstance(resource, Switch) and resource.device != ALL:
        return [(_V6, resource.device)]
    return []


def _is_for(resource: Resource, gone: set[tuple[str, str]]) -> bool:
    """Whether a resource is for a device that is GONE, and for nothing else."""
    if isinstance(resource, Guard):
        doors = {f"{family} iif {device}" for family, device in gone}
        return {*resource.each} <= doors
    if isinstance(resource, Rules):
        kinds = {_V4: "guard", _V6: "guard6"}
        late = {
            f"{resource.bridge}_{kinds[family]}_{names.in_chain_name(device)}"
            for family, device in gone
        }
        return {*nft.chains(resource.rules)} <= late
    return any(each in gone for each in _devices(resource))
