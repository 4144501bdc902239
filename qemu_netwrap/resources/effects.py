"""How each kind of resource is acquired, and next to it how it is released.

Each is a generator: what can go on side by side with others comes before its `yield`, the wait
for it after. Release takes "already gone" for success and touches only what bears our mark.
"""

from __future__ import annotations

import _socket
import errno
import os

from qemu_netwrap import linux, resources, runtime
from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import dnsmasq, files, host_facts, nft, sysctl, tun
from qemu_netwrap.linux.netlink.links import Link, Rtnl
from qemu_netwrap.linux.process import Child
from qemu_netwrap.model import mac, names, plain_text
from qemu_netwrap.resources import kinds as r
from qemu_netwrap.state import claim, disclaim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.runtime.journal import Entry
    from qemu_netwrap.state import State

    Note = Callable[..., None]
    Facts = dict[str, str]


COMMON, CLAIMS = (1, 1), 2  # where programs stand in a filter block: priority and handle
TAP_PREFIX = b"\xfe"  # what a tap's MAC begins with on a bridge


class Work:
    """What acquiring and releasing needs, and what it hands on."""

    def __init__(
        self,
        state: State,
        say: Callable[[str], None] = lambda _: None,
        acquiring: Callable[[r.Resource], None] = lambda _: None,
    ) -> None:
        """SAY gets a line for everything worth telling, ACQUIRING each resource before it is."""
        self.state = state
        self.say = say
        self.acquiring = acquiring
        self.rtnl = Rtnl()
        self.taps: dict[str, list[int]] = {}  # name: a descriptor a queue
        self.made: dict[str, str] = {}  # bridges that were made, and what that is to the user
        self.indexes: dict[str, int] = {}  # of the taps that were made


def acquire_bridge(b: r.Bridge, note: Note, work: Work) -> Iterator[None]:
    """Make a bridge."""
    work.rtnl.add_bridge(
        b.name,
        mac.pack(b.mac),
        stp=b.stp,
        forward_delay=b.forward_delay,
        hello_time=b.hello_time,
        # By one query a guest would make itself who is asked where multicast is wanted, and
        # neighbor discovery no longer reach whoever has not said so.
        snooping=not b.guarded,
        up=not b.guarded,
    )
    made = work.rtnl.link(b.name)
    if made is not None:
        note(index=str(made.index))
        if b.open:
            work.made[b.name] = "made, a segment of its own" if b.guarded else "made"
        if b.guarded:
            # The kernel's own link-local address would come when it goes up.
            work.rtnl.generate_addresses(made.index)
            work.rtnl.set_ipv4(made.index, b.settings)
        if b.filtered:
            _filter(b, made, work)
        if b.mtu or b.group or b.guarded:
            # Not when it is made: a bridge keeps an MTU only that is set later (br_change_mtu).
            work.rtnl.set_up(made.index, b.mtu, b.group)
        if b.link_local:
            work.rtnl.add_address(made.index, *_split(b.link_local))
    yield


def _filter(b: r.Bridge, made: Link, work: Work) -> None:
    """Have the host not hear how guests would configure it.

    Rules and /proc/sys keep it from that too, where there are rules, and where it can be written.
    """
    if work.rtnl.filter_ingress(made.index, linux.ingress_filter.program()) or not b.open:
        return
    if sysctl.read("ipv6", b.name, "accept_ra") not in ("", "0") and not sysctl.is_writable():
        raise HostError(
            f"bridge {b.name}: guests could configure this host by router advertisements: /proc/sys"
            " is read-only, and the kernel has no packet filter at a bridge (cls_bpf)",
            f"make /proc/sys writable, or the bridge yourself: ip link add {b.name} type bridge",
        )


