"""All networks by name: those that are configured or built in, and those that are up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_netwrap.errors import UsageError
from qemu_netwrap.linux import host_facts
from qemu_netwrap.model.suggest import suggestion
from qemu_netwrap.record import Record
from qemu_netwrap.runtime import membership
from qemu_netwrap.runtime.network_choice import defined

if TYPE_CHECKING:
    from qemu_netwrap.model.network import Config
    from qemu_netwrap.resources.base import Context

UP = "up"
DOWN = "down"
DAMAGED = "damaged"  # it is up, but its info file cannot be read
LEFT = "left"  # qemu-netwrap made its bridge, and its state has been removed
FOREIGN = "foreign"  # its bridge exists, and qemu-netwrap did not make it


class NetworkSummary(Record):
    """A network, and whether it is up."""

    name: str
    mode: str
    bridge: str
    state: str
    address: str = ""  # of the gateway, with its prefix length; the configured one when it is down
    address6: str = ""  # the same for IPv6
    kept: bool = False
    runs: tuple[str, ...] = ()
    is_default: bool = False


def inventory(config: Config, chosen: str, work: Context) -> list[NetworkSummary]:
    """Return all networks; CHOSEN is --network's value. Needs no privilege, changes nothing."""
    by_name = defined(config)
    up = {bridge: membership.peek_info(work, bridge) for bridge in work.state.networks()}
    there = host_facts.existing(tuple(network.bridge for network in by_name))
    found = []
    for network in by_name:
        info = up.pop(network.bridge, None)
        subnet = network.subnet
        address = f"{subnet.first}/{subnet.length}" if subnet else ""
        six = network.subnet6
        address6 = f"{six.gateway}/{six.length}" if six else ""
        state = UP if info else _without_state(network.bridge) if network.bridge in there else DOWN
        known = NetworkSummary(network.name, network.mode, network.bridge, state, address, address6)
        found.append(_as_it_is(known, info) if info else known)
    strays = [info for info in up.values() if info]
    found += [_as_it_is(NetworkSummary(i.name, i.mode, i.bridge, UP), i) for i in strays]
    return [_in_use(known, (chosen or config.default) == known.name, work) for known in found]


def _without_state(bridge: str) -> str:
    """Return LEFT if qemu-netwrap made a bridge that has no state, else FOREIGN."""
    link = host_facts.link(bridge)
    return LEFT if link is not None and host_facts.is_ours(link) else FOREIGN


def find(name: str, known: list[NetworkSummary]) -> NetworkSummary:
    """Return the network of that name, or on that bridge. Raises `UsageError`."""
    for network in known:
        if name in (network.name, network.bridge):
            return network
    names = [network.name for network in known]
    near = suggestion(name, names)
    raise UsageError(
        f"{name}: there is no such network", f"{near}known networks are {', '.join(names)}"
    )


def _as_it_is(known: NetworkSummary, info: membership.NetworkInfo) -> NetworkSummary:
    """Return a network with the mode and addresses that it is up with."""
    if not info.mode:
        return known.replace(name=known.name or info.bridge, state=DAMAGED)
    return known.replace(mode=info.mode, address=info.address, address6=info.address6)


def _in_use(known: NetworkSummary, is_default: bool, work: Context) -> NetworkSummary:  # noqa: FBT001 - told by its name
    """Return a network with its members, and whether it is kept and the default."""
    runs = membership.members(known.bridge, work)
    kept = membership.is_kept(known.bridge, work)
    return known.replace(runs=runs, kept=kept, is_default=is_default)
