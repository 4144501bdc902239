"""qemu-netwrap's nftables table, by nft(8); and which tables other programs have.

Each change is one transaction of the kernel.
"""

from __future__ import annotations

import errno

from qemu_netwrap.linux import proc
from qemu_netwrap.linux.child import Child
from qemu_netwrap.linux.netlink import NLM_F_DUMP, Netlink, attribute, attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FAMILY, _TABLE = "inet", "qemu_netwrap"
TABLE = f"{_FAMILY} {_TABLE}"

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE = 0, 1
NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN = 3, 4
NFT_MSG_NEWRULE, NFT_MSG_GETRULE = 6, 7
NFT_MSG_NEWGEN, NFT_MSG_GETGEN = 15, 16
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME = 1, 3
NFTA_GEN_ID = 1
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NUMBERS = {name: number for number, name in FAMILIES.items()}
_LEGACY = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}  # files of /proc/net
_UNTOUCHED = 1  # the generation of a ruleset that was never changed


def add(rules: str, lock: str) -> Child:
    """Start adding chains (nft syntax) to our table, which is created if need be.

    The file LOCK makes changes take turns, even if the process that started one was killed.
    """
    return Child(("nft", "-f", "-"), f"table {TABLE} {{\n{rules}}}\n", lock)


def insert(chain: str, rules: str, mark: str, lock: str) -> Child:
    """Start inserting RULES, one on a line, at the head of CHAIN (`family table name`)."""
    lines = (f'insert rule {chain} {rule} comment "{mark}"\n' for rule in rules.splitlines())
    return Child(("nft", "-f", "-"), "".join(lines), lock)


def delete(chain: str, handles: list[int], lock: str) -> Child:
    """Start deleting the rules with these HANDLES from CHAIN (`family table name`)."""
    lines = (f"delete rule {chain} handle {handle}\n" for handle in handles)
    return Child(("nft", "-f", "-"), "".join(lines), lock)


def chains(rules: str) -> tuple[str, ...]:
    """Return the names of the chains in RULES (nft syntax)."""
    return tuple(line.split()[1] for line in rules.splitlines() if line.startswith("chain "))


def is_there(chain: str) -> bool:
    """Whether our table has a chain: by one netlink request, where nft(8) takes 3 ms."""
    asking = Nftnl()
    try:
        return asking.has_chain(_FAMILY, _TABLE, chain)
    finally:
        asking.close()


def foreign_tables() -> tuple[tuple[str, str], ...]:
    """Return family and name of every table but ours; none without the privilege to ask."""
    try:
        asking = Nftnl()
    except OSError:
        return ()  # no nf_tables in this kernel
    try:
        tables = () if asking.is_untouched() else asking.tables()
        return tuple(table for table in tables if table != (_FAMILY, _TABLE))
    except OSError:
        return ()
    finally:
        asking.close()


def legacy_tables(family: str) -> tuple[str, ...]:
    """Return the filtering tables of legacy iptables in use, for FAMILY `ip` or `ip6`.

    iptables itself is not asked, since that creates the tables.
    """
    used = proc.read(f"net/{_LEGACY[family]}").split()
    return tuple(table for table in ("raw", "mangle", "filter") if table in used)


class Nftnl(Netlink):
    """A netlink socket for queries to nf_tables. Numbers inside attributes are big-endian."""

    def __init__(self) -> None:
        """Open the socket in this process's network namespace."""
        super().__init__(NETLINK_NETFILTER)

    def has_chain(self, family: str, table: str, chain: str) -> bool:
        """Whether a table has a chain."""
        names = ((NFTA_CHAIN_TABLE, table), (NFTA_CHAIN_NAME, chain))
        which = b"".join(attribute(kind, name.encode() + b"\0") for kind, name in names)
        try:
            next(self.about(NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN, family, which))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    def is_untouched(self) -> bool:
        """Whether nf_tables was never changed in this network namespace."""
        (answer,) = self.about(NFT_MSG_GETGEN, NFT_MSG_NEWGEN)
        generation = dict(attributes(answer, 4))[NFTA_GEN_ID]
        return int.from_bytes(generation, "big") <= _UNTOUCHED

    def tables(self) -> list[tuple[str, str]]:
        """Return family and name of every table."""
        answers = self.about(NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, flags=NLM_F_DUMP)
        return [
            (FAMILIES.get(answer[0], ""), name_in(dict(attributes(answer, 4))[NFTA_TABLE_NAME]))
            for answer in answers
        ]

    def about(
        self, ask: int, answer: int, family: str = "", which: bytes = b"", flags: int = 0
    ) -> Iterator[bytes]:
        """Make a request about FAMILY (all if empty); yield the body of each ANSWER message."""
        head = bytes((_NUMBERS.get(family, 0), 0, 0, 0))
        return self._ask(_SUBSYSTEM | ask, flags, head + which, _SUBSYSTEM | answer)


def name_in(raw: bytes) -> str:
    """Return a name that is an attribute's value."""
    return raw.rstrip(b"\0").decode("utf-8", "replace")


def remove(names: tuple[str, ...], lock: str, *, table: bool) -> Child:
    """Start removing chains, or with TABLE the whole table, as far as they exist."""
    # Adding first makes the deletion succeed even if another process was faster.
    lines = [f"{verb} chain {TABLE} {c}" for c in names for verb in ("add", "flush", "delete")]
    text = [f"add table {TABLE}", *lines]
    if table:
        text = [f"add table {TABLE}", f"delete table {TABLE}"]
    return Child(("nft", "-f", "-"), "\n".join(text) + "\n", lock)