def release_bridge(b: r.Bridge, facts: Facts, work: Work) -> Iterator[None]:
    """Delete the bridge if it is the one we made; an open one with others' ports is theirs now."""
    link = work.rtnl.link(b.name)
    if link is not None and _is_ours(link, b.mac, facts):
        others = _ports_of_others(link, work) if b.open else []
        if others:
            work.say(f"bridge {b.name} is left: it has ports of somebody else: {', '.join(others)}")
            work.rtnl.set_alias(link.index, host_facts.LEFT)
        else:
            _delete(work.rtnl, link)
    elif link is None and "index" in facts and (name := work.rtnl.index_name(int(facts["index"]))):
        work.say(f"bridge {b.name} is left: somebody has renamed it to {name}")
    yield


def _ports_of_others(bridge: Link, work: Work) -> list[str]:
    """Return the ports of a bridge that are no tap of its members.

    Of those too that are dead: the kernel lets go of a killed QEMU's lock before its taps.
    """
    runs = work.state.members(bridge.name)
    own = [
        entry
        for run in runs
        for entry in runtime.journal.Journal(f"{work.state.run(run)}/journal").peek()
    ]
    ports = work.rtnl.ports(bridge.index)
    return [port.name for port in ports if not any(_is_port_of(port, entry) for entry in own)]


def _is_port_of(port: Link, entry: Entry) -> bool:
    """Whether a port is the tap that an entry of a run's journal is about."""
    what = entry.resource
    if isinstance(what, r.Plug):
        return what.index == port.index
    if not isinstance(what, r.Tap):
        return False
    noted = entry.facts.get("index")  # a crash may have kept it from us
    return noted == str(port.index) if noted else what.name == port.name


def acquire_uplink(u: r.Uplink, note: Note, work: Work) -> Iterator[None]:
    """Take a NIC of the host into its bridge."""
    return resources.uplink.acquire(u, note, work)


def release_uplink(u: r.Uplink, facts: Facts, work: Work) -> Iterator[None]:
    """Give the NIC back what it had."""
    return resources.uplink.release(u, facts, work)


def acquire_forwards(f: r.Forwards, _note: Note, work: Work) -> Iterator[None]:
    """Have ports of the host lead to a guest."""
    return runtime.host_ports.acquire(f, work)


def release_forwards(f: r.Forwards, _facts: Facts, work: Work) -> Iterator[None]:
    """Have them lead there no more."""
    return runtime.host_ports.release(f, work)


def acquire_address(a: r.Address, note: Note, work: Work) -> Iterator[None]:
    """Give a device of ours its address."""
    link = link_named(work.rtnl, a.device)
    note(index=str(link.index))
    try:
        work.rtnl.add_address(link.index, *_split(a.address))
    except FileExistsError:
        note(index="")  # it is somebody else's
        raise
    yield


def release_address(a: r.Address, facts: Facts, work: Work) -> Iterator[None]:
    """Take the address from the device, if that is still the one."""
    link = work.rtnl.link(a.device)
    if link is not None and facts.get("index") == str(link.index):
        try:
            work.rtnl.delete_address(link.index, *_split(a.address))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise
    yield


def acquire_device_setting(s: r.DeviceSetting, _note: Note, work: Work) -> Iterator[None]:
    """Set a sysctl of a device of ours, if it differs. A kernel without IPv6 has none to set.

    Nor is it of use on a device whose IPv6 is off.
    """
    if sysctl.read(s.family, s.device, s.key) not in ("", s.value):
        try:
            _set(s.family, s.device, s.key, s.value, work)
        except HostError:
            if not s.optional and sysctl.read(s.family, s.device, "disable_ipv6") != "1":
                raise
    yield


def _set(family: str, device: str, key: str, value: str, work: Work) -> None:
    """Set a device's setting, unless the device has just gone. Raises `HostError`.

    Where /proc/sys is read-only, as in most containers, the kernel takes IPv4's by netlink.
    """
    try:
        sysctl.write_if_there(family, device, key, value)
    except HostError:
        link = work.rtnl.link(device) if family == "ipv4" else None
        if link is None:
            raise
        work.rtnl.set_ipv4(link.index, ((key, value),))


