"""Interfaces: the bridge of a network, its address, and the taps that are its ports."""

from __future__ import annotations

import _socket
import errno
import os

from qemu_netwrap import linux, resources
from qemu_netwrap.errors import HostError
from qemu_netwrap.model import mac, names, plain_text
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.linux.netlink.links import Link, Rtnl
    from qemu_netwrap.model.run import TapRequest
    from qemu_netwrap.resources.base import Context, Saved
    from qemu_netwrap.resources.journal import Entry

TAP_PREFIX = b"\xfe"  # what a tap's MAC begins with on a bridge
_HIGH = TAP_PREFIX + b"\xff"
_HIGHEST = b"\xfe\xff\xff\xff\xff\xff"  # of all unicast MACs
_STEPS = 1 << 20  # how far above a bridge's MAC a tap's may be
_GUARDED = (
    ("rp_filter", "1"),
    ("accept_redirects", "0"),
    ("accept_source_route", "0"),
    ("route_localnet", "0"),
)


class Bridge(Resource):
    """A bridge to create. Recognised by its ifindex; until that is noted, by name and MAC."""

    kind = "Bridge"

    name: str
    mac: str
    stp: bool = False
    forward_delay: int = 0  # seconds; -1: the kernel's default
    hello_time: int = -1  # seconds; -1: the kernel's default
    open: bool = False  # others may attach ports; release keeps the bridge if they have
    mtu: int = 0  # 0: the kernel's default, which follows the ports
    group: int = 0  # device group (ip-link(8)), which rules can match
    guarded: bool = False  # the host accepts no configuration from the guests on it
    filtered: bool = False  # at its ingress: see linux.ingress_filter
    link_local: str = ""  # IPv6 address; empty: none if guarded, else the kernel's choice

    @property
    def bridge_made(self) -> str:
        """The bridge."""
        return self.name

    @property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The net/ipv4/conf settings of a guarded bridge: guests cannot change the host's routes.

        A forged redirect has the address of a gateway elsewhere as source: `rp_filter` drops it.
        """
        return _GUARDED if self.guarded else ()

    def acquire(self, context: Context) -> Iterator[None]:
        """Create the bridge."""
        context.rtnl.add_bridge(
            self.name,
            mac.pack(self.mac),
            stp=self.stp,
            forward_delay=self.forward_delay,
            hello_time=self.hello_time,
            # With snooping, one query would make a guest the querier, and neighbor discovery
            # would no longer reach hosts that have sent no membership report.
            snooping=not self.guarded,
            up=not self.guarded,
        )
        made = context.rtnl.link(self.name)
        if made is not None:
            context.remember(index=str(made.index))
            if self.open:
                context.made[self.name] = "made, a segment of its own" if self.guarded else "made"
            if self.guarded:
                # Otherwise the kernel adds a link-local address when the bridge goes up.
                context.rtnl.generate_addresses(made.index)
                context.rtnl.set_ipv4(made.index, self.settings)
            if self.filtered:
                _filter(self, made, context)
            if self.mtu or self.group or self.guarded:
                # A bridge keeps only an MTU that is set after its creation (br_change_mtu).
                context.rtnl.set_up(made.index, self.mtu, self.group)
            if self.link_local:
                context.rtnl.add_address(made.index, *_split(self.link_local))
        yield

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether the bridge that was created still exists."""
        link = context.rtnl.link(self.name)
        return link is not None and saved.get("index") == str(link.index)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Delete the bridge if it is the one created; leave an open one with foreign ports."""
        link = context.rtnl.link(self.name)
        if link is not None and _is_ours(link, self.mac, saved):
            others = _ports_of_others(link, context) if self.open else []
            if others:
                ports = ", ".join(others)
                context.say(f"bridge {self.name} is left: it has other ports: {ports}")
                context.rtnl.set_alias(link.index, linux.host_facts.LEFT)
            else:
                _delete(context.rtnl, link)
        elif link is None and "index" in saved:
            name = context.rtnl.index_name(int(saved["index"]))
            if name:
                context.say(f"bridge {self.name} is left: it was renamed to {name}")
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        timers = [f"stp_state {int(self.stp)}"]
        # The kernel counts in hundredths of a second here.
        timers += [f"forward_delay {self.forward_delay * 100}"] if self.forward_delay >= 0 else []
        timers += [f"hello_time {self.hello_time * 100}"] if self.hello_time >= 0 else []
        timers += ["mcast_snooping 0"] if self.guarded else []
        group = f" group {self.group}" if self.group else ""
        make = f"ip link add {self.name} address {self.mac}{group} type bridge {' '.join(timers)}"
        quiet = [f"ip link set {self.name} addrgenmode none"] if self.guarded else []
        quiet += [
            f"sysctl -w net/ipv4/conf/{self.name}/{key}={value}" for key, value in self.settings
        ]
        quiet += linux.ingress_filter.commands(self.name) if self.filtered else ()
        mtu = [f"ip link set {self.name} mtu {self.mtu}"] if self.mtu else []
        local = [f"ip addr add {self.link_local} dev {self.name} nodad"] if self.link_local else []
        do = (make, *quiet, f"ip link set {self.name} up", *mtu, *local)
        return Commands(do, (f"ip link del {self.name}",))


def _filter(b: Bridge, made: Link, context: Context) -> None:
    """Drop at the bridge's ingress what would let guests configure the host.

    Chains and /proc/sys do that too where they can be set. Raises `HostError` if nothing does.
    """
    if context.rtnl.filter_ingress(made.index, linux.ingress_filter.program()) or not b.open:
        return
    if (
        linux.sysctl.read("ipv6", b.name, "accept_ra") not in ("", "0")
        and not linux.sysctl.is_writable()
    ):
        raise HostError(
            f"bridge {b.name}: guests could configure this host by router advertisements: /proc/sys"
            " is read-only, and the kernel has no packet filter at a bridge (cls_bpf)",
            f"make /proc/sys writable, or the bridge yourself: ip link add {b.name} type bridge",
        )


def _ports_of_others(bridge: Link, context: Context) -> list[str]:
    """Return the names of a bridge's ports that are not taps of its members.

    Dead members count too: the kernel releases a killed QEMU's lock before its taps.
    """
    runs = context.state.members(bridge.name)
    journals = [resources.journal.Journal(f"{context.state.run(run)}/journal") for run in runs]
    own = [entry for journal in journals for entry in journal.peek()]
    ports = context.rtnl.ports(bridge.index)
    return [port.name for port in ports if not any(_is_port_of(port, entry) for entry in own)]


def _is_port_of(port: Link, entry: Entry) -> bool:
    """Whether a port is the tap that an entry of a run's journal is about."""
    what = entry.resource
    if isinstance(what, AttachedTap):
        return what.index == port.index
    if not isinstance(what, Tap):
        return False
    noted = entry.facts.get("index")  # missing if a crash came first
    return noted == str(port.index) if noted else what.name == port.name


