"""Strays: what bears our marks but is in no state folder, after /run/qemu-netwrap was removed.

Only root can set these marks, or they prove more than a name does: a bridge's MAC is derived from
the host and the bridge's name; chains are in our own table; rules in others' chains have our
comment; a dnsmasq is recognized by its program's file, its network namespace and the DHCP port that
it holds, before its command line is trusted. Strays still in use are left alone and reported.
"""

from __future__ import annotations

import _socket
import os
import re
from typing import TYPE_CHECKING

from qemu_netwrap import runtime
from qemu_netwrap.errors import NetwrapError
from qemu_netwrap.linux import commands, dnsmasq, files, host_facts, iptables, nft, sysctl, waits
from qemu_netwrap.linux.netlink.links import FR_ACT_BLACKHOLE, FR_ACT_GOTO, FR_ACT_NOP
from qemu_netwrap.linux.netlink.nft_chains import Chains
from qemu_netwrap.model import mac
from qemu_netwrap.model.network_managers import MANAGERS
from qemu_netwrap.networks.ipv6 import GROUP
from qemu_netwrap.record import Record
from qemu_netwrap.resources import lookout
from qemu_netwrap.resources.base import ALL, Resource
from qemu_netwrap.resources.firewall_accepts import IptablesAccepts, NftAccepts
from qemu_netwrap.resources.forward_guards import RouterGuard
from qemu_netwrap.resources.links import Bridge
from qemu_netwrap.resources.nftables import NetworkChains, PortForwardChains
from qemu_netwrap.resources.sysctls import Forwarding, Switch
from qemu_netwrap.resources.unmanaged import UnmanagedDevices
from qemu_netwrap.uses import Uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qemu_netwrap.linux.netlink.links import Link
    from qemu_netwrap.linux.proc import Process
    from qemu_netwrap.resources.base import Context

_TABLES = ("raw", "mangle", "filter")
_PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6)
# The rules that spare the host's own packets are deleted last, the jump before its target.
_ORDER = (FR_ACT_BLACKHOLE, FR_ACT_GOTO, FR_ACT_NOP)
# The host's settings that nat changes: the key, its value before, and its value meanwhile.
_SWITCHES = (("accept_ra", "1", "2"), ("force_forwarding", "0", "1"), ("forwarding", "0", "1"))
_INPUT_DEVICES = re.compile(r'iifname (?:"([^"]+)"|\{([^}]*)\})')


class Stray(Record):
    """A network without state: its bridge, what is left of it, and the ports that use it."""

    bridge: str
    found: tuple[Resource, ...] = ()
    server: Process | None = None
    ports: tuple[str, ...] = ()
    has_bridge: bool = False

    def __str__(self) -> str:
        """Return what is left of it, as text for the user."""
        parts = [f"bridge {self.bridge}"] if self.has_bridge else []
        kinds = {
            NetworkChains: "nft chains",
            PortForwardChains: "nft chains",
            UnmanagedDevices: "a manager's file",
        }
        names = [kinds.get(type(each), "accepts in a firewall") for each in self.found]
        parts += dict.fromkeys(names)
        parts += [f"dnsmasq {self.server.pid}"] if self.server else []
        used = f", used by {', '.join(self.ports)}" if self.ports else ""
        what = ", ".join(parts)
        return f"{what}{used}" if self.has_bridge else f"{what} of {self.bridge}"


def find(work: Context, *, has_nft: bool = True) -> list[Stray]:
    """Return the networks without state. Links and rules are read before the state is.

    HAS_NFT is whether nf_tables may be queried: a query may load the kernel module.
    """
    links = list(_our_bridges(work))
    chains = _chains() if has_nft else []
    marks = list(_marks()) if has_nft else []
    servers = dnsmasq.without_folder(work.state.base)
    managed = list(_unmanaged())
    there = {link.name for link in links}
    known = {*work.state.networks(), *_taps(work)}
    owners = {*there, *(m.bridge for m in marks), *(u.bridge for u in managed), *servers} - known
    by_owner = _owned(chains, owners, known)
    found = []
    for owner in sorted({*owners, *by_owner}):
        link = next((each for each in links if each.name == owner), None)
        resources: list[Resource] = [m for m in (*marks, *managed) if m.bridge == owner]
        names = by_owner.get(owner, [])
        if names:
            resources.insert(
                0, NetworkChains(owner, "".join(f"chain {name} {{\n}}\n" for name in names))
            )
        ports = tuple(port.name for port in work.rtnl.ports(link.index)) if link else ()
        server = servers.get(owner)
        found.append(Stray(owner, tuple(resources), server, ports, link is not None))
    return found


def release(work: Context) -> tuple[list[str], list[NetwrapError]]:
    """Release unused strays; return lines for the user, and the errors."""
    said: list[str] = []
    errors: list[NetwrapError] = []
    with files.Lock(work.state.host_lock):
        strays = find(work)
        unused = [stray for stray in strays if not stray.ports]
        said += [
            f"left: {stray}; its state has been removed: end what uses it, then run gc again"
            for stray in strays
            if stray.ports
        ]
        if unused and len(unused) == len(strays) and not work.state.networks():
            _stop_forwarding(work, {stray.bridge for stray in unused})
        for stray in unused:
            try:
                _release(stray, work)
                said.append(f"released: {stray}, whose state had been removed")
            except NetwrapError as error:
                errors.append(error)
    return said, errors


