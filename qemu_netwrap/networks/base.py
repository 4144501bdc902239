"""What a network mode is: its driver, one class in a module of its own, found by the registry.

The registry (`model.network.MODES`) holds what must be known of a mode without loading its driver.
"""

from __future__ import annotations

from qemu_netwrap import networks, resources
from qemu_netwrap.model.host import Needs
from qemu_netwrap.model.network import MODES
from qemu_netwrap.model.run import Attachment
from qemu_netwrap.record import Record
from qemu_netwrap.resources.links import tap_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qemu_netwrap.model.host import NetworkFacts, WayOut
    from qemu_netwrap.model.network import Network
    from qemu_netwrap.model.run import TapDescriptors, TapRequest
    from qemu_netwrap.resources.base import Resource
    from qemu_netwrap.resources.port_filters import IpFilter, MacFilter

    Reader = Callable[[object], object]


class NicRequest(Record):
    """A NIC that is to be made on a network that is up."""

    nic: TapRequest
    run: str
    address: str = ""  # the network's gateway, with its prefix length; empty without one
    address6: str = ""  # the same for IPv6
    attached: Resource | None = None  # QEMU's own tap, to be plugged in as it is


class NetworkDriver:
    """One network mode. The defaults are those of a bridge with a tap for each NIC.

    All is pure: facts about the host come in as arguments. What is returned is acquired in order,
    and released backwards. `HostError` tells that this host cannot have it.
    """

    def readers(self) -> Mapping[str, Reader]:
        """Return the keys of [networks.NAME], in the order in which they are shown.

        A reader turns a value of TOML into one of `Network`, or raises `ValueError` with what was
        expected. A key that `Network` has no field for goes into `Network.own`.
        """
        return networks.keys.BRIDGED

    def needs(self, network: Network) -> Needs:
        """Return what making NETWORK needs to know of the host."""
        return Needs()

    def network_resources(self, network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
        """Return what the network consists of; nothing when its bridge is somebody else's.

        Rules come before what makes the host forward: no packet is forwarded that they have not
        seen. Each network has a bridge, by which it is known, or joins one that is there.
        """
        raise NotImplementedError

    def nic_resources(self, request: NicRequest) -> tuple[Resource, ...]:
        """Return what a NIC consists of, before its MACs are chosen: a tap on the bridge."""
        nic = request.nic
        return (request.attached or tap_of(nic), *_ip_filter(request))

    def nic_filters(self, request: NicRequest, macs: Sequence[str]) -> tuple[Resource, ...]:
        """Return what keeps a NIC to the MACs that it got, else what has DHCP serve it anyway."""
        filters = mac_filter(request.nic, macs, request.run)
        if filters or not request.address:
            return filters
        return (resources.dhcp_hosts.AnyClient(request.nic.network.bridge, request.nic.tap),)

    def attachment(self, nic: TapRequest, grant: TapDescriptors) -> Attachment:
        """Return what QEMU's netdev becomes: the tap's descriptors, of which GRANT has the numbers.

        They are those that the NIC's resources have put into `Context.taps` by its tap's name.
        """
        return descriptors(grant)

    def follow_host(self, network: Network, came: WayOut) -> tuple[Resource, ...]:
        """Return what a network that is up needs for a device that a default route leaves by now.

        It is asked for modes with `has_way_out`. Of NETWORK its name and bridge are known.
        """
        return ()


def driver(mode: str) -> NetworkDriver:
    """Return the driver of a mode, whose module is loaded by its name in the registry."""
    found: type[NetworkDriver] = getattr(networks, MODES[mode].driver).Driver
    return found()


def nic_driver(network: Network) -> NetworkDriver:
    """Return who says what a NIC on NETWORK consists of: its driver, if it has ways of its own."""
    return NetworkDriver() if network.traits.has_plain_nics else driver(network.mode)


def network_resources(network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
    """Return what making NETWORK takes, in order; nothing when its bridge is somebody else's.

    That is what its driver says, and what it needs beside other firewalls and servers. Raises
    `HostError` when the network cannot be made here.
    """
    made = driver(network.mode).network_resources(network, host)
    if host.others is None:
        return made
    return networks.coexistence.completed(network, host, host.others, made)


def descriptors(grant: TapDescriptors) -> Attachment:
    """Return a tap of one or more queues by its descriptors, and those of vhost-net."""
    many = len(grant.fds) > 1
    pairs = [("fds" if many else "fd", ":".join(grant.fds))]
    if grant.vhost_fds:
        pairs.append(("vhostfds" if many else "vhostfd", ":".join(grant.vhost_fds)))
    return Attachment("tap", tuple(pairs))


def _ip_filter(request: NicRequest) -> tuple[IpFilter, ...]:
    """Return what keeps a NIC's guest from what only the network's own servers say, if anything."""
    nic = request.nic
    if not nic.filters_ips:
        return ()
    gateways = " ".join(filter(None, (request.address, request.address6)))
    return (resources.port_filters.IpFilter(nic.tap, nic.network.bridge, gateways, nic.foreign),)


def mac_filter(nic: TapRequest, macs: Sequence[str], run: str) -> tuple[MacFilter, ...]:
    """Return what keeps a NIC of RUN, which got MACS, from sending with others'.

    Nothing does where the MACs are not known, of a NIC that is added later say, or may become
    others, and where the tap has more than the guest behind it.
    """
    if nic.restored or not (macs and nic.is_alone and nic.network.filters_macs):
        return ()
    wanted = (nic.tap, " ".join(macs), nic.network.bridge, run)
    return (resources.port_filters.MacFilter(*wanted),)
