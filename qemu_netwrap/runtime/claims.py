"""What several runs claim: a MAC on a network, a guest's name. The first living one has it.

When that run ends, the next one gets it. An entry that a bridge has lost is put back.
"""

from __future__ import annotations

import os

from qemu_netwrap.linux import dnsmasq, files, frame_filter
from qemu_netwrap.model import mac
from qemu_netwrap.resources import effects
from qemu_netwrap.resources.kinds import HostName, MacFilter
from qemu_netwrap.runtime.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.resources.effects import Work
    from qemu_netwrap.resources.kinds import Resource


def pass_on(gone: HostName, work: Work) -> None:
    """Give what a run has had to the next that claims it; without one, it is forgotten.

    To be called with the lock of the MACs, when the claims of GONE have been removed.
    """
    state, folder = work.state, work.state.network(gone.bridge)
    heirs = [run for run, bridge in state.holders(state.mac(gone.mac)) if bridge == gone.bridge]
    namesakes = state.holders(state.name(gone.bridge, gone.name)) if gone.name else []
    is_changed = not heirs and bool(files.read(f"{folder}/hosts/{gone.mac}"))
    if not heirs:
        files.remove(f"{folder}/hosts/{gone.mac}")
        if gone.guarded:
            handle = frame_filter.claim_handle(mac.pack(gone.mac))
            work.rtnl.drop_filter(frame_filter.block(gone.bridge), effects.CLAIMS, handle)
    for run, own in [*((run, gone.mac) for run in heirs[:1]), *namesakes[:1]]:
        if state.owns_mac(own, run, gone.bridge):
            is_changed |= _restore(run, own, gone.bridge, work)
    if is_changed:
        dnsmasq.reload(folder)


def put_back(bridge: str, work: Work) -> None:
    """Put back the entries of MACs that a bridge has lost.

    A QEMU that gives its tap the MAC of a neighbour makes the bridge forget the neighbour's entry
    (net/bridge/br_fdb.c, `br_fdb_changeaddr`).
    """
    with files.Lock(work.state.macs_lock):
        for run, own in missing(bridge, work):
            _restore(run, own, bridge, work)


def missing(bridge: str, work: Work) -> Iterator[tuple[str, str]]:
    """Yield the living runs, and their MACs, that a bridge should have an entry of, and has not.

    A tap that somebody has taken out of the bridge, or put on another one, has none there.
    """
    state, master = work.state, work.rtnl.link(bridge)
    if master is None:
        return
    there = {mac.unpack(raw) for raw in work.rtnl.stuck(master.index)}
    for own in files.listdir(state.macs_folder):
        run, where = ("", "") if own in there else state.mac_holder(own, bridge)
        if run and where == bridge and any(_filtered_ports(run, own, bridge, work)):
            yield run, own


def _restore(run: str, own: str, bridge: str, work: Work) -> bool:
    """Give a run's MAC its entries with the bridge and dnsmasq; return whether dnsmasq's is new."""
    for tap in _filtered_ports(run, own, bridge, work):
        try:
            work.rtnl.stick(tap.index, mac.pack(own))
        except OSError:
            continue  # its run ends just now
    has_dnsmasq = os.path.isdir(f"{work.state.network(bridge)}/hosts")
    hosts = (each for each in _resources(run, work) if isinstance(each, HostName))
    found = [each for each in hosts if (each.mac, each.bridge) == (own, bridge)]
    return has_dnsmasq and any(effects.write_host(each, work) for each in found)


def _filtered_ports(run: str, own: str, bridge: str, work: Work) -> Iterator[Link]:
    """Yield the taps of a run that are ports of BRIDGE, with a filter that lets a MAC pass."""
    master = work.rtnl.link(bridge)
    for each in _resources(run, work):
        if isinstance(each, MacFilter) and each.bridge == bridge and own in each.macs.split():
            tap = work.rtnl.link(each.tap)
            if tap is not None and master is not None and tap.master == master.index:
                yield tap


def _resources(run: str, work: Work) -> Iterator[Resource]:
    """Return what a run has."""
    return (entry.resource for entry in Journal(f"{work.state.run(run)}/journal").peek())