def release_device_setting(_s: r.DeviceSetting, _facts: Facts, _work: Work) -> Iterator[None]:
    """Do nothing: the setting goes with the device."""
    yield


def acquire_forwarding(f: r.Forwarding, _note: Note, work: Work) -> Iterator[None]:
    """Switch on a device's forwarding once the rules are in place; remember who needs it.

    A device that forwards already, and not by us, is let be: nobody is written down for it. Nor is
    anybody for one that has gone since its routes were looked at, a container's say.
    """
    yield
    path = work.state.forwarding(f.device)
    link = work.rtnl.link(f.device)
    if link is None:
        return
    known, *users = files.read(path).split() or [""]
    if known != str(link.index):
        users = []  # those were users of another device of that name
    if users or sysctl.read("ipv4", f.device, "forwarding") == "0":
        files.write(path, "\n".join([str(link.index), *dict.fromkeys([*users, f.user])]) + "\n")
        _set("ipv4", f.device, "forwarding", "1", work)


def release_forwarding(f: r.Forwarding, _facts: Facts, work: Work) -> Iterator[None]:
    """Switch the device's forwarding off again with its last user, if we switched it on.

    Not if the host has become a router meanwhile: the global switch turns on every device's, and
    whoever used it (Docker does) needs this one too.
    """
    path = work.state.forwarding(f.device)
    index, *users = files.read(path).split() or [""]
    users = [user for user in users if user != f.user]
    if users:
        files.write(path, "\n".join([index, *users]) + "\n")
    elif index:
        device = work.rtnl.index_name(int(index))
        is_router = sysctl.read("ipv4", "all", "forwarding") == "1"
        if device and not is_router:
            _set("ipv4", device, "forwarding", "0", work)
        files.remove(path)
    yield


def acquire_switch(s: r.Switch, note: Note, work: Work) -> Iterator[None]:
    """Throw a switch of the host's."""
    return resources.sysctls.acquire(s, note, work)


def release_switch(s: r.Switch, facts: Facts, work: Work) -> Iterator[None]:
    """Put it back."""
    return resources.sysctls.release(s, facts, work)


def acquire_guard(g: r.Guard, _note: Note, work: Work) -> Iterator[None]:
    """Close the host for what has not passed a network's rules."""
    return resources.forward_guards.acquire(g, work)


def release_guard(g: r.Guard, _facts: Facts, work: Work) -> Iterator[None]:
    """Have it as it was."""
    return resources.forward_guards.release(g, work)


def acquire_lookout(lookout: r.Lookout, _note: Note, work: Work) -> Iterator[None]:
    """Start what has the network follow the host's way out."""
    return runtime.uplink_watch.acquire(lookout, work)


def release_lookout(lookout: r.Lookout, _facts: Facts, work: Work) -> Iterator[None]:
    """End it."""
    return runtime.uplink_watch.release(lookout, work)


def acquire_rules(rules: r.Rules, _note: Note, work: Work) -> Iterator[None]:
    """Add the network's chains to our table."""
    path = work.state.rules_users
    users = files.read(path).split()
    files.write(path, "\n".join(dict.fromkeys([*users, rules.bridge])) + "\n")
    child = nft.add(rules.rules, work.state.nft_lock)
    yield
    child.wait()


def release_rules(rules: r.Rules, _facts: Facts, work: Work) -> Iterator[None]:
    """Remove the network's chains, with the last network's the table."""
    path = work.state.rules_users
    users = [user for user in files.read(path).split() if user != rules.bridge]
    child = nft.remove(nft.chains(rules.rules), work.state.nft_lock, table=not users)
    yield
    child.wait()
    if users:
        files.write(path, "\n".join(users) + "\n")
    else:
        files.remove(path)


