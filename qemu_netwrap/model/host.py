"""Facts about the host that matter for making one network: routes, its uplink, other firewalls."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.coexistence import CoexistenceFacts
    from qemu_netwrap.model.ipv4 import Subnet
    from qemu_netwrap.model.ipv6 import Ipv6Facts


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


class UplinkCandidate(Record):
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


class Needs(Record):
    """What making a network needs to know of the host, beyond its bridge and who else is there."""

    places: tuple[Subnet, ...] = ()  # IPv4 routes to these, and where default routes leave
    way_out: bool = False  # the device that the default route leaves by: its MTU
    ipv6: bool = False  # whether and how the host has IPv6
    uplink: str = ""  # this NIC


class WayOut(Record):
    """A device that a default route of the host leaves by now, and did not before."""

    device: str
    ipv6: Ipv6Facts | None = None  # with the routes by it, where it is IPv6's; None: IPv4's


class NetworkFacts(Record):
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
    ipv6: Ipv6Facts | None = None  # of IPv6; None for a network that has none of it
    uplink: UplinkCandidate | None = None  # the NIC that the network's bridge is to take in
    others: CoexistenceFacts | None = None  # None: nobody else has a say
    in_order: bool = False  # whether the host's DNS servers are asked in their order
    is_left: bool = False  # the bridge is of our making, and its state has been removed
