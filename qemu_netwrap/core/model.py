"""What the rest speaks of: networks, the NICs of a run, and facts about the host."""

from __future__ import annotations

from qemu_netwrap.core import mac
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.core.hostfwd import Forward
    from qemu_netwrap.core.ipv4 import Subnet
    from qemu_netwrap.core.ipv6 import Around6, Prefix
    from qemu_netwrap.core.neighbours import Neighbours

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


class Route(Record):
    """One IPv4 unicast route: what it reaches, through which device, in which table."""

    subnet: Subnet
    device: str
    table: int = 254

    def __str__(self) -> str:
        """Name the route as `ip route` would."""
        where = str(self.subnet) if self.subnet.length else "default"
        table = "" if self.table == 254 else f" table {self.table}"
        return f"{where} dev {self.device}{table}"


class Candidate(Record):
    """A NIC of the host that is to be an uplink, as it is now."""

    name: str
    exists: bool = True
    mac: str = ""
    unfit: str = ""  # why it cannot be bridged at all: `Wi-Fi`, …
    master: str = ""  # the bridge or bond whose port it is
    manager: str = ""  # the program that would undo it
    is_default: bool = False  # a default route leaves by it
    addresses: tuple[str, ...] = ()  # with their prefix lengths, but for link-local ones
    routes: int = 0  # that somebody has set: the kernel's own not counted


class Surroundings(Record):
    """What of the host matters for making one network."""

    bridge_exists: bool = False  # an interface of the bridge's name, whatever it is
    is_bridge: bool = True
    routes: tuple[Route, ...] = ()
    routers: tuple[str, ...] = ()  # devices whose IPv4 forwarding is on, and not by us
    inner: tuple[str, ...] = ("lo",)  # devices that lead nowhere: lo, bridges of our networks
    resolver: str = "/etc/resolv.conf"  # the file that names the host's DNS servers
    machine: str = ""  # the host's identity, which stable MACs are derived from
    reserved: tuple[Subnet, ...] = ()  # subnets that other networks of the configuration name
    mtu: int = 0  # of the device that the default route leaves by; 0 without one
    six: Around6 | None = None  # of IPv6; None for a network that has none of it
    uplink: Candidate | None = None  # the NIC that the network's bridge is to take in
    neighbours: Neighbours | None = None  # None: nobody else has a say
    in_order: bool = False  # whether the host's DNS servers are asked in their order
    is_left: bool = False  # the bridge is of our making, and its state has been removed


class Nic(Record):
    """A tap that the command line asks of us, and the guest's NICs behind it.

    That is one NIC but for QEMU's hub (-net), which may have several or none.
    """

    label: str  # as messages call it: the netdev's id, or the option as typed
    network: Network
    tap: str  # the interface's name
    macs: tuple[str, ...] = ()  # one a guest NIC: the user's, or empty where it is ours to give
    mac_key: tuple[str, ...] = ()  # what MACs of ours are derived from
    queues: int = 1
    vhost: bool = False
    vnet_hdr: bool = True
    foreign: bool = False  # QEMU has made the tap: it is only plugged
    forwards: tuple[Forward, ...] = ()  # ports of the host that lead to it
    is_alone: bool = True  # no other netdev's packets come by this tap, as they do on a hub
    restored: bool = False  # QEMU loads a state, and with it perhaps another MAC
    incoming: bool = False  # that state comes from another QEMU, which may be here still

    @property
    def filters_ips(self) -> bool:
        """Whether what it sends goes through its network's filter block."""
        return self.is_alone and self.network.filters_ips

    @property
    def is_guarded(self) -> bool:
        """Whether no other guest of its network can speak for its addresses."""
        return self.filters_ips and not self.restored

    def own_mac(self, number: int, attempt: int = 0) -> str:
        """Return a MAC of ours for guest NIC NUMBER: always the same; another each ATTEMPT."""
        return mac.derive(*self.mac_key, str(number), attempt=attempt)


class Wanted(Record):
    """What a run asks for: its NICs, and what `ps` will say of it."""

    run: str
    nics: tuple[Nic, ...] = ()
    guest: str = ""  # the guest's host name
    command: str = ""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks the run needs, each once, in the order first named.

        Of several NICs on a bridge one may name its uplink.
        """
        found: dict[str, Network] = {}
        for network in (nic.network for nic in self.nics):
            known = found.setdefault(network.bridge, network)
            found[network.bridge] = known if known.uplink else network
        return tuple(found.values())


class Grant(Record):
    """What a NIC got: the tap's descriptors, one a queue, and those of vhost-net; its MACs."""

    fds: tuple[str, ...]
    vhost_fds: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