def acquire_dnsmasq(d: r.Dnsmasq, note: Note, work: Work) -> Iterator[None]:
    """Start dnsmasq; it answers when this is over."""
    folder = work.state.network(d.bridge)
    child = dnsmasq.start(folder, d.config, d.duid)
    yield
    dnsmasq.await_answers(child, folder)
    process = dnsmasq.find(folder)
    if process is not None:
        if dnsmasq.is_nobody(process):
            work.say(
                f"{d.bridge}: dnsmasq runs as nobody: a QEMU that does too can end it; remedy:"
                " useradd --system --shell /usr/sbin/nologin dnsmasq"
            )
        target = os.path.realpath(d.resolver) if d.resolver else ""
        note(pid=str(process.pid), started=process.started, resolver=target)


def release_dnsmasq(d: r.Dnsmasq, facts: Facts, work: Work) -> Iterator[None]:
    """Stop the network's dnsmasq; look for it among all processes if its number is not it.

    The number may never have been written down, or be that of another namespace of process ids.
    """
    noted = dnsmasq.Process(int(facts["pid"]), facts["started"]) if "pid" in facts else None
    if noted is not None and dnsmasq.lives(noted):
        dnsmasq.kill(noted)
        yield
        dnsmasq.stop(noted)
    else:
        dnsmasq.stop_anywhere(work.state.network(d.bridge))
    yield


def acquire_host_name(n: r.HostName, _note: Note, work: Work) -> Iterator[None]:
    """Reserve a MAC on its network; tell the network's dnsmasq its name and its address.

    A living run that came first keeps both: this one gets them when that one ends.
    """
    state = work.state
    claim(state.mac(n.mac), n.run, n.bridge)
    if os.path.isdir(f"{state.network(n.bridge)}/hosts"):
        owns_mac = state.owns_mac(n.mac, n.run, n.bridge)
        if n.address:
            claim(state.address(n.bridge, n.address), n.run, n.mac)
        if n.name:
            claim(state.name(n.bridge, n.name), n.run, n.mac)
            if owns_mac and not state.owns_name(n.name, n.run, n.bridge, n.mac):
                work.say(f"{n.name}: another run's guest on {n.bridge} has that name until it ends")
        if owns_mac:
            write_host(n, work)
    if n.guarded:
        guard_address(n, work)
    yield


def write_host(n: r.HostName, work: Work) -> bool:
    """Tell dnsmasq what is known of a guest's NIC; return whether that is new.

    That there is one is enough for it to be served.
    """
    owns_name = n.name and work.state.owns_name(n.name, n.run, n.bridge, n.mac)
    name = n.name if owns_name else ""
    address6 = f"[{n.address6}]" if n.address6 else ""
    known = [word for word in (n.address, address6, name) if word]
    path = f"{work.state.network(n.bridge)}/hosts/{n.mac}"
    line = plain_text.lease_words((n.mac, *known)) + "\n"
    if line == files.read(path):
        return False
    files.write(path, line, 0o644)
    return True


def release_host_name(n: r.HostName, _facts: Facts, work: Work) -> Iterator[None]:
    """Forget the MAC and the name; both go to a living run that has been waiting for them."""
    state, folder = work.state, work.state.network(n.bridge)
    with files.Lock(state.macs_lock):
        files.remove_scratch(state.macs_folder)
        for scratched in ("hosts", "names", "addresses"):
            files.remove_scratch(f"{folder}/{scratched}")
        if n.address:
            disclaim(state.address(n.bridge, n.address), n.run, n.mac)
        had_name = bool(n.name) and disclaim(state.name(n.bridge, n.name), n.run, n.mac)
        if disclaim(state.mac(n.mac), n.run, n.bridge) or had_name:
            runtime.claims.pass_on(n, work)
    yield


def acquire_any_client(c: r.AnyClient, _note: Note, work: Work) -> Iterator[None]:
    """Have the network's dnsmasq take every MAC for one that it knows."""
    folder = work.state.network(c.bridge)
    if os.path.isdir(f"{folder}/hosts"):
        files.write(_any_client(folder, c), "*:*:*:*:*:*\n", 0o644)
    yield


