"""Our nftables table, by nft(8). Each change is one transaction of the kernel."""

from __future__ import annotations

import errno

from qemu_netwrap.host.netlink import Netlink, attribute
from qemu_netwrap.host.spawn import Child

_FAMILY, _TABLE = "inet", "qemu_netwrap"
TABLE = f"{_FAMILY} {_TABLE}"

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_NFT_MSG_NEWCHAIN, _NFT_MSG_GETCHAIN = 10 << 8 | 3, 10 << 8 | 4
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME = 1, 3
_NFGENMSG = bytes((1, 0, 0, 0))  # NFPROTO_INET


def add(rules: str, lock: str) -> Child:
    """Start adding chains (nft syntax) to our table, made if need be.

    By LOCK one change comes after the other, also after one whose starter was killed.
    """
    return Child(("nft", "-f", "-"), f"table {TABLE} {{\n{rules}}}\n", lock)


def chains(rules: str) -> tuple[str, ...]:
    """Return the names of the chains in RULES (nft syntax)."""
    return tuple(line.split()[1] for line in rules.splitlines() if line.startswith("chain "))


def is_there(chain: str) -> bool:
    """Whether our table has a chain: by one request to the kernel, where nft(8) takes 3 ms."""
    asking = _Nfnetlink(_NETLINK_NETFILTER)
    try:
        return asking.has_chain(chain)
    finally:
        asking.close()


class _Nfnetlink(Netlink):
    """A netlink socket for nf_tables."""

    def has_chain(self, chain: str) -> bool:
        """Whether our table has a chain."""
        names = ((_NFTA_CHAIN_TABLE, _TABLE), (_NFTA_CHAIN_NAME, chain))
        body = b"".join(attribute(kind, name.encode() + b"\0") for kind, name in names)
        try:
            next(self._ask(_NFT_MSG_GETCHAIN, 0, _NFGENMSG + body, _NFT_MSG_NEWCHAIN))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True


def remove(names: tuple[str, ...], lock: str, *, table: bool) -> Child:
    """Start removing chains, and with TABLE the whole table; what is gone already is no error."""
    # Adding first makes the deletion succeed whether or not somebody was faster.
    lines = [f"{verb} chain {TABLE} {c}" for c in names for verb in ("add", "flush", "delete")]
    text = [f"add table {TABLE}", *lines]
    if table:
        text = [f"add table {TABLE}", f"delete table {TABLE}"]
    return Child(("nft", "-f", "-"), "\n".join(text) + "\n", lock)
