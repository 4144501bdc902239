"""Accepts of ours in somebody else's firewall."""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class IptablesAccepts(Resource):
    """Accepts of ours at the head of chains of somebody else's iptables."""

    kind = "IptablesAccepts"

    bridge: str
    program: str  # `iptables-nft`, `ip6tables-legacy`, …
    mark: str  # the comment by which they are told
    rules: str  # one a line, as iptables-restore(8) reads them
    table: str = "filter"

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether the bridge is there, which is somebody else's if nothing before it has told."""
        return context.rtnl.link(self.bridge) is not None

    def acquire(self, context: Context) -> Iterator[None]:
        """Insert the rules. Somebody else's table that refuses them is told, and no failure."""
        child = linux.iptables.insert(self.program, self.rules, context.state.nft_lock, self.table)
        yield
        try:
            child.wait()
        except HostError as error:
            context.say(
                f"{self.bridge}: a firewall drops guests' packets, and refused our rules:"
                f" {error.message}; remedy: have it accept what comes by {self.bridge}, and what"
                " goes there"
            )

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove what bears our comment, where it was put."""
        where = (self.program, _chains(self), self.mark)
        child = linux.iptables.remove(*where, context.state.nft_lock, self.table)
        yield
        if child is not None:
            try:
                child.wait()
            except HostError:
                if linux.iptables.marked(*where, self.table):  # else somebody was faster
                    raise

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether rules have gone where the chain is there: restarting a firewall does that."""
        chains = _chains(self)
        if not all(linux.iptables.has_chain(self.program, each, self.table) for each in chains):
            return False
        found = linux.iptables.marked(self.program, chains, self.mark, self.table)
        return len(found) < len(self.rules.splitlines())

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        rules = [line.removeprefix("-I ") for line in self.rules.splitlines()]
        program = self.program if self.table == "filter" else f"{self.program} -t {self.table}"
        return Commands(
            tuple(f"{program} -I {rule}" for rule in rules),
            tuple(f"{program} -D {rule}" for rule in rules),
        )


class NftAccepts(Resource):
    """Accepts of ours at the head of a chain of somebody else's nft table."""

    kind = "NftAccepts"

    bridge: str
    family: str
    table: str
    chain: str
    mark: str  # the comment by which they are told
    rules: str  # one a line, as nft(8) reads them, without the comment

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether the bridge is there, which is somebody else's if nothing before it has told."""
        return context.rtnl.link(self.bridge) is not None

    def acquire(self, context: Context) -> Iterator[None]:
        """Insert the rules. A chain that refuses them (one whose table has an owner) is told."""
        chain = f"{self.family} {self.table} {self.chain}"
        child = linux.nft.insert(chain, self.rules, self.mark, context.state.nft_lock)
        yield
        try:
            child.wait()
        except HostError as error:
            rules = self.rules
            for way, port in (("ibrname", "iifname"), ("obrname", "oifname")):
                # Not every kernel can name the bridge (NFT_BRIDGE_META): then by its ports.
                rules = rules.replace(f'meta {way} "{self.bridge}"', f'{port} "qn*"')
            remedy = "; ".join(f"insert rule {chain} {rule}" for rule in rules.splitlines())
            context.say(
                f"{self.bridge}: nft chain {chain} drops guests' packets, and refused our rules:"
                f" {error.message}; remedy: nft '{remedy}'"
            )

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Delete what bears our comment, if it is there still."""
        yield
        with linux.files.Lock(context.state.nft_lock):
            pass  # an nft whose starter was killed may only just be inserting them
        handles = _handles(self) or []
        if handles:
            chain = f"{self.family} {self.table} {self.chain}"
            child = linux.nft.delete(chain, handles, context.state.nft_lock)
            try:
                child.wait()
            except HostError:
                if _handles(self):  # else somebody was faster
                    raise

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether rules have gone where the chain is there: restarting a firewall does that."""
        handles = _handles(self)
        return handles is not None and len(handles) < len(self.rules.splitlines())

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        where = f"{self.family} {self.table} {self.chain}"
        rules = [f'{rule} comment "{self.mark}"' for rule in self.rules.splitlines()]
        do = tuple(f"nft 'insert rule {where} {rule}'" for rule in rules)
        undo = tuple(f"nft 'delete rule {where} handle HANDLE'  # {rule}" for rule in rules)
        return Commands(do, undo)


class FirewalldZone(Resource):
    """A bridge of ours in one of firewalld's zones, at run time."""

    kind = "FirewalldZone"

    bridge: str
    zone: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Put the bridge into the zone, unless its owner has put it into one."""
        yield
        try:
            if linux.firewalld.zone_of(self.bridge):
                context.remember(foreign="1")
            else:
                linux.firewalld.add(self.zone, self.bridge)
        except linux.dbus.DBusError as error:
            context.say(
                f"{self.bridge}: firewalld drops guests' packets, and cannot be asked to let them"
                f" through: {error}; remedy: firewall-cmd --zone={self.zone}"
                f" --add-interface={self.bridge}"
            )

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Take the bridge out of the zone, if we have put it there."""
        if "foreign" not in saved:
            try:
                linux.firewalld.remove(self.zone, self.bridge)
            except linux.dbus.DBusError as error:
                remedy = f"firewall-cmd --zone={self.zone} --remove-interface={self.bridge}"
                raise HostError(f"firewalld: {error}", remedy) from error
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether it has gone: firewalld's reload drops zones given at run time."""
        try:
            return not linux.firewalld.zone_of(self.bridge)
        except linux.dbus.DBusError:
            return False

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        command = f"firewall-cmd --zone={self.zone}"
        return Commands(
            (f"{command} --add-interface={self.bridge}",),
            (f"{command} --remove-interface={self.bridge}",),
        )


def _chains(a: IptablesAccepts) -> tuple[str, ...]:
    """Return the chains that our rules are in."""
    return tuple(dict.fromkeys(line.split()[1] for line in a.rules.splitlines()))


def _handles(a: NftAccepts) -> list[int] | None:
    """Return the handles of our rules in somebody else's chain; None when that has gone."""
    asking = linux.netlink.nft_chains.Chains()
    try:
        where = (a.family, a.table, a.chain)
        return asking.marked(*where, a.mark) if asking.has_chain(*where) else None
    except FileNotFoundError:
        return None
    finally:
        asking.close()