def release_any_client(c: r.AnyClient, _facts: Facts, work: Work) -> Iterator[None]:
    """Have it do so no longer for this tap."""
    folder = work.state.network(c.bridge)
    path = _any_client(folder, c)
    files.remove_scratch(f"{folder}/hosts", os.path.basename(path))
    if os.path.exists(path):
        files.remove(path)
        dnsmasq.reload(folder)
    yield


def _any_client(folder: str, c: r.AnyClient) -> str:
    """Return the file for a tap, whose name need not be one that dnsmasq reads a file of."""
    return f"{folder}/hosts/any-{os.fsencode(c.tap).hex()}"


def acquire_tap(t: r.Tap, note: Note, work: Work) -> Iterator[None]:
    """Make a tap and plug it into its bridge; its descriptors go to `work.taps`."""
    try:
        work.taps[t.name] = tun.open_tap(t.name, t.queues, vnet_hdr=t.vnet_hdr)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise taken(t.name) from error
    link = link_named(work.rtnl, t.name)
    note(index=str(link.index))
    work.indexes[t.name] = link.index
    _quieten(link, work)
    _plug(work.rtnl, link, t.bridge, isolated=t.isolated)
    yield
    if t.checksums:
        _fill_checksums(t, work)


def _fill_checksums(t: r.Tap, work: Work) -> None:
    """Have DHCP's checksums filled in. Most clients do without: it may fail.

    By tc(8), since pyroute2 does not know the action. In a batch some names would be more than a
    name, `a#b` say.
    """
    try:
        if names.plain_ifname(t.name):
            Child(("tc", "-batch", "-"), plain_text.joined(t.traffic_control)).wait()
        else:
            for words in t.traffic_control:
                Child(("tc", *words.split())).wait()
    except HostError as error:
        work.say(f"{t.name}: an old DHCP client may not take its address: {error.message}")


def release_tap(t: r.Tap, facts: Facts, work: Work) -> Iterator[None]:
    """See that the tap is gone, as it is with its last holder; if need be delete it."""
    for fd in work.taps.pop(t.name, ()):
        os.close(fd)
    link = work.rtnl.link(t.name)
    if link is not None and facts.get("index") == str(link.index):
        _delete(work.rtnl, link)
    yield


def acquire_mac_filter(f: r.MacFilter, _note: Note, work: Work) -> Iterator[None]:
    """Have a tap's port take its guest's frames alone.

    A MAC that a living run had first stays at that run's port until it ends.
    """
    index = work.indexes.get(f.tap) or link_named(work.rtnl, f.tap).index
    own = [m for m in f.macs.split() if not f.run or work.state.owns_mac(m, f.run, f.bridge)]
    work.rtnl.lock_port(index, tuple(map(mac.pack, own)))
    yield


def release_mac_filter(_f: r.MacFilter, _facts: Facts, _work: Work) -> Iterator[None]:
    """Do nothing: it goes with the tap."""
    yield


def acquire_ip_filter(f: r.IpFilter, note: Note, work: Work) -> Iterator[None]:
    """Have a device's frames go through the network's filter block, with its common program."""
    link = None if f.device in work.indexes else link_named(work.rtnl, f.device)
    index = link.index if link else work.indexes[f.device]
    note(index=str(index))
    block = linux.frame_filter.block(f.bridge)
    try:
        work.rtnl.bind_block(index, block)
        if f.device == f.bridge or not work.rtnl.has_filter(block, *COMMON):
            bridge = link if link and link.name == f.bridge else link_named(work.rtnl, f.bridge)
            gateways = [packed(a.partition("/")[0]) for a in f.gateways.split()]
            own = (
                [linux.frame_filter.LINK_LOCAL + linux.frame_filter.interface_id(bridge.mac)]
                if gateways
                else []
            )
            work.rtnl.set_filter(block, *COMMON, linux.frame_filter.guard([*gateways, *own]))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EOPNOTSUPP):
            raise
        note(index="")
        why = "it has a clsact qdisc of its own"
        if error.errno != errno.EEXIST:
            why = "the kernel lacks sch_ingress or cls_bpf, or cannot load them"
        work.say(f"{f.device}: no IP filter (ip_filter): {why}")
    yield


