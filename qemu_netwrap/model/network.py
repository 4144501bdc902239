"""Networks: their modes, the settings of each network, and the built-in ones."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Prefix

BRIDGE = "bridge"
NAT = "nat"
HOST_ONLY = "host-only"
UPLINK_HELPERS = ("auto", "pasta", "slirp4netns")  # what leads out of a user's realm


class Mode(Record):
    """A mode's traits, known without its driver, which most launches do not load."""

    driver: str  # a module of `networks`, whose class `Driver` returns a network's resources
    is_plain: bool = False  # just a bridge: a run may also join a network of another mode on it
    is_routed: bool = False  # it has a subnet, with the host's address in it and dnsmasq
    has_way_out: bool = False  # guests use the host's routes; it adapts to their changes
    takes_uplink: bool = False  # a NIC of the host can be a port of it
    allows_hostfwd: bool = False  # ports of the host can lead to its guests
    filters_macs: bool = False  # guests may send with their own MACs only, by default
    is_type: bool = False  # also a netdev type (`-nic nat`) and a built-in network
    has_plain_nics: bool = False  # NICs as in `NetworkDriver`: its own driver need not load


# The registry: a new mode is a line here, and a driver.
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
# For the mode of another version's network that is up: nothing is assumed of it.
_UNKNOWN = Mode("", is_routed=True)


def traits(mode: str) -> Mode:
    """Return the traits of a mode, with a fallback for one that this version does not have."""
    return MODES.get(mode, _UNKNOWN)


def types() -> tuple[str, ...]:
    """Return the modes that are netdev types and names of built-in networks."""
    return tuple(name for name, mode in MODES.items() if mode.is_type)


class Network(Record):
    """A segment that runs share. On the host its bridge identifies it."""

    name: str
    mode: str  # of MODES
    bridge: str
    subnet: Subnet | None = None  # None: chosen when the network is created
    ipv6: bool = True  # whether it has IPv6 where the host has
    subnet6: Prefix | None = None  # None: derived from the host and the network's name
    dns: tuple[str, ...] = ()  # upstream servers; empty: the host's own
    hosts: tuple[tuple[str, str], ...] = ()  # additional names for its DNS, with their addresses
    addresses: tuple[tuple[str, str], ...] = ()  # reserved for guests: (MAC or name, address)
    host_services: tuple[str, ...] | None = (
        None  # of the host, open to guests; None: as by the host's firewall
    )
    tftp: str = ""  # the folder whose files guests get by TFTP; empty: none
    bootfile: str = ""  # the file that DHCP tells guests to boot
    stp: bool = False
    forward_delay: int | None = None  # seconds; None: 0 without STP, the kernel's 15 with
    hello_time: int | None = None  # seconds; None: the kernel's 2
    uplink: str = ""  # the host NIC to attach when the bridge is created
    isolated: bool = False  # whether its guests are kept from each other
    mac_filter: bool | None = None  # guests send with their own MACs only; None: as by the mode
    ip_filter: bool | None = None  # guests are no DHCP servers or routers; None: as mac_filter
    agreed: bool = False  # whether the uplink may carry the host's connection
    own: tuple[tuple[str, object], ...] = ()  # (key, value) of settings that only its mode has

    @property
    def traits(self) -> Mode:
        """The traits of its mode."""
        return traits(self.mode)

    def setting(self, key: str) -> object:
        """Return the value of a key of the configuration; None if it is not set."""
        return getattr(self, key) if key in self.fields else dict(self.own).get(key)

    @property
    def filters_macs(self) -> bool:
        """Whether its guests may send with their own MACs only."""
        return self.traits.filters_macs if self.mac_filter is None else self.mac_filter

    @property
    def filters_ips(self) -> bool:
        """Whether its guests are kept from posing as the network's servers or gateway."""
        return self.filters_macs if self.ip_filter is None else self.ip_filter


INVOKER = "invoker"  # the value of run_as


class Config(Record):
    """The configuration: named networks, and which of them is the default."""

    default: str = ""
    networks: tuple[Network, ...] = ()
    path: str = ""  # of the file that was read; empty if there is none
    bind_group: bool = False  # whether to bind the whole IOMMU group of a device to vfio-pci
    uplink_helper: str = UPLINK_HELPERS[0]
    run_as: str = ""  # INVOKER: QEMU runs as the user who called sudo, unless --run-as names one

    def network(self, name: str) -> Network | None:
        """Return the network of that name; None if there is none."""
        return next((n for n in self.networks if n.name == name), None)

    def by_bridge(self, bridge: str) -> Network | None:
        """Return the network on that bridge; None if there is none."""
        return next((n for n in self.networks if n.bridge == bridge), None)
