"""What acquiring and releasing a resource comes to, in commands anyone can type."""

from __future__ import annotations

import shlex

from qemu_netwrap.linux import frame_filter, ingress_filter
from qemu_netwrap.model import mac, names
from qemu_netwrap.model.network_managers import MANAGERS
from qemu_netwrap.record import Record
from qemu_netwrap.resources import kinds as r

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NAMES = ("name", "bridge", "device", "tap")  # the fields that may name an interface
TABLE = "inet qemu_netwrap"


class Step(Record):
    """One resource: what it is, and the equivalent commands to make and to undo it."""

    resource: r.Resource
    do: tuple[str, ...]
    undo: tuple[str, ...]


def explain(resource: r.Resource) -> Step:
    """Return the commands equivalent to acquiring and to releasing RESOURCE."""
    do, undo = _EXPLAIN[type(resource)](_quoted(resource))
    return Step(resource, do, undo)


def _quoted(resource: r.Resource) -> r.Resource:
    """Return a resource with its names as a shell has to be told them: `$(x)` can be one."""
    named = {key: getattr(resource, key) for key in _NAMES if key in resource.fields}
    strange = {key: name for key, name in named.items() if not names.plain_ifname(f"x{name}")}
    if not strange:
        return resource
    return resource.replace(**{key: shlex.quote(name) for key, name in strange.items()})


def _bridge(b: r.Bridge) -> tuple[tuple[str, ...], tuple[str, ...]]:
    timers = [f"stp_state {int(b.stp)}"]
    # The kernel counts in hundredths of a second here.
    timers += [f"forward_delay {b.forward_delay * 100}"] if b.forward_delay >= 0 else []
    timers += [f"hello_time {b.hello_time * 100}"] if b.hello_time >= 0 else []
    timers += ["mcast_snooping 0"] if b.guarded else []
    group = f" group {b.group}" if b.group else ""
    make = f"ip link add {b.name} address {b.mac}{group} type bridge {' '.join(timers)}"
    quiet = [f"ip link set {b.name} addrgenmode none"] if b.guarded else []
    quiet += [f"sysctl -w net/ipv4/conf/{b.name}/{key}={value}" for key, value in b.settings]
    quiet += ingress_filter.commands(b.name) if b.filtered else ()
    mtu = [f"ip link set {b.name} mtu {b.mtu}"] if b.mtu else []
    local = [f"ip addr add {b.link_local} dev {b.name} nodad"] if b.link_local else []
    return (make, *quiet, f"ip link set {b.name} up", *mtu, *local), (f"ip link del {b.name}",)


def _uplink(u: r.Uplink) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _moved(u, u.device, u.bridge, f"{u.bridge} up"), _moved(u, u.bridge, u.device, "")


def _moved(u: r.Uplink, source: str, target: str, master: str) -> tuple[str, ...]:
    """Return what moves all there is from the one to the other."""
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


def _address(a: r.Address) -> tuple[tuple[str, ...], tuple[str, ...]]:
    what = f"{a.address} dev {a.device}"
    more = "nodad" if ":" in a.address else "brd +"
    return (f"ip addr add {what} {more}",), (f"ip addr del {what}",)


def _device_setting(s: r.DeviceSetting) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"sysctl -w net/{s.family}/conf/{s.device}/{s.key}={s.value}",), ()


