"""Chains in our nftables table: a network's, and those of forwarded ports."""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.resources.base import Commands, Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.resources.base import Context, Saved


class Rules(Resource):
    """The chains of one network in our nftables table."""

    kind = "Rules"
    programs = ("nft",)

    bridge: str
    rules: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the network's chains to our table."""
        path = context.state.rules_users
        users = linux.files.read(path).split()
        linux.files.write(path, "\n".join(dict.fromkeys([*users, self.bridge])) + "\n")
        child = linux.nft.add(self.rules, context.state.nft_lock)
        yield
        child.wait()

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the network's chains, with the last network's the table."""
        path = context.state.rules_users
        users = [user for user in linux.files.read(path).split() if user != self.bridge]
        child = linux.nft.remove(
            linux.nft.chains(self.rules), context.state.nft_lock, table=not users
        )
        yield
        child.wait()
        if users:
            linux.files.write(path, "\n".join(users) + "\n")
        else:
            linux.files.remove(path)

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether a chain has gone: restarting nftables.service flushes all of them."""
        return not all(map(linux.nft.is_there, linux.nft.chains(self.rules)))

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return _explained(self.rules)


class PortForwardChains(Resource):
    """The chains by which ports of the host lead to what is behind a tap."""

    kind = "Forwards"

    tap: str
    rules: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the chains to our table, of which a run is a user like a network is.

        Nothing is left for later: the lock must not be held while others are acquired.
        """
        with linux.files.Lock(context.state.host_lock):
            users = linux.files.read(context.state.rules_users).split()
            lines = "\n".join(dict.fromkeys([*users, self.tap])) + "\n"
            linux.files.write(context.state.rules_users, lines)
            linux.nft.add(self.rules, context.state.nft_lock).wait()
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the chains, with the last user the table."""
        path = context.state.rules_users
        with linux.files.Lock(context.state.host_lock):
            users = [user for user in linux.files.read(path).split() if user != self.tap]
            chains = linux.nft.chains(self.rules)
            linux.nft.remove(chains, context.state.nft_lock, table=not users).wait()
            if users:
                linux.files.write(path, "\n".join(users) + "\n")
            else:
                linux.files.remove(path)
                linux.files.remove_scratch(context.state.shared_folder)
        yield

    def renew(self, context: Context) -> None:
        """Add again what somebody has taken away of the chains.

        A run that is being released has given up the table, under the lock, and is left alone.
        """
        with linux.files.Lock(context.state.host_lock):
            is_user = self.tap in linux.files.read(context.state.rules_users).split()
            chains = linux.nft.chains(self.rules)
            if is_user and not all(map(linux.nft.is_there, chains)):
                linux.nft.remove(chains, context.state.nft_lock, table=False).wait()
                linux.nft.add(self.rules, context.state.nft_lock).wait()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return _explained(self.rules)


def _explained(rules: str) -> Commands:
    """Return the commands that add chains to our table, and those that delete them."""
    table = linux.nft.TABLE
    do = f"nft -f - <<'EOF'\ntable {table} {{\n{rules}}}\nEOF"
    chains = [line.split()[1] for line in rules.splitlines() if line.startswith("chain ")]
    undo = [f"nft delete chain {table} {chain}" for chain in chains]
    return Commands((do,), (*undo, f"nft delete table {table}  # with the last chain of ours"))
