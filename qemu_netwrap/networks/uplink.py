"""The uplink of a bridge: checks on a NIC of the host, and the resources to attach it."""

from __future__ import annotations

from qemu_netwrap.errors import HostError
from qemu_netwrap.model.host import UplinkCandidate
from qemu_netwrap.resources.uplink import BridgeUplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.host import NetworkFacts
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.resources.links import Bridge

KERNELS_DELAY = 15  # seconds, net/bridge/br_device.c
_WAY_OUT = "use nat: guests then reach what the host reaches"


def resources(network: Network, facts: NetworkFacts, bridge: Bridge) -> tuple[Resource, ...]:
    """Return BRIDGE with the NIC's MAC, and the uplink; nothing if the NIC is its port already.

    STP and timers are set with the uplink, not with the bridge: a bridge with STP keeps a new port
    from forwarding for twice the forward delay, which would cut off the NIC. Raises `HostError` if
    the NIC cannot be attached.
    """
    nic = facts.uplink or UplinkCandidate(network.uplink, exists=False)
    if facts.bridge_exists:
        if nic.master == network.bridge:
            return ()
        raise HostError(
            f"network {network.name}: bridge {network.bridge} is there already, without uplink"
            f" {nic.name}",
            f"a bridge of yours is left as it is: put {nic.name} into it, or name another bridge",
        )
    _check(network, nic)
    plain = bridge.replace(mac=nic.mac, stp=False, forward_delay=0, hello_time=-1)
    delay = KERNELS_DELAY if bridge.forward_delay < 0 else bridge.forward_delay
    timers = (bridge.stp, delay, bridge.hello_time)
    addresses = " ".join(nic.addresses)
    return plain, BridgeUplink(nic.name, network.bridge, *timers, addresses, nic.routes)


def _check(network: Network, nic: UplinkCandidate) -> None:
    """Raise `HostError` if the NIC cannot be attached, or must not be."""
    where = f"network {network.name}: uplink {nic.name}"
    if not nic.exists:
        raise HostError(f"{where}: there is no such interface", "see: ip link")
    if nic.unfit:
        raise HostError(f"{where}: {nic.unfit}", _WAY_OUT)
    if nic.master:
        raise HostError(
            f"{where}: it is a port of {nic.master} already",
            f"if that is a bridge, use it: br={nic.master}",
        )
    if nic.manager:
        raise HostError(
            f"{where}: {nic.manager} manages it, and would take back what is moved",
            f"have that make the bridge, and name it by br= without uplink=; or {_WAY_OUT}",
        )
    if nic.is_default and not network.agreed:
        raise HostError(
            f"{where}: this host is reached by it: {', '.join(nic.addresses) or 'its addresses'}"
            f" and its routes would move to {network.bridge} until the last VM exits",
            "connections live on, and everything is rolled back if the gateway does not answer:"
            " pass --yes-uplink, or set uplink= in the configuration",
        )
