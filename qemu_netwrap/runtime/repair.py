"""What somebody has taken away of a network that is up: found, and made anew."""

from __future__ import annotations

import os

from qemu_netwrap import resources, runtime
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.linux import dnsmasq, files, host_facts, nft, sysctl
from qemu_netwrap.resources import effects
from qemu_netwrap.resources.kinds import (
    DeviceSetting,
    Dnsmasq,
    FirewalldZone,
    Forwarding,
    Guard,
    IptablesAccepts,
    Lookout,
    MacFilter,
    NftAccepts,
    Plug,
    Rules,
    Switch,
    Tap,
)
from qemu_netwrap.runtime import executor
from qemu_netwrap.runtime.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.resources.effects import Work
    from qemu_netwrap.resources.kinds import Resource
    from qemu_netwrap.runtime.journal import Entry


def restore(entries: list[Entry], journal: Journal, work: Work) -> None:
    """Make anew what somebody has taken away from a network that is up, or what is outdated."""
    lost_rules = ""
    for entry in entries:
        if isinstance(entry.resource, Guard):
            resources.forward_guards.insist(entry.resource, work)
        wanted = _renewed(entry.resource)
        if wanted != entry.resource or _is_turned(entry) or _is_missing(wanted, work):
            if isinstance(wanted, Rules):
                lost_rules = wanted.bridge
            with files.Lock(work.state.host_lock):
                if isinstance(wanted, Dnsmasq):
                    dnsmasq.end(work.state.network(wanted.bridge))
                for _ in effects.RELEASE[type(entry.resource)](entry.resource, entry.facts, work):
                    pass  # one of two chains may be there, or half a dnsmasq that a crash left
                executor.acquire_all([wanted], journal, work)
                journal.done(entry.number)
    if lost_rules:
        runtime.host_ports.restore(lost_rules, work)


def plug_again(bridge: str, work: Work) -> None:
    """Plug the taps of living runs into a bridge that was made anew, if it was.

    Those that somebody has put on another bridge meanwhile stay there.
    """
    for run in filter(work.state.is_alive, work.state.members(bridge)):
        try:
            entries = Journal(f"{work.state.run(run)}/journal").live()
            again: set[str] = set()
            for entry in entries:
                port = entry.resource
                if isinstance(port, MacFilter) and port.tap in again:
                    for _ in effects.acquire_mac_filter(port, lambda **_: None, work):
                        pass
                if not isinstance(port, (Tap, Plug)) or port.bridge != bridge:
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


def _renewed(resource: Resource) -> Resource:
    """Return a resource as it would be made now: dnsmasq reads where the host's resolver is."""
    if isinstance(resource, Dnsmasq) and resource.resolver:
        path, in_order = host_facts.resolver()
        return resource.with_resolver(path, in_order=in_order)
    return resource


def _is_turned(entry: Entry) -> bool:
    """Whether the link has been turned elsewhere that dnsmasq reads its name servers by.

    It watches the folder of the file that was behind the link when it started.
    """
    server = entry.resource
    if not isinstance(server, Dnsmasq) or not server.resolver:
        return False
    target = os.path.realpath(server.resolver)
    return entry.facts.get("resolver", target) != target


def _is_missing(resource: Resource, work: Work) -> bool:
    """Whether somebody has taken away what was there: looked for where that costs next to nothing.

    Restarting nftables.service flushes all rules; `sysctl --system` may reset forwarding.
    """
    if isinstance(resource, (Dnsmasq, Lookout)):
        return _process_of(resource, work) is None
    if isinstance(resource, Rules):
        return not all(nft.is_there(chain) for chain in nft.chains(resource.rules))
    if isinstance(resource, (IptablesAccepts, NftAccepts, FirewalldZone)):
        return resources.coexistence.is_missing(resource)
    if isinstance(resource, Forwarding):
        return sysctl.read("ipv4", resource.device, "forwarding") == "0"
    if isinstance(resource, Switch):
        return sysctl.read("ipv6", resource.device, resource.key) == resource.former
    return isinstance(resource, DeviceSetting) and sysctl.read(
        resource.family, resource.device, resource.key
    ) not in ("", resource.value)


def _process_of(resource: Dnsmasq | Lookout, work: Work) -> dnsmasq.Process | None:
    """Return the process that a network has; None if it does not live."""
    folder = work.state.network(resource.bridge)
    if isinstance(resource, Dnsmasq):
        return dnsmasq.find(folder)

    return runtime.uplink_watch.find(folder)


def _tap_of(port: Tap | Plug, entry: Entry, work: Work) -> Link | None:
    """Return the tap that an entry of a run's journal is about, if it is there still."""
    if isinstance(port, Plug):
        return work.rtnl.link_at(port.index)
    tap = work.rtnl.link(port.name)
    return tap if tap and is_noted(tap, entry) else None
