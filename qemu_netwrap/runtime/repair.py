"""What somebody has taken away of a network that is up: found, and made anew."""

from __future__ import annotations

from qemu_netwrap import resources
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.linux import files
from qemu_netwrap.resources.journal import Journal
from qemu_netwrap.resources.links import AttachedTap, Tap
from qemu_netwrap.runtime import executor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.resources.base import Context
    from qemu_netwrap.resources.journal import Entry


def restore(entries: list[Entry], journal: Journal, work: Context) -> None:
    """Make anew what somebody has taken away from a network that is up, or what is outdated."""
    lost_rules = ""
    for entry in entries:
        entry.resource.insist(work)
        wanted = entry.resource.renewed()
        if wanted != entry.resource or wanted.is_missing(work, entry.facts):
            if isinstance(wanted, resources.nftables.Rules):
                lost_rules = wanted.bridge
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
            if isinstance(entry.resource, resources.nftables.PortForwardChains):
                entry.resource.renew(work)


def plug_again(bridge: str, work: Context) -> None:
    """Plug the taps of living runs into a bridge that was made anew, if it was.

    Those that somebody has put on another bridge meanwhile stay there.
    """
    for run in filter(work.state.is_alive, work.state.members(bridge)):
        try:
            entries = Journal(f"{work.state.run(run)}/journal").live()
            again: set[str] = set()
            for entry in entries:
                port = entry.resource
                # A run without taps to plug again has no need of what filters are loaded by.
                if again and isinstance(port, resources.port_filters.MacFilter):
                    for _ in port.acquire(work) if port.tap in again else ():
                        pass
                if not isinstance(port, (Tap, AttachedTap)) or port.bridge != bridge:
                    continue
                tap, made = _tap_of(port, entry, work), work.rtnl.link(bridge)
                if tap and made and not tap.master:
                    work.rtnl.plug(tap, made, tap.mac)
                    again.add(port.name)
                    if port.isolated:
                        work.rtnl.isolate(tap.index)
        except (OSError, NetwrapError):
            continue  # its run ends just now, or its journal is spoilt, which its release tells


def is_noted(link: Link, entry: Entry) -> bool:
    """Whether an interface is the one that an entry is about, and not another of its name."""
    return entry.facts.get("index") == str(link.index)


def _tap_of(port: Tap | AttachedTap, entry: Entry, work: Context) -> Link | None:
    """Return the tap that an entry of a run's journal is about, if it is there still."""
    if isinstance(port, AttachedTap):
        return work.rtnl.link_at(port.index)
    tap = work.rtnl.link(port.name)
    return tap if tap and is_noted(tap, entry) else None
