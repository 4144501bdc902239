"""Chains in qemu-netwrap's nftables table: a network's, and those of forwarded ports."""

from __future__ import annotations

from qemu_netwrap import linux
from qemu_netwrap.model import names, plain_text
from qemu_netwrap.resources.base import Commands, Resource
from qemu_netwrap.uses import Uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_netwrap.model.network import Network
    from qemu_netwrap.resources.base import Context, Saved

# By family: what precedes the device in the name of a chain for a device that appeared later.
LATE = {"ipv4": "guard", "ipv6": "guard6"}


class NetworkChains(Resource):
    """The chains of one network in qemu-netwrap's nftables table."""

    kind = "Rules"
    programs = ("nft",)

    bridge: str
    rules: str

    @property
    def network_chains(self) -> tuple[str, str]:
        """Its network's bridge, and the chains."""
        return self.bridge, self.rules

    def is_for_devices(self, devices: set[tuple[str, str]]) -> bool:
        """Whether all chains are those that were added for DEVICES (`networks.nat`)."""
        late = {
            f"{self.bridge}_{LATE[family]}_{names.in_chain_name(device)}"
            for family, device in devices
        }
        return {*linux.nft.chains(self.rules)} <= late

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the network's chains to the table."""
        path = context.state.rules_users
        Uses.read(path).with_use(self.bridge).write(path)
        child = linux.nft.add(self.rules, context.state.nft_lock)
        yield
        child.wait()

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the network's chains, and with its last user the table."""
        path = context.state.rules_users
        left = Uses.read(path).without(self.bridge)
        child = linux.nft.remove(
            linux.nft.chains(self.rules), context.state.nft_lock, table=not left.users
        )
        yield
        child.wait()
        left.keep(path)

    def is_missing(self, context: Context, saved: Saved) -> bool:
        """Whether a chain has gone: restarting nftables.service flushes all of them."""
        return not all(map(linux.nft.is_there, linux.nft.chains(self.rules)))

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return _explained(self.rules)


class PortForwardChains(Resource):
    """The chains that forward ports of the host to the guest behind a tap."""

    kind = "Forwards"

    tap: str
    rules: str

    def acquire(self, context: Context) -> Iterator[None]:
        """Add the chains to the table; the run is a user of it, as a network is.

        All is done before the `yield`: the lock must not be held while others are acquired.
        """
        with linux.files.Lock(context.state.host_lock):
            path = context.state.rules_users
            Uses.read(path).with_use(self.tap).write(path)
            linux.nft.add(self.rules, context.state.nft_lock).wait()
        yield

    def release(self, context: Context, saved: Saved) -> Iterator[None]:
        """Remove the chains, and with its last user the table."""
        path = context.state.rules_users
        with linux.files.Lock(context.state.host_lock):
            left = Uses.read(path).without(self.tap)
            chains = linux.nft.chains(self.rules)
            linux.nft.remove(chains, context.state.nft_lock, table=not left.users).wait()
            left.keep(path)
            if not left.users:
                linux.files.remove_scratch(context.state.shared_folder)
        yield

    def add_again(self, context: Context) -> None:
        """Add the chains again if one is missing.

        A run that is being released is no longer a user of the table, and is skipped.
        """
        with linux.files.Lock(context.state.host_lock):
            is_user = self.tap in Uses.read(context.state.rules_users).names
            chains = linux.nft.chains(self.rules)
            if is_user and not all(map(linux.nft.is_there, chains)):
                linux.nft.remove(chains, context.state.nft_lock, table=False).wait()
                linux.nft.add(self.rules, context.state.nft_lock).wait()

    def explain(self) -> Commands:
        """Return the equivalent commands."""
        return _explained(self.rules)


def chain(network: Network, hook: str, kind: str, *rules: str) -> str:
    """Return one chain of a network as nft(8) reads it, each rule commented with its owner.

    KIND is the chain's type, hook, priority and policy; its name begins with the bridge.
    """
    comment = f'comment "qemu-netwrap: {network.name}"'
    lines = plain_text.joined(f"  {rule} {comment}" for rule in rules)
    return f"chain {network.bridge}_{hook} {{\n  {kind}\n{lines}}}\n"


def _explained(rules: str) -> Commands:
    """Return the commands that add chains to the table, and those that delete them."""
    table = linux.nft.TABLE
    do = f"nft -f - <<'EOF'\ntable {table} {{\n{rules}}}\nEOF"
    chains = [line.split()[1] for line in rules.splitlines() if line.startswith("chain ")]
    undo = [f"nft delete chain {table} {chain}" for chain in chains]
    return Commands((do,), (*undo, f"nft delete table {table}  # with its last chain"))