def _forwarding(f: r.Forwarding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    key = f"net/ipv4/conf/{f.device}/forwarding"
    back = f"sysctl -w {key}=0  # only if it was 0, and when no other network needs it"
    return (f"sysctl -w {key}=1",), (back,)


def _switch(s: r.Switch) -> tuple[tuple[str, ...], tuple[str, ...]]:
    key = f"net/ipv6/conf/{s.device}/{s.key}"
    back = f"sysctl -w {key}={s.former}  # only if it was, and when no other network needs it"
    return (f"sysctl -w {key}={s.value}  # only if it is {s.former}",), (back,)


def _rules(rules: r.Rules | r.Forwards) -> tuple[tuple[str, ...], tuple[str, ...]]:
    do = f"nft -f - <<'EOF'\ntable {TABLE} {{\n{rules.rules}}}\nEOF"
    chains = [line.split()[1] for line in rules.rules.splitlines() if line.startswith("chain ")]
    undo = [f"nft delete chain {TABLE} {chain}" for chain in chains]
    return (do,), (*undo, f"nft delete table {TABLE}  # with the last chain of ours")


def _lookout(w: r.Lookout) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (
        (f"# {w.bridge} follows the host's way out: a process sleeps until that changes",),
        ("# that process ends",),
    )


def _guard(g: r.Guard) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rules: list[str] = []
    for family in dict.fromkeys(door.partition(" ")[0] for door in g.each):
        rules += [f"-{family[-1]} rule add pref 32765 nop protocol kernel"]
        rules += [f"-{family[-1]} rule add pref 32763 iif lo goto 32765 protocol kernel"]
        rules += [_closed(door) for door in g.each if door.startswith(family)]
    undo = (rule.replace(" rule add ", " rule del ", 1) for rule in reversed(rules))
    shared = "  # when no other network needs it"
    return tuple(f"ip {rule}" for rule in rules), tuple(f"ip {rule}{shared}" for rule in undo)


def _closed(door: str) -> str:
    family, _, where = door.partition(" ")
    which = "pref 32764" if where == r.ALL else f"pref 32763 {where}"
    return f"-{family[-1]} rule add {which} fwmark 0 blackhole protocol kernel"


def _iptables_accepts(a: r.IptablesAccepts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rules = [line.removeprefix("-I ") for line in a.rules.splitlines()]
    program = a.program if a.table == "filter" else f"{a.program} -t {a.table}"
    return (
        tuple(f"{program} -I {rule}" for rule in rules),
        tuple(f"{program} -D {rule}" for rule in rules),
    )


def _nft_accepts(a: r.NftAccepts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    where = f"{a.family} {a.table} {a.chain}"
    rules = [f'{rule} comment "{a.mark}"' for rule in a.rules.splitlines()]
    do = tuple(f"nft 'insert rule {where} {rule}'" for rule in rules)
    return do, tuple(f"nft 'delete rule {where} handle HANDLE'  # {rule}" for rule in rules)


def _firewalld_zone(z: r.FirewalldZone) -> tuple[tuple[str, ...], tuple[str, ...]]:
    command = f"firewall-cmd --zone={z.zone}"
    return (
        (f"{command} --add-interface={z.bridge}",),
        (f"{command} --remove-interface={z.bridge}",),
    )


def _unmanaged(u: r.Unmanaged) -> tuple[tuple[str, ...], tuple[str, ...]]:
    manager = MANAGERS[u.manager]
    path, text = manager.path_of(u.bridge), manager.text_of(u.bridge)
    reload = f"busctl call {manager.service} {manager.path} {manager.interface} Reload"
    reload += "".join(f" u {argument}" for argument in manager.arguments)
    return (f"cat >{path} <<'EOF'\n{text}EOF", reload), (f"rm {path}", reload)


def _remark(remark: r.Remark) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"# {remark.text}",), ()


def _dnsmasq(d: r.Dnsmasq) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"dnsmasq --conf-file=- <<'EOF'\n{d.config}EOF",), (f"kill DNSMASQ-OF-{d.bridge}",)


def _membership(m: r.Membership) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"# run {m.run} joins {m.bridge}",), (f"# run {m.run} leaves {m.bridge}",)


def _host_name(n: r.HostName) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = [*([n.name] if n.name else []), *([f"at {n.address}"] if n.address else [])]
    known += ["and", n.address6] if n.address6 else []
    told = f"dnsmasq of {n.bridge}: {n.mac} is {' '.join(known)}"
    entry = told if known else f"{n.mac} on {n.bridge}"
    if not n.guarded:
        return (f"# {entry}",), (f"# {n.mac} is forgotten",)
    which = f"handle {frame_filter.claim_handle(mac.pack(n.mac)):#x}"
    where = f"block {frame_filter.block(n.bridge)} protocol all pref 2 {which} bpf"
    whose = f"# ARP and ND for {n.address or 'its addresses'} from {n.mac} alone"
    return (f"# {entry}", f"tc filter replace {where} da bytecode-file PROGRAM  {whose}"), (
        f"tc filter del {where}",
        f"# {n.mac} is forgotten",
    )


def _any_client(c: r.AnyClient) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"# dnsmasq of {c.bridge} serves every MAC, for those on {c.tap} are not known",), ()


def _tap(t: r.Tap) -> tuple[tuple[str, ...], tuple[str, ...]]:
    flags = (" vnet_hdr" if t.vnet_hdr else "") + (" multi_queue" if t.queues > 1 else "")
    make = f"ip tuntap add {t.name} mode tap{flags}"
    quiet = f"ip link set {t.name} addrgenmode none"
    plug = f"ip link set {t.name} master {t.bridge} up"
    checksums = (f"tc {line}" for line in t.traffic_control)
    return (make, quiet, plug, *_isolate(t), *checksums), (
        f"# {t.name} goes with the last process that holds it",
    )