def _release(stray: Stray, work: Context) -> None:
    """Release everything of one network. Raises `NetwrapError`."""
    for process in lookout.without_state(stray.bridge, work):
        waits.kill_group(process)
    if stray.server is not None:
        dnsmasq.stop(stray.server)
    for each in (*_shared_of(stray.bridge, work), *stray.found):
        if each.network_chains and not os.path.exists(work.state.rules_users):
            chains = nft.chains(each.network_chains[1])
            nft.remove(chains, work.state.nft_lock, table=_are_all(chains)).wait()
        else:
            for _ in each.release(work, {}):
                pass
    if stray.has_bridge:
        own = Bridge(stray.bridge, _mac_of(stray.bridge))
        for _ in own.release(work, {}):
            pass


def _shared_of(bridge: str, work: Context) -> Iterator[Resource]:
    """Yield a network's uses of resources that networks share, as far as still recorded."""
    rules = (
        rule.split(" ", 2) for who, rule in Uses.read(work.state.guards).users if who == bridge
    )
    doors = [f"{family} {where}" for family, _, where in rules]
    for device in work.state.forwarding_devices():
        if bridge in Uses.read_changed(work.state.forwarding(device)).names:
            yield Forwarding(device, bridge)
    for key, former, value in _SWITCHES:
        for device in work.state.switched(key):
            if bridge in Uses.read_changed(work.state.switch(device, key)).names:
                yield Switch(device, key, former, value, bridge)
    if doors:
        yield RouterGuard(bridge, "\n".join(doors))


def _mac_of(bridge: str) -> str:
    return mac.derive(host_facts.machine(), "bridge", bridge)


def _our_bridges(work: Context) -> Iterator[Link]:
    """Yield all bridges that qemu-netwrap made."""
    for _, name in _socket.if_nameindex():
        link = work.rtnl.link(name)
        if link is not None and host_facts.is_ours(link):
            yield link


def _taps(work: Context) -> Iterator[str]:
    """Yield the taps of all runs that have state: chains are named after taps too."""
    for run in work.state.runs():
        yield from (nic.tap for nic in runtime.runs.read_info(work.state, run)[1])


def _chains() -> list[str]:
    """Return the names of the chains in our table; none if the kernel denies the query."""
    try:
        asking = Chains()
    except OSError:
        return []
    try:
        return asking.names(*nft.TABLE.split())
    except OSError:
        return []
    finally:
        asking.close()


def _are_all(chains: tuple[str, ...]) -> bool:
    """Whether our table has no other chains."""
    return set(_chains()) <= set(chains)


def _owned(chains: Iterable[str], owners: set[str], known: set[str]) -> dict[str, list[str]]:
    """Return the chains of no KNOWN network or tap, by owner; they are named OWNER_HOOK."""
    found: dict[str, list[str]] = {}
    for chain in chains:
        if any(chain.startswith(f"{each}_") for each in known):
            continue
        own = [each for each in owners if chain.startswith(f"{each}_")]
        owner = max(own, key=len, default=chain.partition("_")[0])
        if owner.startswith("qn") and not own and host_facts.existing((owner,)):
            continue  # its tap exists: the run is not over
        found.setdefault(owner, []).append(chain)
    return found


def _marks() -> Iterator[IptablesAccepts | NftAccepts]:
    """Yield our accept rules in the chains of other firewalls."""
    tables = nft.foreign_tables()
    for family, name in _PROGRAMS.items():
        used = [table for table in _TABLES if (family, table) in tables]
        kinds = ((f"{name}-nft", used), (f"{name}{iptables.LEGACY}", nft.legacy_tables(family)))
        for program, names in kinds:
            for table in names if iptables.is_there(program) else ():
                for bridge, chains in iptables.ours(program, table).items():
                    rules = "".join(f"-I {chain}\n" for chain in chains)
                    mark = f"qemu-netwrap: {bridge}"
                    yield IptablesAccepts(bridge, program, mark, rules, table)
    asking = Chains() if tables else None
    try:
        for family, table in tables if asking is not None else ():
            if asking is not None and not (family in _PROGRAMS and table in _TABLES):
                for chain, bridge in asking.ours(family, table):
                    mark = f"qemu-netwrap: {bridge}"
                    yield NftAccepts(bridge, family, table, chain, mark, "")
    finally:
        if asking is not None:
            asking.close()


def _unmanaged() -> Iterator[UnmanagedDevices]:
    """Yield our files that make network managers leave our devices alone."""
    for name, manager in MANAGERS.items():
        head, _, tail = manager.file.partition("{}")
        for file in files.listdir(manager.folder):
            if file.startswith(head) and file.endswith(tail) and len(file) > len(head + tail):
                yield UnmanagedDevices(file[len(head) : len(file) - len(tail)], name)


def _stop_forwarding(work: Context, bridges: set[str]) -> None:
    """Switch off the forwarding that our rules guard, before these are removed: it was off before.

    The devices are those that the rules name. The policy rules among them are deleted at the end.
    """
    rules = commands.our_rules() or ""
    pairs = _INPUT_DEVICES.findall(rules)
    named = {name.strip(' "') for one, many in pairs for name in (one or many).split(",")}
    policy = [rule for family in _FAMILIES for rule in work.rtnl.policy_rules(family)]
    named |= {rule.device for rule in policy if rule.action == FR_ACT_BLACKHOLE and rule.device}
    for device in sorted(named - bridges - {"lo"}):
        if sysctl.read("ipv4", ALL, "forwarding") != "1":
            sysctl.write_if_there("ipv4", device, "forwarding", "0")
        if sysctl.read("ipv6", device, "force_forwarding") == "1":
            sysctl.write_if_there("ipv6", device, "force_forwarding", "0")
    is_global = any(
        rule.action == FR_ACT_BLACKHOLE and not rule.device and not rule.length for rule in policy
    )
    if is_global or f"iifgroup != {GROUP}" in rules:
        sysctl.write_if_there("ipv6", ALL, "forwarding", "0")
    for rule in sorted(policy, key=lambda each: _ORDER.index(each.action)):
        work.rtnl.delete_rule(rule)