def release_ip_filter(f: r.IpFilter, facts: Facts, work: Work) -> Iterator[None]:
    """Take the filter from a device that stays."""
    if f.foreign and facts.get("index"):
        try:
            work.rtnl.unbind_block(int(facts["index"]))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                raise
    yield


def guard_address(n: r.HostName, work: Work) -> None:
    """Have no other guest of the network speak for a guest's addresses."""
    own = mac.pack(n.mac)
    four, six = (packed(a) if a else b"" for a in (n.address, n.address6))
    try:
        program = linux.frame_filter.claim(own, four, six)
        work.rtnl.set_filter(
            linux.frame_filter.block(n.bridge),
            CLAIMS,
            linux.frame_filter.claim_handle(own),
            program,
        )
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            raise  # else there is no block: see `acquire_ip_filter`


def acquire_plug(p: r.Plug, note: Note, work: Work) -> Iterator[None]:
    """Plug in a tap that QEMU has made, if it is the one still."""
    tap = work.rtnl.link_at(p.index)
    if tap is None:
        raise HostError(f"tap {p.name} has gone", "QEMU has ended, or somebody removed it")
    note(generate=sysctl.read("ipv6", tap.name, "addr_gen_mode"))
    _quieten(tap, work)
    _plug(work.rtnl, tap, p.bridge, isolated=p.isolated)
    yield


def release_plug(p: r.Plug, facts: Facts, work: Work) -> Iterator[None]:
    """Give a tap that is there still what it had before, but for what somebody changed since."""
    tap = work.rtnl.link_at(p.index)
    bridge = work.rtnl.link(p.bridge)
    own = bridge.index if bridge is not None else 0
    if tap is not None and tap.master in (0, own):
        master = tap.master if p.plugged else 0
        try:
            if p.isolated and master:
                work.rtnl.isolate(tap.index, isolated=False)
            work.rtnl.generate_addresses(tap.index, int(facts.get("generate") or 0))
            work.rtnl.unplug(tap, master, mac.pack(p.mac), p.mtu, up=p.up)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
    yield


def acquire_beside(resource: r.Resource, note: Note, work: Work) -> Iterator[None]:
    """Acquire what a network needs beside others on the host."""
    return resources.coexistence.ACQUIRE[type(resource)](resource, note, work)


def release_beside(resource: r.Resource, facts: Facts, work: Work) -> Iterator[None]:
    """Release it."""
    return resources.coexistence.RELEASE[type(resource)](resource, facts, work)


def acquire_passed(resource: r.Resource, note: Note, work: Work) -> Iterator[None]:
    """Acquire what passing a device of the host through takes."""
    return resources.vfio.ACQUIRE[type(resource)](resource, note, work)


def release_passed(resource: r.Resource, facts: Facts, work: Work) -> Iterator[None]:
    """Release it."""
    return resources.vfio.RELEASE[type(resource)](resource, facts, work)


