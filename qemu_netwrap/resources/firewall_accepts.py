"""Accept rules that qemu-netwrap adds to the firewalls of other programs."""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.errors import HostError
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class IptablesAccepts(Resource):
    """Accept rules at the head of iptables chains that belong to another program."""

    kind = "IptablesAccepts"

    bridge: str
    program: str  # `iptables-nft`, `ip6tables-legacy`, …
    mark: str  # the comment that marks the rules
    rules: str  # one a line, as iptables-restore(8) reads them
    table: str = "filter"

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether the bridge exists: decides for a bridge that qemu-netwrap did not create."""
        return context.rtnl.link(self.bridge) is not None

    def acquire(self, context: Context) -> Iterator[None]:
        """Insert the rules. If iptables refuses them, that is reported, and no failure."""
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
        """Remove the marked rules from the chains that they were inserted into."""
        where = (self.program, _chains(self), self.mark)
        child = linux.iptables.remove(*where, context.state.nft_lock, self.table)
        yield
        if child is not None:
            try:
                child.wait()
            except HostError:
                if linux.iptables.marked(*where, self.table):  # else they are gone already
                    raise

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether rules are missing from a chain that exists, as after a firewall's restart."""
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
    """Accept rules at the head of a chain in another program's nft table."""

    kind = "NftAccepts"

    bridge: str
    family: str
    table: str
    chain: str
    mark: str  # the comment that marks the rules
    rules: str  # one a line, as nft(8) reads them, without the comment

    def stands(self, context: Context, saved: Saved) -> bool | None:
        """Whether the bridge exists: decides for a bridge that qemu-netwrap did not create."""
        return context.rtnl.link(self.bridge) is not None

    def acquire(self, context: Context) -> Iterator[None]:
        """Insert the rules. If nft refuses them (the table may have an owner), that is reported."""
        chain = f"{self.family} {self.table} {self.chain}"
        child = linux.nft.insert(chain, self.rules, self.mark, context.state.nft_lock)
        yield
        try:
            child.wait()
        except HostError as error:
            rules = self.rules
            for way, port in (("ibrname", "iifname"), ("obrname", "oifname")):
                # Some kernels cannot match the bridge (NFT_BRIDGE_META): match its ports.
                rules = rules.replace(f'meta {way} "{self.bridge}"', f'{port} "qn*"')
            remedy = "; ".join(f"insert rule {chain} {rule}" for rule in rules.splitlines())
            context.say(
                f"{self.bridge}: nft chain {chain} drops guests' packets, and refused our rules:"
                f" {error.message}; remedy: nft '{remedy}'"
            )

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Delete the marked rules, if they still exist."""
        yield
        with linux.files.Lock(context.state.nft_lock):
            pass  # an nft whose parent was killed may still be inserting them
        handles = _handles(self) or []
        if handles:
            chain = f"{self.family} {self.table} {self.chain}"
            child = linux.nft.delete(chain, handles, context.state.nft_lock)
            try:
                child.wait()
            except HostError:
                if _handles(self):  # else they are gone already
                    raise

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether rules are missing from a chain that exists, as after a firewall's restart."""
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
    """A bridge in one of firewalld's zones, in its runtime configuration."""

    kind = "FirewalldZone"

    bridge: str
    zone: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the bridge to the zone, unless the administrator has put it into one."""
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
        """Remove the bridge from the zone, if `acquire` has added it."""
        if "foreign" not in saved:
            try:
                linux.firewalld.remove(self.zone, self.bridge)
            except linux.dbus.DBusError as error:
                remedy = f"firewall-cmd --zone={self.zone} --remove-interface={self.bridge}"
                raise HostError(f"firewalld: {error}", remedy) from error
        yield

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether the bridge is in no zone: firewalld's reload drops runtime configuration."""
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
    """Return the names of the chains that the rules are in."""
    return tuple(dict.fromkeys(line.split()[1] for line in a.rules.splitlines()))


def _handles(a: NftAccepts) -> list[int] | None:
    """Return the handles of the marked rules; None if the chain no longer exists."""
    asking = linux.netlink.nft_chains.Chains()
    try:
        where = (a.family, a.table, a.chain)
        return asking.marked(*where, a.mark) if asking.has_chain(*where) else None
    except FileNotFoundError:
        return None
    finally:
        asking.close()