def _mac_filter(f: r.MacFilter) -> tuple[tuple[str, ...], tuple[str, ...]]:
    macs = (f"bridge fdb replace {mac} dev {f.tap} master static sticky" for mac in f.macs.split())
    return (*macs, f"bridge link set dev {f.tap} learning off locked on"), ()


def _ip_filter(f: r.IpFilter) -> tuple[tuple[str, ...], tuple[str, ...]]:
    number = frame_filter.block(f.bridge)
    bind = f"tc qdisc add dev {f.device} ingress_block {number} clsact"
    where = f"block {number} protocol all pref 1 handle 1 bpf"
    what = "# no DHCP server, router or gateway's address among the guests"
    rules = f"tc filter replace {where} da bytecode-file PROGRAM  {what}"
    undo = (f"tc qdisc del dev {f.device} clsact",) if f.foreign else ()
    return (bind, *([rules] if f.device == f.bridge else [])), undo


def _isolate(port: r.Tap | r.Plug, value: str = "on") -> tuple[str, ...]:
    isolate = f"ip link set {port.name} type bridge_slave isolated {value}"
    return (isolate,) if port.isolated else ()


def _plug(p: r.Plug) -> tuple[tuple[str, ...], tuple[str, ...]]:
    quiet = f"ip link set {p.name} addrgenmode none"
    plug = f"ip link set {p.name} master {p.bridge} up"
    back = "" if p.plugged else " nomaster"
    unplug = f"ip link set {p.name}{back} address {p.mac} mtu {p.mtu} {'up' if p.up else 'down'}"
    shared = _isolate(p, "off") if p.plugged else ()
    return (quiet, plug, *_isolate(p)), (*shared, f"{unplug}  # if it is there still")


def _binding(b: r.PciBinding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    device = f"/sys/bus/pci/devices/{b.bdf}"
    if "vfio" in b.driver:
        return (f"# {b.bdf} is on {b.driver} already",), (f"# {b.bdf} is left there",)
    leave, probe = f"echo {b.bdf} >{device}/driver/unbind", f"echo {b.bdf} >{_PROBE}"
    take = f"echo vfio-pci >{device}/driver_override"
    give = f"echo >{device}/driver_override  # or what it was"
    if not b.driver:
        return (take, probe), (leave, give)
    back = f"{probe}  # {b.driver} takes it; its interface is made what it was"
    return (take, leave, probe), (leave, give, back)


def _functions(v: r.VirtualFunctions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count = f"/sys/bus/pci/devices/{v.pf}/sriov_numvfs"
    up = f"ip link set {v.ifname} up"
    down = f"ip link set {v.ifname} down  # if it was, with the last run"
    if not v.count:
        return (up,), (down,)
    return (f"echo {v.count} >{count}", up), (f"echo 0 >{count}  # with the last run", down)


def _vf_settings(s: r.VfSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    words = {
        **{key: getattr(s, key) for key in ("mac", "vlan")},
        **{key: {"0": "off", "1": "on"}.get(getattr(s, key), "") for key in ("spoofchk", "trust")},
        "max_tx_rate": s.max_tx_rate,
    }
    where = f"ip link set {s.ifname} vf {s.number}"
    set_ = [key for key in words if words[key]]
    do = " ".join(f"{key} {words[key]}" for key in set_)
    return (f"{where} {do}",), (f"{where} {' '.join(f'{k} ...' for k in set_)}  # as before",)


def _node(n: r.GroupNode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (f"chown {n.uid} /dev/vfio/{n.group}",), (f"chown 0 /dev/vfio/{n.group}",)


_PROBE = "/sys/bus/pci/drivers_probe"
_EXPLAIN: dict[type[r.Resource], Callable[..., tuple[tuple[str, ...], tuple[str, ...]]]] = {
    r.Bridge: _bridge,
    r.Uplink: _uplink,
    r.Address: _address,
    r.DeviceSetting: _device_setting,
    r.Forwarding: _forwarding,
    r.Switch: _switch,
    r.Rules: _rules,
    r.Guard: _guard,
    r.Lookout: _lookout,
    r.Forwards: _rules,
    r.Dnsmasq: _dnsmasq,
    r.Membership: _membership,
    r.HostName: _host_name,
    r.AnyClient: _any_client,
    r.Tap: _tap,
    r.Plug: _plug,
    r.IptablesAccepts: _iptables_accepts,
    r.NftAccepts: _nft_accepts,
    r.FirewalldZone: _firewalld_zone,
    r.Unmanaged: _unmanaged,
    r.Remark: _remark,
    r.MacFilter: _mac_filter,
    r.IpFilter: _ip_filter,
    r.PciBinding: _binding,
    r.VirtualFunctions: _functions,
    r.VfSettings: _vf_settings,
    r.GroupNode: _node,
}
