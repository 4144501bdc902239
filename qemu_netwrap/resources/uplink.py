"""A NIC of the host as port of a created bridge; its addresses and routes move there and back.

The move is in linux.netlink.interface_move. What moves back is what the bridge has then, not what
was noted: so a lease that was renewed on the bridge is kept. The notes are used only if another
program has deleted the bridge, and with it all that it had.
"""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.resources.base import Commands, Resource
from qemu_netwrap.resources.links import link_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.interface_copy import InterfaceConfig
    from qemu_netwrap.resources.base import Context, Saved


class BridgeUplink(Resource):
    """A NIC of the host as port of a created bridge, which has its MAC, addresses and routes."""

    kind = "Uplink"

    device: str
    bridge: str
    stp: bool = False  # these three are set after the NIC is attached, so that it forwards at once
    forward_delay: int = 0
    hello_time: int = -1
    addresses: str = ""  # shown by `plan` and -v only; separated by spaces
    routes: int = 0  # how many: shown by `plan` and -v only

    @property
    def nic_taken(self) -> str:
        """The NIC."""
        return self.device

    @property
    def must_set(self) -> str:
        """The bridge: the host must not accept on it what it did not accept on the NIC."""
        return self.bridge

    def acquire(self, context: Context) -> Iterator[None]:
        """Attach the NIC to the bridge, and move its addresses, routes and rules there."""
        move, mover = linux.netlink.interface_move, linux.netlink.interface_copy.InterfaceNetlink()
        try:
            nic, bridge = link_named(mover, self.device), link_named(mover, self.bridge)
            if nic.master not in (0, bridge.index):
                raise HostError(
                    f"uplink {self.device}: it is a port of another bridge now", "try again"
                )
            flags, _ = mover.nature(nic.index)
            had = mover.belongings(nic.index)
            rules = [rule.renamed(self.device, self.bridge) for rule in mover.rules(self.device)]
            known = mover.rules(self.bridge)
            if had.gateways(nic.index):
                context.say(
                    f"{self.device}, which the host is reached by, goes into {self.bridge} with its"
                    f" addresses and routes; it gets them back when the last VM there has ended"
                )
            context.remember(
                index=str(nic.index),
                bridge=str(bridge.index),
                up=str(flags & linux.netlink.messages.IFF_UP),
                rules=" ".join(rule.body.hex() for rule in rules if rule not in known),
            )
            linux.files.write(_saved(self, context), move.as_text(self.device, had))
            _copy_settings(self, context, bare=had.is_bare)
            move.take(mover, nic, bridge, had, rules)
            move.await_gateways(mover, nic, bridge, had)
            if self.stp or self.forward_delay > 0 or self.hello_time >= 0:
                timers = (self.forward_delay, self.hello_time)
                mover.set_bridge(
                    bridge.index, stp=self.stp, forward_delay=timers[0], hello_time=timers[1]
                )
            _warn(self, had, context)
            context.made[self.bridge] = f"made, with {self.device} in it"
        finally:
            mover.close()
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Move what the bridge has now to the NIC, or what was noted if the bridge is gone."""
        move, mover = linux.netlink.interface_move, linux.netlink.interface_copy.InterfaceNetlink()
        try:
            nic = move.by_index(mover, saved.get("index", ""))
            if nic is not None:
                bridge = move.by_index(mover, saved["bridge"])
                if bridge is not None:
                    move.give_back(mover, bridge, nic, up=saved["up"] != "0")
                elif not nic.master:
                    noted = linux.files.read(_saved(self, context))
                    move.restore(mover, nic, move.of_text(noted))
                if nic.master and (bridge is None or nic.master != bridge.index):
                    context.say(f"uplink {nic.name} is left where it is: it was moved elsewhere")
                bodies = [bytes.fromhex(raw) for raw in saved["rules"].split()]
                mover.batch([linux.netlink.messages.Rule(body).deleted for body in bodies])
            linux.files.remove(_saved(self, context))
        finally:
            mover.close()
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        do = _moved(self, self.device, self.bridge, f"{self.bridge} up")
        return Commands(do, _moved(self, self.bridge, self.device, ""))


def _moved(u: BridgeUplink, source: str, target: str, master: str) -> tuple[str, ...]:
    """Return the commands that move addresses and routes from SOURCE to TARGET."""
    addresses = u.addresses.split()
    port = f"ip link set {u.device} " + (f"master {master}" if master else "nomaster")
    routes = f"ip route replace ROUTE dev {target}  # each of {u.routes}, in every table"
    timers = f"ip link set {u.bridge} type bridge stp_state {int(u.stp)}"
    timers += f" forward_delay {u.forward_delay * 100}" if u.forward_delay >= 0 else ""
    timers += f" hello_time {u.hello_time * 100}" if u.hello_time >= 0 else ""
    has_timers = u.stp or u.forward_delay > 0 or u.hello_time >= 0
    return (
        *(f"ip addr add {address} dev {target}" for address in addresses),
        *([port] if master else []),
        *([routes] if u.routes else []),
        *([] if master else [port]),
        *(f"ip addr del {address} dev {source}" for address in addresses),
        *([timers] if master and has_timers else []),
        *(["# its nexthops, neighbours, rules and net/*/conf settings too"] if master else []),
    )


def _copy_settings(u: BridgeUplink, context: Context, *, bare: bool) -> None:
    """Copy the NIC's settings (net/*/conf) to the bridge. They vanish with the bridge.

    A NIC without addresses stays so: its bridge accepts none by router advertisements either.
    Forwarding that qemu-netwrap has enabled is not copied: it comes with a guard (networks.nat).
    """
    is_ours = u.device in context.state.forwarding_devices()
    for family, key, value in linux.sysctl.choices(u.device):
        if not (is_ours and key == "forwarding"):
            linux.sysctl.give(family, u.bridge, key, value)
    if bare and linux.sysctl.read("ipv6", u.bridge, "accept_ra") not in ("", "0"):
        linux.sysctl.write("ipv6", u.bridge, "accept_ra", "0")


def _warn(u: BridgeUplink, had: InterfaceConfig, context: Context) -> None:
    """Warn of leased IPv4 addresses, which a DHCP client on the NIC can no longer renew."""
    forever = linux.netlink.messages.FOREVER
    leased = [a for a in had.movable if a.lifetimes[1] != forever and len(a.key[2]) == 4]
    for address in leased:
        minutes = address.lifetimes[1] // 60
        context.say(
            f"{address.text} is leased for {minutes} more min: a DHCP client on {u.device} cannot"
            f" renew it now, one on {u.bridge} can"
        )


def _saved(u: BridgeUplink, context: Context) -> str:
    """Return the path of the file that notes what the NIC had."""
    return f"{context.state.network(u.bridge)}/uplink"