def _is_ours(link: Link, own_mac: str, saved: Saved) -> bool:
    """Whether LINK is the one created: by its ifindex, or by its MAC if a crash lost that."""
    if "index" in saved:
        return saved["index"] == str(link.index)
    return mac.unpack(link.mac) == own_mac


class Address(Resource):
    """An IPv4 or IPv6 address with prefix length (`192.168.0.1/24`) on a network's device."""

    kind = "Address"

    device: str
    address: str

    @property
    def gateway(self) -> str:
        """The address."""
        return self.address

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the address to the device. Raises `FileExistsError` if it is there already."""
        link = link_named(context.rtnl, self.device)
        context.remember(index=str(link.index))
        try:
            context.rtnl.add_address(link.index, *_split(self.address))
        except FileExistsError:
            context.remember(index="")  # it was there before: release must not delete it
            raise
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Delete the address, if the device is still the same one."""
        link = context.rtnl.link(self.device)
        if link is not None and saved.get("index") == str(link.index):
            try:
                context.rtnl.delete_address(link.index, *_split(self.address))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    raise
        yield

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        what = f"{self.address} dev {self.device}"
        more = "nodad" if ":" in self.address else "brd +"
        return Commands((f"ip addr add {what} {more}",), (f"ip addr del {what}",))


