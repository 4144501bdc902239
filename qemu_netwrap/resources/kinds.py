"""Everything a run or a network can own on the host, as data that a journal can hold.

Fields are str, int or bool, so that a line of text holds them (record_text).
"""

from __future__ import annotations

from qemu_netwrap import record_text
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.model.run import Nic


class Resource(Record):
    """Something acquired and released. The class's name is its kind."""

    def to_line(self) -> str:
        """Return the resource as one line of text."""
        return record_text.write(
            type(self).__name__, {n: _write(v) for n, v in self.__dict__.items()}
        )


class Bridge(Resource):
    """A bridge that we make. Marked by its name with its MAC, then with its ifindex."""

    name: str
    mac: str
    stp: bool = False
    forward_delay: int = 0  # seconds; -1: the kernel's own
    hello_time: int = -1  # seconds; -1: the kernel's own
    open: bool = False  # others may put their ports into it, and it is then left to them
    mtu: int = 0  # 0: the kernel's own, which follows the ports
    group: int = 0  # the kernel's number for devices that rules tell together
    guarded: bool = False  # the host is nobody's guest on it: it has what it is given, no more
    filtered: bool = False  # at its ingress: see linux.ingress_filter
    link_local: str = ""  # its link-local address; empty: guarded it has none, else the kernel's

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """What net/ipv4/conf has of a guarded bridge: guests do not turn the host's routes.

        Redirects go by the source of a gateway elsewhere, which `rp_filter` drops.
        """
        return _GUARDED if self.guarded else ()


_GUARDED = (
    ("rp_filter", "1"),
    ("accept_redirects", "0"),
    ("accept_source_route", "0"),
    ("route_localnet", "0"),
)


class Uplink(Resource):
    """A NIC of the host, with all it has, in a bridge that we make. The bridge has its MAC."""

    device: str
    bridge: str
    stp: bool = False  # these three are set when the NIC is in: it is to forward at once
    forward_delay: int = 0
    hello_time: int = -1
    addresses: str = ""  # for those who read: separated by spaces
    routes: int = 0  # for those who read


class Address(Resource):
    """An address of either family with its prefix length on a device of ours."""

    device: str
    address: str


class DeviceSetting(Resource):
    """A sysctl under net/FAMILY/conf of a device we made; it goes with the device."""

    device: str
    family: str
    key: str
    value: str
    optional: bool = False  # the network does without where it cannot be set


class Forwarding(Resource):
    """IPv4 forwarding of what comes in by a device that is not ours; shared by networks."""

    device: str
    user: str  # the bridge of the network that needs it


_RESOLVER = "resolv-file"
_IN_ORDER = "strict-order"
ALL = "all"  # in the place of a device: the whole host


class Switch(Resource):
    """A setting under net/ipv6/conf of a device that is not ours, or of ALL; shared by networks.

    It is touched only where it is FORMER, and given back only where it is VALUE still.
    """

    device: str
    key: str
    former: str
    value: str
    user: str  # the bridge of the network that needs it


class Rules(Resource):
    """The chains of one network in our nftables table."""

    bridge: str
    rules: str


class Guard(Resource):
    """Policy rules by which the host forwards nothing that the network's chains have not marked.

    A flush of nft's rules does not take them away. Networks share those about the same device.
    """

    bridge: str
    doors: str  # one a line: `ipv4 iif eth0`, `ipv4 to 10.9.0.0/24`, `ipv6 all`

    @property
    def each(self) -> tuple[str, ...]:
        """The doors one by one. An interface's name may hold what `splitlines` takes for an end."""
        return tuple(self.doors.split("\n"))


class Lookout(Resource):
    """A process that has a network follow the host's way out while it lives."""

    bridge: str


class IptablesAccepts(Resource):
    """Accepts of ours at the head of chains of somebody else's iptables."""

    bridge: str
    program: str  # `iptables-nft`, `ip6tables-legacy`, …
    mark: str  # the comment by which they are told
    rules: str  # one a line, as iptables-restore(8) reads them
    table: str = "filter"


class NftAccepts(Resource):
    """Accepts of ours at the head of a chain of somebody else's nft table."""

    bridge: str
    family: str
    table: str
    chain: str
    mark: str  # the comment by which they are told
    rules: str  # one a line, as nft(8) reads them, without the comment


class FirewalldZone(Resource):
    """A bridge of ours in one of firewalld's zones, at run time."""

    bridge: str
    zone: str


class Unmanaged(Resource):
    """A network's devices that a network manager is told to leave alone."""

    bridge: str
    manager: str


class Remark(Resource):
    """Something in the network's way that is for the user to change. Nothing is made of it."""

    bridge: str
    text: str


def resolver_lines(path: str, *, in_order: bool) -> list[str]:
    """Return how dnsmasq is told of the host's name servers: last in its configuration."""
    return [*([_IN_ORDER] if in_order else []), f"{_RESOLVER}={path}"]


class Dnsmasq(Resource):
    """The DHCP and DNS server of one network: the text of its configuration file."""

    bridge: str
    config: str
    duid: str = ""  # what DHCPv6 tells servers apart by; empty without DHCPv6

    @property
    def resolver(self) -> str:
        """The file that it learns the host's name servers from; empty when it does not."""
        lines = (line.partition("=") for line in self.config.splitlines())
        return next((value for key, _, value in lines if key == _RESOLVER), "")

    def with_resolver(self, path: str, *, in_order: bool) -> Dnsmasq:
        """Return the same server with another such file, its name servers asked in order or not."""
        known = (f"{_RESOLVER}={self.resolver}", _IN_ORDER)
        others = [line for line in self.config.splitlines() if line not in known]
        lines = [*others, *resolver_lines(path, in_order=in_order)]
        return self.replace(config="".join(f"{line}\n" for line in lines))


