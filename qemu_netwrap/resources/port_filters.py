"""Filters of a bridge's ports: they admit only a guest's own MACs and addresses."""

from __future__ import annotations

import errno

from qemu_netwrap import linux
from qemu_netwrap.model import mac
from qemu_netwrap.resources.base import Commands, Resource
from qemu_netwrap.resources.links import link_named, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved

COMMON, CLAIMS = (1, 1), 2  # (priority, handle) of the common program; priority of claims


class MacFilter(Resource):
    """Locks a tap's bridge port to these source MACs; it vanishes with the tap."""

    kind = "MacFilter"

    tap: str
    macs: str  # separated by spaces
    bridge: str = ""
    run: str = ""  # empty: no other run can have these MACs

    def acquire(self, context: Context) -> Iterator[None]:
        """Make the tap's port accept only frames from its guest's MACs.

        A MAC that an earlier living run has stays at that run's port until that run ends.
        """
        index = context.indexes.get(self.tap) or link_named(context.rtnl, self.tap).index
        macs, state = self.macs.split(), context.state
        own = [m for m in macs if not self.run or state.owns_mac(m, self.run, self.bridge)]
        context.rtnl.lock_port(index, tuple(map(mac.pack, own)))
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Do nothing: the filter vanishes with the tap."""
        yield

    def after_plugging(self, context: Context, taps: set[str]) -> None:
        """Lock the port again if its tap was attached again."""
        if self.tap in taps:
            for _ in self.acquire(context):
                pass

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        entry = f"dev {self.tap} master static sticky"
        entries = (f"bridge fdb replace {own} {entry}" for own in self.macs.split())
        return Commands((*entries, f"bridge link set dev {self.tap} learning off locked on"))


class IpFilter(Resource):
    """Passes what enters by a device of a network through the network's filter block.

    It vanishes with the device, and the block with its last device.
    """

    kind = "IpFilter"

    device: str  # a tap, or the network's own bridge
    bridge: str
    gateways: str = ""  # separated by spaces
    foreign: bool = False  # the device stays when the filter is released

    def acquire(self, context: Context) -> Iterator[None]:
        """Bind the device to the network's filter block, and load the block's common program."""
        link = None if self.device in context.indexes else link_named(context.rtnl, self.device)
        index = link.index if link else context.indexes[self.device]
        context.remember(index=str(index))
        block = linux.frame_filter.block(self.bridge)
        try:
            context.rtnl.bind_block(index, block)
            if self.device == self.bridge or not context.rtnl.has_filter(block, *COMMON):
                named = link and link.name == self.bridge
                bridge = link if link and named else link_named(context.rtnl, self.bridge)
                gateways = [packed(a.partition("/")[0]) for a in self.gateways.split()]
                local = linux.frame_filter.LINK_LOCAL + linux.frame_filter.interface_id(bridge.mac)
                program = linux.frame_filter.guard([*gateways, *([local] if gateways else [])])
                context.rtnl.set_filter(block, *COMMON, program)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EOPNOTSUPP):
                raise
            context.remember(index="")
            why = "it has a clsact qdisc of its own"
            if error.errno != errno.EEXIST:
                why = "the kernel lacks sch_ingress or cls_bpf, or cannot load them"
            context.say(f"{self.device}: no IP filter (ip_filter): {why}")
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the filter from a device that stays."""
        if self.foreign and saved.get("index"):
            try:
                context.rtnl.unbind_block(int(saved["index"]))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                    raise
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        number = linux.frame_filter.block(self.bridge)
        bind = f"tc qdisc add dev {self.device} ingress_block {number} clsact"
        where = f"block {number} protocol all pref 1 handle 1 bpf"
        what = "# no DHCP server, router or gateway's address among the guests"
        rules = f"tc filter replace {where} da bytecode-file PROGRAM  {what}"
        undo = (f"tc qdisc del dev {self.device} clsact",) if self.foreign else ()
        return Commands((bind, *([rules] if self.device == self.bridge else [])), undo)


def guard_addresses(bridge: str, own: bytes, addresses: tuple[str, str], context: Context) -> None:
    """Let only the guest with MAC OWN use ADDRESSES (IPv4 and IPv6, or empty) on BRIDGE."""
    four, six = (packed(address) if address else b"" for address in addresses)
    try:
        program = linux.frame_filter.claim(own, four, six)
        context.rtnl.set_filter(
            linux.frame_filter.block(bridge), CLAIMS, linux.frame_filter.claim_handle(own), program
        )
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            raise  # else there is no block: see `IpFilter.acquire`


def unguard_addresses(bridge: str, own: bytes, context: Context) -> None:
    """Let every guest on BRIDGE use the addresses of the guest with MAC OWN again."""
    handle = linux.frame_filter.claim_handle(own)
    context.rtnl.drop_filter(linux.frame_filter.block(bridge), CLAIMS, handle)