class Tap(Resource):
    """A tap on a bridge. It exists as long as a process holds a descriptor of it."""

    kind = "Tap"

    name: str
    bridge: str
    queues: int = 1
    vnet_hdr: bool = True
    isolated: bool = False  # from the bridge's other isolated ports
    checksums: bool = False  # fill in those of DHCP's packets

    @property
    def traffic_control(self) -> tuple[str, ...]:
        """The tc(8) commands that fill in DHCP's checksums (tc-u32(8), tc-csum(8))."""
        if not self.checksums:
            return ()
        answers = "u32 match ip protocol 17 0xff match ip sport 67 0xffff"
        return (
            f"qdisc replace dev {self.name} clsact",
            f"filter add dev {self.name} egress protocol ip {answers} action csum udp",
        )

    def acquire(self, context: Context) -> Iterator[None]:
        """Create the tap and attach it to its bridge; its descriptors go to `context.taps`."""
        try:
            context.taps[self.name] = linux.tun.open_tap(
                self.name, self.queues, vnet_hdr=self.vnet_hdr
            )
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise taken(self.name) from error
        link = link_named(context.rtnl, self.name)
        context.remember(index=str(link.index))
        context.indexes[self.name] = link.index
        _quieten(link, context)
        _plug(context.rtnl, link, self.bridge, isolated=self.isolated)
        yield
        if self.checksums:
            _fill_checksums(self, context)

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Close the tap's descriptors; delete the tap if it still exists after that."""
        for fd in context.taps.pop(self.name, ()):
            os.close(fd)
        link = context.rtnl.link(self.name)
        if link is not None and saved.get("index") == str(link.index):
            _delete(context.rtnl, link)
        yield

    def plug_again(self, context: Context, saved: Saved, bridge: str) -> str:
        """Attach the created tap again, if it still exists and has no other bridge."""
        tap = context.rtnl.link(self.name) if self.bridge == bridge else None
        is_it = tap is not None and saved.get("index") == str(tap.index)
        return _plug_again(self, tap if is_it else None, context)

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        flags = (" vnet_hdr" if self.vnet_hdr else "") + (" multi_queue" if self.queues > 1 else "")
        make = f"ip tuntap add {self.name} mode tap{flags}"
        quiet = f"ip link set {self.name} addrgenmode none"
        plug = f"ip link set {self.name} master {self.bridge} up"
        checksums = (f"tc {line}" for line in self.traffic_control)
        goes = f"# {self.name} goes with the last process that holds it"
        return Commands((make, quiet, plug, *_isolate(self), *checksums), (goes,))


def _fill_checksums(t: Tap, context: Context) -> None:
    """Have DHCP's checksums filled in. A failure is only reported: most clients need none.

    By tc(8), since pyroute2 does not know the action. Names such as `a#b` are not safe in a batch,
    where they would be read as more than a name.
    """
    try:
        if names.plain_ifname(t.name):
            linux.child.Child(("tc", "-batch", "-"), plain_text.joined(t.traffic_control)).wait()
        else:
            for words in t.traffic_control:
                linux.child.Child(("tc", *words.split())).wait()
    except HostError as error:
        context.say(f"{t.name}: an old DHCP client may not take its address: {error.message}")


def taken(tap: str) -> HostError:
    """Return the error for a tap that already exists, naming the process that holds it."""
    holder = linux.holders.holder_of_tap(tap)
    by = f" by {holder}" if holder else ""
    return HostError(
        f"tap {tap}: the name is taken{by}",
        "choose another ifname=, or leave it out: a free name is found",
    )


def tap_of(nic: TapRequest) -> Tap:
    """Return the tap that a NIC has on its network's bridge.

    QEMU fills in DHCP's checksums (hw/net/virtio-net.c, `work_around_broken_dhclient`), which the
    kernel leaves to the device; vhost does not, and old DHCP clients drop what has none.
    """
    network = nic.network
    checksums = nic.vhost and nic.vnet_hdr
    return Tap(nic.tap, network.bridge, nic.queues, nic.vnet_hdr, network.isolated, checksums)


class AttachedTap(Resource):
    """A tap that QEMU created, attached to a bridge; the fields hold its former settings."""

    kind = "Plug"

    name: str
    index: int
    bridge: str
    mac: str
    mtu: int
    up: bool
    plugged: bool  # it was a port of this bridge already
    isolated: bool = False  # to be isolated, and was not before

    def acquire(self, context: Context) -> Iterator[None]:
        """Attach QEMU's tap to the bridge. Raises `HostError` if the tap no longer exists."""
        tap = context.rtnl.link_at(self.index)
        if tap is None:
            raise HostError(f"tap {self.name} has gone", "QEMU has ended, or the tap was removed")
        context.remember(generate=linux.sysctl.read("ipv6", tap.name, "addr_gen_mode"))
        _quieten(tap, context)
        _plug(context.rtnl, tap, self.bridge, isolated=self.isolated)
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Restore the former settings of a tap that still exists and has no other bridge."""
        tap = context.rtnl.link_at(self.index)
        bridge = context.rtnl.link(self.bridge)
        own = bridge.index if bridge is not None else 0
        if tap is not None and tap.master in (0, own):
            master = tap.master if self.plugged else 0
            try:
                if self.isolated and master:
                    context.rtnl.isolate(tap.index, isolated=False)
                context.rtnl.generate_addresses(tap.index, int(saved.get("generate") or 0))
                context.rtnl.unplug(tap, master, mac.pack(self.mac), self.mtu, up=self.up)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
        yield

    def plug_again(self, context: Context, saved: Saved, bridge: str) -> str:
        """Attach QEMU's tap again, if it still exists and has no other bridge."""
        tap = context.rtnl.link_at(self.index) if self.bridge == bridge else None
        return _plug_again(self, tap, context)

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        quiet = f"ip link set {self.name} addrgenmode none"
        plug = f"ip link set {self.name} master {self.bridge} up"
        back = "" if self.plugged else " nomaster"
        state = "up" if self.up else "down"
        unplug = f"ip link set {self.name}{back} address {self.mac} mtu {self.mtu} {state}"
        shared = _isolate(self, "off") if self.plugged else ()
        undo = (*shared, f"{unplug}  # if it is there still")
        return Commands((quiet, plug, *_isolate(self)), undo)


