"""How what a network needs beside others on the host is acquired, and how it is released.

As in `effects`: what can go on side by side with others comes before a `yield`.
"""

from __future__ import annotations

import os

from qemu_netwrap.errors import HostError
from qemu_netwrap.linux import files, firewalld, iptables, network_managers, nft
from qemu_netwrap.linux.dbus import DBusError
from qemu_netwrap.linux.netlink.nft_chains import Chains
from qemu_netwrap.model.network_managers import MANAGERS
from qemu_netwrap.resources import kinds as r

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.resources.effects import Facts, Note, Work


def acquire_iptables_accepts(a: r.IptablesAccepts, _note: Note, work: Work) -> Iterator[None]:
    """Insert the rules. Somebody else's table that refuses them is told, and no failure."""
    child = iptables.insert(a.program, a.rules, work.state.nft_lock, a.table)
    yield
    try:
        child.wait()
    except HostError as error:
        work.say(
            f"{a.bridge}: a firewall drops guests' packets, and refused our rules: {error.message};"
            f" remedy: have it accept what comes by {a.bridge}, and what goes there"
        )


def release_iptables_accepts(a: r.IptablesAccepts, _facts: Facts, work: Work) -> Iterator[None]:
    """Remove what bears our comment, where it was put."""
    child = iptables.remove(a.program, _chains(a), a.mark, work.state.nft_lock, a.table)
    yield
    if child is not None:
        try:
            child.wait()
        except HostError:
            if iptables.marked(a.program, _chains(a), a.mark, a.table):  # else somebody was faster
                raise


def _chains(a: r.IptablesAccepts) -> tuple[str, ...]:
    """Return the chains that our rules are in."""
    return tuple(dict.fromkeys(line.split()[1] for line in a.rules.splitlines()))


def acquire_nft_accepts(a: r.NftAccepts, _note: Note, work: Work) -> Iterator[None]:
    """Insert the rules. A chain that refuses them (one whose table has an owner) is told."""
    chain = f"{a.family} {a.table} {a.chain}"
    child = nft.insert(chain, a.rules, a.mark, work.state.nft_lock)
    yield
    try:
        child.wait()
    except HostError as error:
        rules = a.rules
        for way, port in (("ibrname", "iifname"), ("obrname", "oifname")):
            # Not every kernel can name the bridge (NFT_BRIDGE_META): then by its ports, our taps.
            rules = rules.replace(f'meta {way} "{a.bridge}"', f'{port} "qn*"')
        remedy = "; ".join(f"insert rule {chain} {rule}" for rule in rules.splitlines())
        work.say(
            f"{a.bridge}: nft chain {chain} drops guests' packets, and refused our rules:"
            f" {error.message}; remedy: nft '{remedy}'"
        )


def release_nft_accepts(a: r.NftAccepts, _facts: Facts, work: Work) -> Iterator[None]:
    """Delete what bears our comment, if it is there still."""
    yield
    with files.Lock(work.state.nft_lock):
        pass  # an nft whose starter was killed may only just be inserting them
    handles = _handles(a) or []
    if handles:
        child = nft.delete(f"{a.family} {a.table} {a.chain}", handles, work.state.nft_lock)
        try:
            child.wait()
        except HostError:
            if _handles(a):  # else somebody was faster
                raise


def _handles(a: r.NftAccepts) -> list[int] | None:
    """Return the handles of our rules in somebody else's chain; None when that has gone."""
    asking = Chains()
    try:
        where = (a.family, a.table, a.chain)
        return asking.marked(*where, a.mark) if asking.has_chain(*where) else None
    except FileNotFoundError:
        return None
    finally:
        asking.close()


def acquire_firewalld_zone(z: r.FirewalldZone, note: Note, work: Work) -> Iterator[None]:
    """Put the bridge into the zone, unless its owner has put it into one."""
    yield
    try:
        if firewalld.zone_of(z.bridge):
            note(foreign="1")
        else:
            firewalld.add(z.zone, z.bridge)
    except DBusError as error:
        work.say(
            f"{z.bridge}: firewalld drops guests' packets, and cannot be asked to let them through:"
            f" {error}; remedy: firewall-cmd --zone={z.zone} --add-interface={z.bridge}"
        )


