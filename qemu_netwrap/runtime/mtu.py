"""Checks of a NIC's host_mtu= against the MTU of its network."""

from __future__ import annotations

from qemu_netwrap.linux import host_facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.runtime.plan import Plan, PlannedNic

_ETHERNET = 1500


def notes(plan: Plan) -> Iterator[str]:
    """Yield a warning for each NIC whose host_mtu= is larger than the network's MTU."""
    for planned in plan.nics:
        given = (nic.entry.opts.get("host_mtu") for nic in planned.guest_nics)
        typed = max(map(_host_mtu, given), default=0)
        if typed and typed > (carried := _carried(planned)):
            network = planned.nic.network
            yield (
                f"{planned.nic.label}: host_mtu={typed} is more than {network.name} carries"
                f" ({carried}): larger frames are lost; leave it out, or use a bridge whose MTU is"
                f" {typed} (ip link set {network.bridge} mtu {typed})"
            )


def _host_mtu(text: str | None) -> int:
    """Return the value of host_mtu= in bytes; 0 if it is missing, or invalid for QEMU too."""
    try:
        return int(text or "0", 0)
    except ValueError:
        return 0


def _carried(planned: PlannedNic) -> int:
    """Return the MTU of a NIC's network: its bridge's, or the one that the bridge will have."""
    network = planned.nic.network
    link = host_facts.link(network.bridge) or (
        host_facts.link(network.uplink) if network.uplink else None
    )
    return link.mtu if link else _ETHERNET