def _plug(rtnl: Rtnl, tap: Link, bridge: str, *, isolated: bool) -> None:
    """Attach a tap to a bridge, and bring it up. Raises `HostError` if the bridge is full."""
    made = link_named(rtnl, bridge)
    try:
        rtnl.plug(tap, made, _above(made, _HIGH + tap.mac[2:]))
    except OSError as error:
        if error.errno != errno.EXFULL:
            raise
        raise HostError(
            f"bridge {bridge} is full: a bridge has 1023 ports at most",
            "use another network for some of the VMs",
        ) from error
    if isolated:
        rtnl.isolate(tap.index)


def _plug_again(port: Tap | AttachedTap, tap: Link | None, context: Context) -> str:
    """Attach a tap again unless it has a bridge; return PORT's name, "" if nothing was done."""
    made = context.rtnl.link(port.bridge) if tap is not None else None
    if tap is None or made is None or tap.master:
        return ""
    context.rtnl.plug(tap, made, _above(made, tap.mac))
    if port.isolated:
        context.rtnl.isolate(tap.index)
    return port.name


def _above(bridge: Link, wanted: bytes) -> bytes:
    """Return the MAC for a port: WANTED, or one above that of the bridge if WANTED is below.

    A bridge without an address of its own takes the lowest of its ports' MACs (Linux,
    net/bridge/br_stp_if.c, `br_stp_recalculate_bridge_id`), and an uplink's may begin with 0xFE.
    Only a small step above: each tap of a bridge that has nothing but taps may be above another.
    """
    if wanted >= bridge.mac:
        return wanted
    low = int.from_bytes(bridge.mac, "big")
    steps = min(int.from_bytes(_HIGHEST, "big") - low, _STEPS)
    chance = int.from_bytes(os.urandom(4), "big")
    return (low + 1 + chance % steps).to_bytes(6, "big") if steps > 0 else _HIGHEST


def _quieten(tap: Link, context: Context) -> None:
    """Keep the host from sending IPv6 of its own to the guest on a tap that is about to go up.

    Without an address the kernel sends nothing there, except to join the all-routers group where
    forwarding is on by default. A persistent tap, which outlives its run, keeps its forwarding: to
    enable it again later would make the host forget other routers (networks.ipv6).
    """
    context.rtnl.generate_addresses(tap.index)
    if linux.sysctl.read("ipv6", tap.name, "forwarding") == "1" and not linux.tun.is_persistent(
        tap.name
    ):
        linux.sysctl.give("ipv6", tap.name, "forwarding", "0")


def _isolate(port: Tap | AttachedTap, value: str = "on") -> tuple[str, ...]:
    """Return the command that isolates a port from others; empty if it is not isolated."""
    isolate = f"ip link set {port.name} type bridge_slave isolated {value}"
    return (isolate,) if port.isolated else ()


def link_named(rtnl: Rtnl, name: str) -> Link:
    """Return the interface NAME. Raises `HostError` if it does not exist."""
    found = rtnl.link(name)
    if found is None:
        raise HostError(f"interface {name} has gone", "it was removed meanwhile; try again")
    return found


def _delete(rtnl: Rtnl, link: Link) -> None:
    """Delete an interface; it may be gone already."""
    try:
        rtnl.delete_link(link.index)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def _split(address: str) -> tuple[bytes, int]:
    """Return the bytes and the prefix length of `192.168.0.1/24` or `fd00::1/64`."""
    host, _, length = address.partition("/")
    return packed(host), int(length)


def packed(address: str) -> bytes:
    """Return the bytes of an address of either family."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    return _socket.inet_pton(family, address)
