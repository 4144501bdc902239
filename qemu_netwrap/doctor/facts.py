"""Facts about the host that `doctor` collects, not yet rated."""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qemu_netwrap.linux.devices import Device
    from qemu_netwrap.model.coexistence import CoexistenceFacts


class Program(Record):
    """A program: its path, empty if there is none, and the version that it prints."""

    path: str = ""
    version: str = ""


class DefaultRouteDevice(Record):
    """The device of the default route."""

    device: str = ""  # empty: there is no default route
    is_bridge: bool = False
    is_wifi: bool = False
    is_ethernet: bool = False
    master: str = ""


class Ipv6(Record):
    """The state of IPv6 on the host."""

    missing: str = ""  # why guests get none; empty if they get it
    uplink: str = ""  # the device of its default route; empty without one
    is_router: bool = False
    by_device: bool = True  # forwarding can be switched on device by device (Linux 6.17)


class UserFacts(Record):
    """What an ordinary user has for networks of their own."""

    refused: str = ""  # why no network can be made in a namespace of theirs; empty if it can
    remedy: str = ""
    way_out: Program = Program()  # what leads out of it
    way_out_error: str = ""  # why there is none: the one that the configuration wants is missing


class HostFacts(Record):
    """The host. What only root can see is None for others."""

    is_root: bool
    capabilities: frozenset[str]
    container: str  # its kind; empty outside a container
    qemu: Program
    nft: Program
    dnsmasq: Program
    tun: Device
    kvm: Device
    vhost_net: Device
    bridge: str  # the kernel's bridge: LOADED, LOADABLE or MISSING
    nf_tables: str
    iommu_groups: int
    sysctl_writable: bool
    is_router: bool
    uplink: DefaultRouteDevice
    beside: CoexistenceFacts | None  # what a launch would find of other programs
    running: frozenset[str]  # those of firewalld and the network managers that run
    leftovers: tuple[str, ...] | None  # of dead runs
    ipv6: Ipv6
    user: UserFacts | None = None  # for an ordinary user
    is_lone: bool = False  # in a user namespace with no user id but root's
    # Of networks that are up: the name, the fault, whether a run that joins repairs it.
    faults: tuple[tuple[str, str, bool], ...] = ()