ACQUIRE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.Bridge: acquire_bridge,
    r.Uplink: acquire_uplink,
    r.Address: acquire_address,
    r.DeviceSetting: acquire_device_setting,
    r.Forwarding: acquire_forwarding,
    r.Switch: acquire_switch,
    r.Rules: acquire_rules,
    r.Guard: acquire_guard,
    r.Lookout: acquire_lookout,
    r.Dnsmasq: acquire_dnsmasq,
    r.HostName: acquire_host_name,
    r.AnyClient: acquire_any_client,
    r.Tap: acquire_tap,
    r.Plug: acquire_plug,
    r.IptablesAccepts: acquire_beside,
    r.NftAccepts: acquire_beside,
    r.FirewalldZone: acquire_beside,
    r.Unmanaged: acquire_beside,
    r.Remark: acquire_beside,
    r.Forwards: acquire_forwards,
    r.MacFilter: acquire_mac_filter,
    r.IpFilter: acquire_ip_filter,
    r.PciBinding: acquire_passed,
    r.VirtualFunctions: acquire_passed,
    r.VfSettings: acquire_passed,
    r.GroupNode: acquire_passed,
}
RELEASE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.Bridge: release_bridge,
    r.Uplink: release_uplink,
    r.Address: release_address,
    r.DeviceSetting: release_device_setting,
    r.Forwarding: release_forwarding,
    r.Switch: release_switch,
    r.Rules: release_rules,
    r.Guard: release_guard,
    r.Lookout: release_lookout,
    r.Dnsmasq: release_dnsmasq,
    r.HostName: release_host_name,
    r.AnyClient: release_any_client,
    r.Tap: release_tap,
    r.Plug: release_plug,
    r.IptablesAccepts: release_beside,
    r.NftAccepts: release_beside,
    r.FirewalldZone: release_beside,
    r.Unmanaged: release_beside,
    r.Remark: release_beside,
    r.Forwards: release_forwards,
    r.MacFilter: release_mac_filter,
    r.IpFilter: release_ip_filter,
    r.PciBinding: release_passed,
    r.VirtualFunctions: release_passed,
    r.VfSettings: release_passed,
    r.GroupNode: release_passed,
}


# What must be there for a resource to be acquired: looked for before anything is touched.
PROGRAMS: dict[type[r.Resource], str] = {r.Rules: "nft", r.Dnsmasq: "dnsmasq"}


def _plug(rtnl: Rtnl, tap: Link, bridge: str, *, isolated: bool) -> None:
    """Make a tap the port of a bridge, and bring it up.

    0xFE first, as qemu-bridge-helper does: a bridge without a MAC of its own takes the lowest.
    """
    try:
        rtnl.plug(tap, link_named(rtnl, bridge), TAP_PREFIX + tap.mac[1:])
    except OSError as error:
        if error.errno != errno.EXFULL:
            raise
        raise HostError(
            f"bridge {bridge} is full: a bridge has 1023 ports at most",
            "use another network for some of the VMs",
        ) from error
    if isolated:
        rtnl.isolate(tap.index)


def _quieten(tap: Link, work: Work) -> None:
    """Keep the host's own IPv6 off a tap, before it goes up: it would speak to the guest.

    Without an address the kernel sends nothing there, but that it joins the group of all routers
    where devices are routers from the start. A tap that will outlive its run keeps that: to make it
    a router again would have the host forget other routers (networks.ipv6).
    """
    work.rtnl.generate_addresses(tap.index)
    if sysctl.read("ipv6", tap.name, "forwarding") == "1" and not tun.is_persistent(tap.name):
        sysctl.give("ipv6", tap.name, "forwarding", "0")


def _is_ours(link: Link, own_mac: str, facts: Facts) -> bool:
    """Whether LINK is what was made: by its ifindex, or its MAC if a crash kept that from us."""
    if "index" in facts:
        return facts["index"] == str(link.index)
    return mac.unpack(link.mac) == own_mac


def link_named(rtnl: Rtnl, name: str) -> Link:
    """Return an interface that must be there. Raises `HostError`."""
    found = rtnl.link(name)
    if found is None:
        raise HostError(f"interface {name} has gone", "somebody removed it; try again")
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


def taken(tap: str) -> HostError:
    """Return the error for a tap that is there already, naming who holds it."""
    holder = linux.holders.holder_of_tap(tap)
    by = f" by {holder}" if holder else ""
    return HostError(
        f"tap {tap}: the name is taken{by}",
        "choose another ifname=, or leave it out: a free name is found",
    )
