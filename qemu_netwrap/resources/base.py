"""What all kinds of resource have in common, how one is found by name, and what a pass shares.

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

    from qemu_netwrap.state import StateDir

    Saved = dict[str, str]  # what `Context.remember` was told of a resource

ALL = "all"  # in the place of a device: the whole host

# Where each kind is, by its name in journals: a module of this package, and the class in it.
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
    "Membership": "runtime.membership:Membership",
}


class Commands(Record):
    """Commands anyone can type: what acquiring a resource, and releasing it, comes to."""

    do: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


class Resource(Record):
    """Something acquired and released.

    `acquire` and `release` are generators of one or two steps: what can go on side by side with
    others comes before the `yield`, the wait for it after. They raise `NetwrapError` or `OSError`.
    """

    kind: ClassVar[str] = ""  # its name in journals and plans: it never changes
    programs: ClassVar[tuple[str, ...]] = ()  # looked for before anything is touched

    def acquire(self, context: Context) -> Iterator[None]:
        """Make it; `context.remember` what releasing it takes."""
        return iter(())

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Undo it, by what was SAVED of it. "Already gone" is success; only ours is touched."""
        return iter(())

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether somebody has taken it away: looked for where that costs next to nothing."""
        return False

    def insist(self, context: Context) -> None:
        """See to it whenever a run joins, where asking is no cheaper than doing it again."""

    def renewed(self) -> Self:
        """Return it as it would be made now: something of the host's may have changed since."""
        return self

    def before_repair(self, context: Context) -> None:
        """Do what comes before it is released and acquired again."""

    # What others ask of a resource, so that they need not know its kind.

    @property
    def bridge_made(self) -> str:
        """The bridge that it makes; empty if it makes none."""
        return ""

    @property
    def gateway(self) -> str:
        """The address with prefix length that the host has in the network by it; or empty."""
        return ""

    @property
    def nic_taken(self) -> str:
        """The NIC of the host that it puts into a bridge; or empty."""
        return ""

    @property
    def must_set(self) -> str:
        """The device whose settings it has to write, or it fails; or empty."""
        return ""

    @property
    def shared_device(self) -> tuple[str, str] | None:
        """`ipv4` or `ipv6`, and the host's own device (or ALL) that it has do more; None without.

        Networks share it.
        """
        return None

    @property
    def network_chains(self) -> tuple[str, str] | None:
        """The bridge of the network whose chains it has, and these as nft(8) reads them."""
        return None

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether what its network stands and falls with is there; None if that is not its matter.

        Of a network's resources the first that has an answer decides. Without it all of the network
        is made anew.
        """
        return None

    def is_for_devices(self, devices: set[tuple[str, str]]) -> bool:
        """Whether it is for some of these (see `shared_device`), and for nothing else."""
        return self.shared_device in devices

    def claim_again(self, run: str, bridge: str, context: Context) -> None:
        """Write down for RUN what a guest has alone on a network: an older version did not."""

    def add_again(self, context: Context) -> None:
        """Add what may have gone with the chains of the network, of which it is no part."""

    def plug_again(self, context: Context, saved: Saved, bridge: str) -> str:
        """Put a tap into BRIDGE, which was made anew; return its name, or nothing if it was not."""
        return ""

    def after_plugging(self, context: Context, taps: set[str]) -> None:
        """Do again what went with the ports of these TAPS, which were plugged again."""

    def explain(self) -> Commands:
        """Return the equivalent commands, the names of interfaces being quoted for a shell."""
        raise NotImplementedError

    def to_line(self) -> str:
        """Return the resource as one line of text."""
        return record_text.write(self.kind, {n: _write(v) for n, v in self.__dict__.items()})


class Unreadable(Resource):
    """A journal's line that this version cannot read: another version's, or a damaged one."""

    line: str


class Context:
    """What a pass of acquiring or releasing shares: the state, a netlink socket, what was made."""

    def __init__(
        self,
        state: StateDir,
        say: Callable[[str], None] = lambda _: None,
        acquiring: Callable[[Resource], None] = lambda _: None,
    ) -> None:
        """SAY gets a line for everything worth telling, ACQUIRING each resource before it is."""
        self.state = state
        self.say = say
        self.acquiring = acquiring
        # Keeps facts for the release of the resource that a step is about: the executor sets it.
        self.remember: Callable[..., None] = lambda **_: None
        self.rtnl = linux.netlink.links.Rtnl()
        self.taps: dict[str, list[int]] = {}  # name: a descriptor a queue
        self.made: dict[str, str] = {}  # bridges that were made, and what that is to the user
        self.indexes: dict[str, int] = {}  # of the taps that were made


def load(kind: str) -> type[Resource]:
    """Return the class of a kind by its name in journals. Raises `KeyError` for an unknown one."""
    place, _, name = KINDS[kind].partition(":")
    module = f"qemu_netwrap.{place}"
    __import__(module)
    found: type[Resource] = getattr(sys.modules[module], name)
    return found


def from_line(line: str) -> Resource:
    """Return the resource that `to_line` wrote, in this version or another one.

    A field that this version does not know is left out; one that the other version did not know has
    its default. A kind that is not known, a field without default that is missing, and a value that
    is none of its type make an `Unreadable`: what is left of it is not guessed at.
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
