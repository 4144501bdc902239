"""Facts about the host needed to create a network: routes, its uplink, other firewalls."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.coexistence import CoexistenceFacts
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Ipv6Facts


class Route(Record):
    """One IPv4 unicast route: its destination, device and table (254 is main)."""

    subnet: Subnet
    device: str
    table: int = 254

    def __str__(self) -> str:
        """Return the route as `ip route` prints it."""
        where = str(self.subnet) if self.subnet.length else "default"
        table = "" if self.table == 254 else f" table {self.table}"
        return f"{where} dev {self.device}{table}"


class UplinkCandidate(Record):
    """The present state of a host NIC that is to become an uplink."""

    name: str
    exists: bool = True
    mac: str = ""
    unfit: str = ""  # why it cannot be bridged: `Wi-Fi`, …
    master: str = ""  # the bridge or bond that it is a port of
    manager: str = ""  # the program that would undo the move to the bridge
    is_default: bool = False  # a default route leaves by it
    addresses: tuple[str, ...] = ()  # with their prefix lengths, without link-local ones
    routes: int = 0  # their number, without those that the kernel adds itself


class Needs(Record):
    """Which host facts a network needs, besides those on its bridge and other software."""

    places: tuple[Subnet, ...] = ()  # IPv4 routes to these, and where default routes leave
    way_out: bool = False  # the MTU of the device that the default route leaves by
    ipv6: bool = False  # whether and how the host has IPv6
    uplink: str = ""  # facts about this NIC


class WayOut(Record):
    """A device by which a default route of the host leaves now, and did not before."""

    device: str
    ipv6: Ipv6Facts | None = None  # set, with its routes, for an IPv6 default route; None: IPv4


class NetworkFacts(Record):
    """The facts about the host that are needed to create one network."""

    bridge_exists: bool = False  # an interface of that name, of any type
    is_bridge: bool = True
    routes: tuple[Route, ...] = ()
    routers: tuple[str, ...] = ()  # devices on which another program enabled IPv4 forwarding
    inner: tuple[str, ...] = ("lo",)  # no way out: lo, bridges of our networks
    resolver: str = "/etc/resolv.conf"  # the file that names the host's DNS servers
    machine: str = ""  # the host's identity, from which stable MACs are derived
    reserved: tuple[Subnet, ...] = ()  # subnets of other networks in the configuration
    mtu: int = 0  # of the device that the default route leaves by; 0 without one
    ipv6: Ipv6Facts | None = None  # None for a network without IPv6
    uplink: UplinkCandidate | None = None  # the NIC to attach to the network's bridge
    others: CoexistenceFacts | None = None  # None: no other software matters
    in_order: bool = False  # whether the host queries its DNS servers in order
    is_left: bool = False  # qemu-netwrap made the bridge, but its state is gone