def release_firewalld_zone(z: r.FirewalldZone, facts: Facts, _work: Work) -> Iterator[None]:
    """Take the bridge out of the zone, if we have put it there."""
    if "foreign" not in facts:
        try:
            firewalld.remove(z.zone, z.bridge)
        except DBusError as error:
            raise HostError(
                f"firewalld: {error}", f"firewall-cmd --zone={z.zone} --remove-interface={z.bridge}"
            ) from error
    yield


def acquire_unmanaged(u: r.Unmanaged, _note: Note, work: Work) -> Iterator[None]:
    """Have the manager leave the network's devices alone, before there are any."""
    manager = MANAGERS[u.manager]
    if not os.path.isdir(manager.folder):
        files.write(work.state.made_folder(u.manager), "")
        files.make_folder(manager.folder, 0o755)
    files.write(manager.path_of(u.bridge), manager.text_of(u.bridge), 0o644)
    try:
        network_managers.reload(manager)
    except DBusError as error:
        work.say(f"{u.bridge}: {u.manager} does not leave it alone: {error}")
    yield


def release_unmanaged(u: r.Unmanaged, _facts: Facts, work: Work) -> Iterator[None]:
    """Take back what the manager was told, with the folder if it was ours."""
    yield
    manager = MANAGERS[u.manager]
    path = manager.path_of(u.bridge)
    for name in files.listdir(manager.folder):
        if f"{manager.folder}/{name}".startswith(path):  # a crash may have left a scratch file
            files.remove(f"{manager.folder}/{name}")
    made = work.state.made_folder(u.manager)
    ours = manager.file.partition("{")[0]
    if not any(name.startswith(ours) for name in files.listdir(manager.folder)):
        if os.path.exists(made):
            files.remove_empty([manager.folder])  # not if it is of use to somebody else by now
        files.remove(made)
    try:
        network_managers.reload(manager)
    except DBusError:
        pass  # it has gone meanwhile


def is_missing(resource: r.Resource) -> bool:
    """Whether somebody has taken away what lets packets through where there is a drop still.

    Restarting a firewall does; so does firewalld's reload with zones given at run time.
    """
    if isinstance(resource, r.IptablesAccepts):
        chains, program, table = _chains(resource), resource.program, resource.table
        if not all(iptables.has_chain(program, chain, table) for chain in chains):
            return False
        found = iptables.marked(program, chains, resource.mark, table)
        return len(found) < len(resource.rules.splitlines())
    if isinstance(resource, r.NftAccepts):
        handles = _handles(resource)
        return handles is not None and len(handles) < len(resource.rules.splitlines())
    if isinstance(resource, r.FirewalldZone):
        try:
            return not firewalld.zone_of(resource.bridge)
        except DBusError:
            return False
    return False


def acquire_remark(remark: r.Remark, _note: Note, work: Work) -> Iterator[None]:
    """Tell the user."""
    work.say(remark.text)
    yield


def release_remark(_remark: r.Remark, _facts: Facts, _work: Work) -> Iterator[None]:
    """Do nothing: nothing was done."""
    yield


ACQUIRE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.IptablesAccepts: acquire_iptables_accepts,
    r.NftAccepts: acquire_nft_accepts,
    r.FirewalldZone: acquire_firewalld_zone,
    r.Unmanaged: acquire_unmanaged,
    r.Remark: acquire_remark,
}
RELEASE: dict[type[r.Resource], Callable[..., Iterator[None]]] = {
    r.IptablesAccepts: release_iptables_accepts,
    r.NftAccepts: release_nft_accepts,
    r.FirewalldZone: release_firewalld_zone,
    r.Unmanaged: release_unmanaged,
    r.Remark: release_remark,
}
