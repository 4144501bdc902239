"""What somebody has taken away of a network that is up: found, and made anew."""

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
    """Make anew what somebody has taken away from a network that is up, or what is outdated."""
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
    """Add again what somebody has taken away of the port forwards of living runs on BRIDGE."""
    for run in filter(work.state.is_alive, work.state.members(bridge)):
        for entry in Journal(f"{work.state.run(run)}/journal").peek():
            entry.resource.add_again(work)


def reattach_taps(bridge: str, work: Context) -> None:
    """Plug the taps of living runs into a bridge that was made anew, if it was.

    Those that somebody has put on another bridge meanwhile stay there.
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
            continue  # its run ends just now, or its journal is spoilt, which its release tells
