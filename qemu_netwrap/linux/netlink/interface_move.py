"""Moving an interface's configuration to another: addresses, routes, nexthops, neighbours, rules.

Both directions work alike: addresses are added to the other interface, then routes are replaced in
their places, then the old addresses are deleted. The host stays reachable: a packet that arrives at
either interface finds its address, and there is always a route. That holds for a SIGKILL at any
time, too: nothing is deleted before it has been added elsewhere.
"""

from __future__ import annotations

import _socket
import errno

from qemu_netwrap import record_text
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import polling
from qemu_netwrap.linux.netlink import interface_copy
from qemu_netwrap.linux.netlink import messages as rt
from qemu_netwrap.linux.netlink.interface_copy import InterfaceConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.netlink.interface_copy import InterfaceNetlink
    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.linux.netlink.messages import Rule

_ROUNDS = 3  # what is added to the NIC during a move is moved in the next round
_CARRIER_TIMEOUT = 5.0  # seconds for the bridge to come up with its first port
_GATEWAY_TIMEOUT = 5.0  # seconds for a gateway to answer
_POLL_INTERVAL = 0.005  # seconds


def take(
    mover: InterfaceNetlink, nic: Link, bridge: Link, had: InterfaceConfig, rules: list[Rule]
) -> None:
    """Move the configuration of the NIC to the bridge, and make the NIC its port."""
    has = mover.belongings(bridge.index)
    was_running = mover.is_running(nic.index)
    first = [
        *interface_copy.addresses_given(had, has, nic, bridge),
        *interface_copy.neighbours_told(had, has, bridge),
        *(rule.added for rule in rules),
        rt.set_master(nic.index, bridge.index),
    ]
    try:
        mover.batch(first)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise HostError(
            f"uplink {nic.name}: something sits on it already: a macvlan, an ipvlan or a bond",
            f"see: ip -d link; that must go first, or take another NIC than {nic.name}",
        ) from error
    # Packets still leave by the NIC; by the bridge only after it has seen its port's carrier.
    if was_running:
        polling.wait_until(lambda: mover.is_running(bridge.index), _CARRIER_TIMEOUT, _POLL_INTERVAL)
    for _ in range(_ROUNDS):
        gateways = had.gateways(nic.index)
        mover.batch(
            [
                *interface_copy.routes_moved(had, nic, bridge),
                *interface_copy.probed(had, bridge, gateways),
                *interface_copy.addresses_taken(had, nic),
            ]
        )
        had = mover.belongings(nic.index)
        if had.is_bare:
            return
        has = mover.belongings(bridge.index)
        mover.batch(interface_copy.addresses_given(had, has, nic, bridge))
    raise HostError(
        f"uplink {nic.name}: another program keeps giving it addresses or routes",
        f"have the program that manages {nic.name} make the bridge, and use that by br=",
    )


def give_back(mover: InterfaceNetlink, bridge: Link, nic: Link, *, up: bool) -> None:
    """Move the configuration of the bridge to the NIC, which leaves it, and is then UP or not."""
    master = nic.master
    for _ in range(_ROUNDS):
        had, has = mover.belongings(bridge.index), mover.belongings(nic.index)
        if had.is_bare and not master:
            return
        leave = [rt.set_master(nic.index, 0, up=up)] if master == bridge.index else []
        mover.batch(
            [
                *interface_copy.addresses_given(_without_local(had), has, bridge, nic),
                *interface_copy.routes_moved(had, bridge, nic),
                *interface_copy.neighbours_told(had, has, nic),
                *leave,
                *interface_copy.addresses_taken(had, bridge),
            ]
        )
        master = 0
    raise HostError(
        f"uplink {nic.name}: another program keeps giving its addresses to {bridge.name}", ""
    )


def restore(mover: InterfaceNetlink, nic: Link, had: InterfaceConfig) -> None:
    """Restore the NIC's configuration, except families of which it has got addresses since."""
    has = mover.belongings(nic.index)
    taken = {address.body[0] for address in has.movable}
    lost = had.replace(
        addresses=tuple(a for a in had.movable if a.body[0] not in taken),
        routes=tuple(route for route in had.routes if route.body[0] not in taken),
    )
    mover.batch(interface_copy.addresses_given(lost, has, nic, nic))
    mover.batch(interface_copy.excused(lost, interface_copy.routes_added(lost, nic)))


def await_gateways(mover: InterfaceNetlink, nic: Link, bridge: Link, had: InterfaceConfig) -> None:
    """Wait until a default gateway of each family has answered. Raises `HostError`."""
    gateways = had.gateways(nic.index)
    silent = {family for family, _ in gateways}

    def is_answered() -> bool:
        for way in gateways:
            state = mover.neighbour(bridge.index, *way)
            if state & (rt.NUD_REACHABLE | rt.NUD_PERMANENT):
                silent.discard(way[0])
            elif state & rt.NUD_FAILED or not state:
                mover.batch([rt.probe_request(bridge.index, *way)])
        return not silent

    if not polling.wait_until(is_answered, _GATEWAY_TIMEOUT, _POLL_INTERVAL):
        names = ", ".join(_socket.inet_ntop(*way) for way in gateways if way[0] in silent)
        raise HostError(
            f"uplink {nic.name}: gateway {names} does not answer by {bridge.name}:"
            f" {nic.name} has everything back",
            f"the switch may allow one MAC a port; does it answer by {nic.name}? Else use nat",
        )


def _without_local(had: InterfaceConfig) -> InterfaceConfig:
    """Return a configuration without IPv6 link-local addresses, which the NIC has kept."""
    return had.replace(addresses=had.movable)


def as_text(ifname: str, had: InterfaceConfig) -> str:
    """Return an interface's configuration as a line of text, without what is not restored.

    Its kind is of two words: versions that wrote a line for each address fail at it, where they
    would find nothing otherwise.
    """
    kept = had.replace(by_object=(), neighbours=())
    return record_text.write(f"interface {ifname}", interface_copy.noted(kept)) + "\n"


def of_text(text: str) -> InterfaceConfig:
    """Return what `as_text` wrote, in this version or an older one; nothing for no text.

    Raises `KeyError` or `ValueError` on any other.
    """
    if text.startswith("at "):  # an older version's: the moment, and a line for each
        rows = (line.partition(" ") for line in text.splitlines())
        fields = {kind if kind == "at" else f"{kind}{n}": v for n, (kind, _, v) in enumerate(rows)}
        return interface_copy.of_noted(fields)
    return (
        interface_copy.of_noted(record_text.read(text.rstrip("\n"))[1])
        if text
        else InterfaceConfig()
    )


def by_index(mover: InterfaceNetlink, index: str) -> Link | None:
    """Return the interface with that index, whatever its name is now; None if it is gone."""
    return mover.link_at(int(index)) if index else None
