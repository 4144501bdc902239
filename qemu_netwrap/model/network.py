"""Networks: what a configuration says of each, and the built-in ones."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Prefix

BRIDGE = "bridge"
NAT = "nat"
HOST_ONLY = "host-only"


class Network(Record):
    """A segment that runs share. Its identity on the host is its bridge."""

    name: str
    mode: str  # BRIDGE, NAT or HOST_ONLY
    bridge: str
    subnet: Subnet | None = None  # None: chosen when the network is made
    ipv6: bool = True  # whether it has IPv6 where the host has
    subnet6: Prefix | None = None  # None: derived from the host and the network's name
    dns: tuple[str, ...] = ()  # upstream servers; empty: the host's own
    hosts: tuple[tuple[str, str], ...] = ()  # names that its DNS knows beside the guests'
    addresses: tuple[tuple[str, str], ...] = ()  # for guests, by MAC or name
    host_services: tuple[str, ...] | None = (
        None  # of the host, open to guests; None: as the host is
    )
    tftp: str = ""  # the folder whose files guests get by TFTP; empty: none
    bootfile: str = ""  # what DHCP tells guests to boot
    stp: bool = False
    forward_delay: int | None = None  # seconds; None: 0 without STP, the kernel's 15 with
    hello_time: int | None = None  # seconds; None: the kernel's 2
    uplink: str = ""  # the host's NIC that the bridge takes in when it is made
    isolated: bool = False  # whether its guests are kept from each other
    mac_filter: bool | None = None  # guests send with their own MACs alone; None: as by the mode
    ip_filter: bool | None = None  # guests are no DHCP servers or routers; None: as mac_filter
    agreed: bool = False  # whether it may be the NIC that the host is reached by

    @property
    def filters_macs(self) -> bool:
        """Whether its guests send with their own MACs alone."""
        return self.mode != BRIDGE if self.mac_filter is None else self.mac_filter

    @property
    def filters_ips(self) -> bool:
        """Whether its guests are kept from what only a network's own servers say."""
        return self.filters_macs if self.ip_filter is None else self.ip_filter


class Config(Record):
    """The configuration: named networks, and which of them is the default."""

    default: str = ""
    networks: tuple[Network, ...] = ()
    path: str = ""  # where it was read from; empty when there is none
    bind_group: bool = False  # whether a passed device's whole IOMMU group goes to vfio-pci

    def network(self, name: str) -> Network | None:
        """Return the network of that name."""
        return next((n for n in self.networks if n.name == name), None)

    def by_bridge(self, bridge: str) -> Network | None:
        """Return the network on that bridge."""
        return next((n for n in self.networks if n.bridge == bridge), None)
