"""The interface of a network mode: its driver, a class in its own module, found by the registry.

The registry (`model.network.MODES`) holds what is needed of a mode without loading its driver.
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
    """A NIC to be set up on a network that is up."""

    nic: TapRequest
    run: str
    address: str = ""  # the network's gateway, with its prefix length; empty without one
    address6: str = ""  # the same for IPv6
    attached: Resource | None = None  # QEMU's own tap, to be attached as it is


class NetworkDriver:
    """One network mode. The defaults are those of a bridge with a tap for each NIC.

    All methods are pure: facts about the host are arguments. The returned resources are acquired
    in order and released in reverse. They raise `HostError` if this host cannot provide them.
    """

    def readers(self) -> Mapping[str, Reader]:
        """Return the keys of [networks.NAME], in the order in which they are shown.

        A reader converts a TOML value for a field of `Network`, or raises `ValueError` that says
        what was expected. The value of a key without a field goes into `Network.own`.
        """
        return networks.keys.BRIDGED

    def needs(self, network: Network) -> Needs:
        """Return which facts about the host are needed to create NETWORK."""
        return Needs()

    def network_resources(self, network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
        """Return the network's resources; none if its bridge is not qemu-netwrap's.

        The rules precede the forwarding sysctls, so that no packet is forwarded unfiltered. A
        network is identified by its bridge, which it creates, or which exists already.
        """
        raise NotImplementedError

    def nic_resources(self, request: NicRequest) -> tuple[Resource, ...]:
        """Return a NIC's resources that do not depend on its MACs: a tap on the bridge."""
        nic = request.nic
        return (request.attached or tap_of(nic), *_ip_filter(request))

    def nic_filters(self, request: NicRequest, macs: Sequence[str]) -> tuple[Resource, ...]:
        """Return the filter for a NIC's own MACs; without one, an entry so that DHCP serves it."""
        filters = mac_filter(request.nic, macs, request.run)
        if filters or not request.address:
            return filters
        return (resources.dhcp_hosts.AnyClient(request.nic.network.bridge, request.nic.tap),)

    def attachment(self, nic: TapRequest, grant: TapDescriptors) -> Attachment:
        """Return what replaces QEMU's netdev: a tap by the descriptors whose numbers GRANT has.

        The NIC's resources have put these descriptors into `Context.taps` under the tap's name.
        """
        return descriptors(grant)

    def follow_host(self, network: Network, came: WayOut) -> tuple[Resource, ...]:
        """Return what a network that is up needs for a new way out, the device in CAME.

        Only called for modes with `has_way_out`. Of NETWORK only the name and bridge are set.
        """
        return ()


def driver(mode: str) -> NetworkDriver:
    """Return the driver of a mode; the registry names its module, which is loaded here."""
    found: type[NetworkDriver] = getattr(networks, MODES[mode].driver).Driver
    return found()


def nic_driver(network: Network) -> NetworkDriver:
    """Return the driver for NICs on NETWORK: its mode's, or the default if its NICs are plain."""
    return NetworkDriver() if network.traits.has_plain_nics else driver(network.mode)


def network_resources(network: Network, host: NetworkFacts) -> tuple[Resource, ...]:
    """Return the resources of NETWORK, in order; none if its bridge is not qemu-netwrap's.

    These are its driver's, and those needed for coexistence with other firewalls and servers.
    Raises `HostError` if the network cannot be created on this host.
    """
    made = driver(network.mode).network_resources(network, host)
    if host.others is None:
        return made
    return networks.coexistence.completed(network, host, host.others, made)


def descriptors(grant: TapDescriptors) -> Attachment:
    """Return a tap with one or more queues by its descriptors, and those of vhost-net if any."""
    many = len(grant.fds) > 1
    pairs = [("fds" if many else "fd", ":".join(grant.fds))]
    if grant.vhost_fds:
        pairs.append(("vhostfds" if many else "vhostfd", ":".join(grant.vhost_fds)))
    return Attachment("tap", tuple(pairs))


def _ip_filter(request: NicRequest) -> tuple[IpFilter, ...]:
    """Return the filter against guests that pose as the network's servers; empty without one."""
    nic = request.nic
    if not nic.filters_ips:
        return ()
    gateways = " ".join(filter(None, (request.address, request.address6)))
    return (resources.port_filters.IpFilter(nic.tap, nic.network.bridge, gateways, nic.foreign),)


def mac_filter(nic: TapRequest, macs: Sequence[str], run: str) -> tuple[MacFilter, ...]:
    """Return the filter that drops what a NIC of RUN sends with other source MACs than MACS.

    There is none if the MACs are not known (a hot-plugged NIC) or may change (a restored guest),
    nor if the tap shares a hub with other netdevs.
    """
    if nic.restored or not (macs and nic.is_alone and nic.network.filters_macs):
        return ()
    wanted = (nic.tap, " ".join(macs), nic.network.bridge, run)
    return (resources.port_filters.MacFilter(*wanted),)
