"""Repair: recreate what others have removed of a network that is up."""

from __future__ import annotations

from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.linux import files
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.runtime import executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.resources.journal import Entry


def restore(entries: list[Entry], journal: Journal, work: Context) -> None:
    """Recreate what others have removed of a network that is up, and replace what is outdated."""
    lost_rules = ""
    for entry in entries:
        entry.resource.insist(work)
        wanted = entry.resource.renewed()
        if wanted != entry.resource or wanted.is_missing(work, entry.facts):
            if wanted.network_chains:
                lost_rules = wanted.network_chains[0]
            with files.Lock(work.state.host_lock):
                wanted.before_repair(work)
                for _ in entry.resource.release(work, entry.facts):
                    pass  # one of two chains may be there, or half a dnsmasq that a crash left
                executor.acquire_all([wanted], journal, work)
                journal.done(entry.number)
    if lost_rules:
        _renew_forwards(lost_rules, work)


def _renew_forwards(bridge: str, work: Context) -> None:
    """Add again what was removed of the port forwards of living runs on BRIDGE."""
    for run in filter(work.state.is_alive, work.state.members(bridge)):
        for entry in Journal(f"{work.state.run(run)}/journal").peek():
            entry.resource.add_again(work)


def reattach_taps(bridge: str, work: Context) -> None:
    """Reattach the taps of living runs after their bridge has been recreated.

    Taps that others have put on another bridge meanwhile stay there.
    """
    for run in filter(work.state.is_alive, work.state.members(bridge)):
        try:
            entries = Journal(f"{work.state.run(run)}/journal").live()
            again: set[str] = set()
            for entry in entries:
                plugged = entry.resource.plug_again(work, entry.facts, bridge)
                again |= {plugged} if plugged else set()
                entry.resource.after_plugging(work, again)
        except (OSError, NetwrapError):
            continue  # the run is just ending, or its journal is damaged, which its release reports
