"""The base class of all resources, the table of their kinds, and the context that a pass shares.

A kind is a class: its fields, how it is acquired and released, whether it is missing, and the
commands that do the same. A journal names it by a fixed string, so that a class can be renamed.
Fields are str, int or bool, so that a line of text holds them (record_text).
"""

from __future__ import annotations

import sys

from qemu_netwrap import linux, record_text
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Self

    from qemu_netwrap.model.run import PortForward
    from qemu_netwrap.state import StateDir

    Saved = dict[str, str]  # the facts that `Context.remember` stored for a resource

ALL = "all"  # in place of a device's name: the whole host

# Each kind's name in journals, and where its class is: MODULE:CLASS, the module in qemu_netwrap.
KINDS = {
    "Bridge": "resources.links:Bridge",
    "Address": "resources.links:Address",
    "Tap": "resources.links:Tap",
    "Plug": "resources.links:AttachedTap",
    "MacFilter": "resources.port_filters:MacFilter",
    "IpFilter": "resources.port_filters:IpFilter",
    "DeviceSetting": "resources.sysctls:Sysctl",
    "Forwarding": "resources.sysctls:Forwarding",
    "Switch": "resources.sysctls:Switch",
    "Rules": "resources.nftables:NetworkChains",
    "Forwards": "resources.nftables:PortForwardChains",
    "Guard": "resources.forward_guards:RouterGuard",
    "Lookout": "resources.lookout:Lookout",
    "Dnsmasq": "resources.dnsmasq:DnsmasqServer",
    "HostName": "resources.dhcp_hosts:DhcpHost",
    "AnyClient": "resources.dhcp_hosts:AnyClient",
    "Uplink": "resources.uplink:BridgeUplink",
    "IptablesAccepts": "resources.firewall_accepts:IptablesAccepts",
    "NftAccepts": "resources.firewall_accepts:NftAccepts",
    "FirewalldZone": "resources.firewall_accepts:FirewalldZone",
    "Unmanaged": "resources.unmanaged:UnmanagedDevices",
    "Remark": "resources.remark:Remark",
    "PciBinding": "resources.vfio:VfioBinding",
    "VirtualFunctions": "resources.vfio:SriovFunctions",
    "VfSettings": "resources.vfio:VfSettings",
    "GroupNode": "resources.vfio:IommuGroupOwner",
    "PortRelay": "resources.port_relay:PortRelay",
    "Membership": "runtime.membership:Membership",
}


class Commands(Record):
    """Shell commands equivalent to acquiring (`do`) and to releasing (`undo`) a resource."""

    do: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


