"""Releasing what a nat network has for devices that no route leaves by any more."""

from __future__ import annotations

from qemu_netwrap.linux import files, ipv6_facts
from qemu_netwrap.resources.base import ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.resources.journal import Entry, Journal

_V4, _V6 = "ipv4", "ipv6"


def give_up(entries: list[Entry], journal: Journal, work: Context) -> list[Entry]:
    """Release what a network has for devices that no route uses now; return the rest of ENTRIES.

    ENTRIES are those of its JOURNAL. The caller holds the network's lock.
    """
    used = {
        _V4: {route.device for route in work.rtnl.routes(())},
        _V6: {route.device for route in ipv6_facts.around(frozenset()).routes},
    }
    known = {each for each in (entry.resource.shared_device for entry in entries) if each}
    gone = {(family, each) for family, each in known if each not in (ALL, *used[family])}
    if not gone:
        return entries
    idle = [entry for entry in entries if entry.resource.is_for_devices(gone)]
    with files.Lock(work.state.host_lock):
        for entry in reversed(idle):
            for _ in entry.resource.release(work, entry.facts):
                pass
            journal.done(entry.number)
    return [entry for entry in entries if entry not in idle]
