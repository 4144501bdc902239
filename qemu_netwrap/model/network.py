"""Networks: their modes, what a configuration says of each, and the built-in ones."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Prefix

BRIDGE = "bridge"
NAT = "nat"
HOST_ONLY = "host-only"


class Mode(Record):
    """What is known of a network mode without its driver, which most launches do not load."""

    driver: str  # a module of `networks`; its class `Driver` says what such a network consists of
    is_plain: bool = False  # just a bridge: what is up on it in another mode can be joined too
    is_routed: bool = False  # a subnet of its own, the host's address in it, and dnsmasq on that
    has_way_out: bool = False  # guests leave by the host's routes, which it follows
    takes_uplink: bool = False  # a NIC of the host can be a port of it
    allows_hostfwd: bool = False  # ports of the host can lead to its guests
    filters_macs: bool = False  # guests send with their own MACs alone, if nothing else is set
    is_type: bool = False  # a netdev's type too (`-nic nat`), and a network of that name
    has_plain_nics: bool = False  # its driver does with NICs what all do: it need not be asked


# The registry: a mode is a line here, and a driver.
MODES = {
    BRIDGE: Mode("bridge", is_plain=True, takes_uplink=True, has_plain_nics=True),
    NAT: Mode(
        "nat",
        is_routed=True,
        has_way_out=True,
        allows_hostfwd=True,
        filters_macs=True,
        is_type=True,
        has_plain_nics=True,
    ),
    HOST_ONLY: Mode(
        "host_only", is_routed=True, filters_macs=True, is_type=True, has_plain_nics=True
    ),
}
# Of a network that is up as another version has made it: nothing is taken to lie behind it.
_UNKNOWN = Mode("", is_routed=True)


def traits(mode: str) -> Mode:
    """Return what is known of a mode, also of one that this version does not have."""
    return MODES.get(mode, _UNKNOWN)


def types() -> tuple[str, ...]:
    """Return the modes that are types of a netdev, and names of built-in networks."""
    return tuple(name for name, mode in MODES.items() if mode.is_type)


class Network(Record):
    """A segment that runs share. Its identity on the host is its bridge."""

    name: str
    mode: str  # of MODES
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
    own: tuple[tuple[str, object], ...] = ()  # by key: what its mode alone has, and no field here

    @property
    def traits(self) -> Mode:
        """What is known of its mode."""
        return traits(self.mode)

    def setting(self, key: str) -> object:
        """Return the value of a key of the configuration; None where it is not set."""
        return getattr(self, key) if key in self.fields else dict(self.own).get(key)

    @property
    def filters_macs(self) -> bool:
        """Whether its guests send with their own MACs alone."""
        return self.traits.filters_macs if self.mac_filter is None else self.mac_filter

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