class Resource(Record):
    """Something on the host that is acquired and released.

    `acquire` and `release` are generators: before the `yield` they start what can run in parallel
    with other resources, after it they wait for that. They raise `NetwrapError` or `OSError`.
    """

    kind: ClassVar[str] = ""  # its name in journals and plans: it never changes
    programs: ClassVar[tuple[str, ...]] = ()  # looked for before anything is touched

    def acquire(self, context: Context) -> Iterator[None]:
        """Create it; store with `context.remember` what `release` will need."""
        return iter(())

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Undo it, using the SAVED facts. "Already gone" is success; nothing foreign is touched."""
        return iter(())

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether others have removed it. Only kinds where this check is cheap implement it."""
        return False

    def insist(self, context: Context) -> None:
        """Restore it when a run joins, for kinds where a check costs as much as a repair."""

    def renewed(self) -> Self:
        """Return it as it would be created now: the host may have changed since."""
        return self

    def before_repair(self, context: Context) -> None:
        """Prepare for a repair, which releases the resource and acquires it again."""

    # Queries that let callers handle a resource without knowing its kind.

    @property
    def bridge_made(self) -> str:
        """The name of the bridge that it creates; empty if it creates none."""
        return ""

    @property
    def gateway(self) -> str:
        """The address, with prefix length, that it gives the host in the network; or empty."""
        return ""

    @property
    def nic_taken(self) -> str:
        """The host's NIC that it attaches to a bridge; or empty."""
        return ""

    @property
    def must_set(self) -> str:
        """The device whose settings it must be able to write, or acquiring fails; or empty."""
        return ""

    @property
    def shared_device(self) -> tuple[str, str] | None:
        """The family (`ipv4`, `ipv6`) and the host's device (or ALL) that it sets; None if none.

        Networks share such a setting.
        """
        return None

    @property
    def network_chains(self) -> tuple[str, str] | None:
        """The network's bridge, and its chains as nft(8) reads them; None if it has no chains."""
        return None

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether what its network depends on exists; None if this kind cannot tell.

        The first of a network's resources that returns a boolean decides. If it is False, the whole
        network is recreated.
        """
        return None

    def is_for_devices(self, devices: set[tuple[str, str]]) -> bool:
        """Whether it is for some of DEVICES (pairs as in `shared_device`), and for nothing else."""
        return self.shared_device in devices

    def claim_again(self, run: str, bridge: str, context: Context) -> None:
        """Record RUN's claims to an address and a name on BRIDGE: older versions did not."""

    def add_again(self, context: Context) -> None:
        """Add again what may have been flushed together with the network's chains."""

    def loss(self, context: Context) -> str:
        """Return what of it has died that can be started again, as a fault for `ps`; or ""."""
        return ""

    def ports_lost(self, context: Context) -> tuple[PortForward, ...]:
        """Return the forwards whose ports `start_again` needs as `Context.ports`."""
        return ()

    def start_again(self, context: Context) -> None:
        """Start again what `loss` tells of, unless its run is being released."""

    def plug_again(self, context: Context, saved: Saved, bridge: str) -> str:
        """Attach its tap to the recreated BRIDGE; return the tap's name, "" if it did not."""
        return ""

    def after_plugging(self, context: Context, taps: set[str]) -> None:
        """Restore what was lost with the bridge ports of TAPS, which were attached again."""

    def explain(self) -> Commands:
        """Return the equivalent commands; the caller has shell-quoted the interface names."""
        raise NotImplementedError

    def to_line(self) -> str:
        """Return the resource as one line of text."""
        return record_text.write(self.kind, {n: _write(v) for n, v in self.__dict__.items()})


class Unreadable(Resource):
    """A line of a journal that this version cannot read: another version's, or a damaged one."""

    line: str


class Context:
    """What a pass of acquiring or releasing shares: state, netlink socket, what was created."""

    def __init__(
        self,
        state: StateDir,
        say: Callable[[str], None] = lambda _: None,
        acquiring: Callable[[Resource], None] = lambda _: None,
    ) -> None:
        """SAY is called with each line for the user, ACQUIRING with each resource before it is."""
        self.state = state
        self.say = say
        self.acquiring = acquiring
        # Stores facts for the release of the current step's resource. The executor sets it.
        self.remember: Callable[..., None] = lambda **_: None
        self.rtnl = linux.netlink.links.Rtnl()
        self.taps: dict[str, list[int]] = {}  # tap's name: one descriptor per queue
        self.made: dict[str, str] = {}  # created bridge: its description for the user
        self.indexes: dict[str, int] = {}  # created tap: its ifindex
        # The host's ports for a relay: (protocol, address, port, is it IPv6) to the descriptor.
        self.ports: dict[tuple[str, str, int, bool], int] = {}


def load(kind: str) -> type[Resource]:
    """Return the class of a kind by its name in journals. Raises `KeyError` for an unknown one."""
    place, _, name = KINDS[kind].partition(":")
    module = f"qemu_netwrap.{place}"
    __import__(module)
    found: type[Resource] = getattr(sys.modules[module], name)
    return found


def from_line(line: str) -> Resource:
    """Return the resource that `to_line` wrote, in this version or another one.

    A field unknown to this version is dropped; a field unknown to the other version gets its
    default. An unknown kind, a missing field without a default, or a value of the wrong type gives
    an `Unreadable`: the rest is not guessed at.
    """
    try:
        name, fields = record_text.read(line)
        kind = load(name)
        types = kind.__annotations__
        return kind(**{n: _read(types[n], fields[n]) for n in kind.fields if n in fields})
    except (ImportError, KeyError, TypeError, ValueError):
        return Unreadable(line)


def _write(value: object) -> str:
    """Write a field: booleans as 0 and 1."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _read(kind: str, value: str) -> str | int | bool:
    """Read a field of the annotated type."""
    if kind == "str":
        return value
    return bool(int(value)) if kind == "bool" else int(value)