class Forwards(Resource):
    """The chains by which ports of the host lead to what is behind a tap."""

    tap: str
    rules: str


class Membership(Resource):
    """A run's use of a network: the first makes the network, the last takes it down."""

    bridge: str
    run: str


class HostName(Resource):
    """The DNS name of a guest's NIC on a network of ours, and the address that is its alone."""

    bridge: str
    run: str
    mac: str
    name: str
    address: str = ""  # empty: whatever DHCP gives it
    address6: str = ""  # the same for DHCPv6
    guarded: bool = False  # no other guest of the network can speak for these addresses


class AnyClient(Resource):
    """A tap whose guests' MACs are not known: its network's DHCP serves every MAC meanwhile."""

    bridge: str
    tap: str


class Tap(Resource):
    """A tap on a bridge. It lives as long as somebody holds a descriptor of it."""

    name: str
    bridge: str
    queues: int = 1
    vnet_hdr: bool = True
    isolated: bool = False  # from the bridge's other isolated ports
    checksums: bool = False  # DHCP's are filled in

    @property
    def traffic_control(self) -> tuple[str, ...]:
        """What tc(8) is told so that they are (tc-u32(8), tc-csum(8)): each line a command."""
        if not self.checksums:
            return ()
        answers = "u32 match ip protocol 17 0xff match ip sport 67 0xffff"
        return (
            f"qdisc replace dev {self.name} clsact",
            f"filter add dev {self.name} egress protocol ip {answers} action csum udp",
        )


def tap_of(nic: Nic) -> Tap:
    """Return the tap that a NIC has on its network's bridge.

    QEMU fills in DHCP's checksums (hw/net/virtio-net.c, `work_around_broken_dhclient`), which the
    kernel leaves to the device; vhost does not, and old DHCP clients drop what has none.
    """
    network = nic.network
    checksums = nic.vhost and nic.vnet_hdr
    return Tap(nic.tap, network.bridge, nic.queues, nic.vnet_hdr, network.isolated, checksums)


class MacFilter(Resource):
    """A tap's port on its bridge takes the frames of these MACs alone; it goes with the tap."""

    tap: str
    macs: str  # separated by spaces
    bridge: str = ""
    run: str = ""  # empty: nobody else can have these MACs


class IpFilter(Resource):
    """What a device of a network takes in goes through the network's filter block.

    It goes with the device, and the block with the last one.
    """

    device: str  # a tap, or the network's own bridge
    bridge: str
    gateways: str = ""  # separated by spaces
    foreign: bool = False  # the device stays when the filter is released


class Plug(Resource):
    """A tap of QEMU's own on a bridge, and what it was like before."""

    name: str
    index: int
    bridge: str
    mac: str
    mtu: int
    up: bool
    plugged: bool  # it was a port of this bridge already
    isolated: bool = False  # it is to be, and was not before


class PciBinding(Resource):
    """A PCI device that a run has for its own, taken from its driver and given to vfio-pci."""

    bdf: str
    run: str
    driver: str = ""  # its driver when that was planned


class VirtualFunctions(Resource):
    """A run's use of a physical function: the first makes its VFs and brings it up if need be."""

    pf: str  # its PCI address
    run: str
    count: int  # how many to make if there are none; 0: they are there
    ifname: str = ""  # its interface when that was planned


class VfSettings(Resource):
    """How a virtual function is set through its physical one. What is empty stays as it is."""

    pf: str  # its PCI address
    number: int
    mac: str = ""
    vlan: str = ""
    spoofchk: str = ""
    trust: str = ""
    max_tx_rate: str = ""
    ifname: str = ""  # the physical one's interface when that was planned


class GroupNode(Resource):
    """The device node of an IOMMU group, handed to the user that QEMU runs as."""

    group: str
    uid: int


KINDS: dict[str, type[Resource]] = {
    kind.__name__: kind
    for kind in (
        Bridge, Uplink, Address, DeviceSetting, Forwarding, Rules, Dnsmasq, Membership, HostName,
        AnyClient, Tap, Plug, Switch, Forwards, MacFilter, IpFilter, IptablesAccepts, NftAccepts,
        FirewalldZone, Unmanaged, Remark, Guard, Lookout, PciBinding, VirtualFunctions, VfSettings,
        GroupNode,
    )
}  # fmt: skip


class Unreadable(Resource):
    """A journal's line that this version cannot read: another version's, or a damaged one."""

    line: str


def from_line(line: str) -> Resource:
    """Return the resource that `to_line` wrote, in this version or another one.

    A field that this version does not know is left out; one that the other version did not know has
    its default. A kind that is not known, a field without default that is missing, and a value that
    is none of its type make an `Unreadable`: what is left of it is not guessed at.
    """
    try:
        name, fields = record_text.read(line)
        kind = KINDS[name]
        types = kind.__annotations__
        return kind(**{n: _read(types[n], fields[n]) for n in kind.fields if n in fields})
    except (KeyError, TypeError, ValueError):
        return Unreadable(line)


def _write(value: object) -> str:
    """Write a field: booleans as 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _read(kind: str, value: str) -> str | int | bool:
    """Read a field of the annotated type."""
    if kind == "str":
        return value
    return bool(int(value)) if kind == "bool" else int(value)
