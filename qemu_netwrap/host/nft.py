"""Our nftables table, by nft(8). Each change is one transaction of the kernel."""

from __future__ import annotations

import _socket
import errno
import os
import struct

from qemu_netwrap.host.spawn import Child

_FAMILY, _TABLE = "inet", "qemu_netwrap"
TABLE = f"{_FAMILY} {_TABLE}"

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST, _NLMSG_ERROR = 0x1, 2
_NFT_MSG_GETCHAIN = 10 << 8 | 4
_NFPROTO_INET = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME = 1, 3
_HEAD = struct.Struct("=IHHIIBxH")  # struct nlmsghdr, struct nfgenmsg
_RECEIVE = 1 << 16


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
    names = ((_NFTA_CHAIN_TABLE, _TABLE), (_NFTA_CHAIN_NAME, chain))
    body = b"".join(_attr(kind, name) for kind, name in names)
    size = _HEAD.size + len(body)
    head = _HEAD.pack(size, _NFT_MSG_GETCHAIN, _NLM_F_REQUEST, 1, 0, _NFPROTO_INET, 0)
    asking = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        asking.sendto(head + body, (0, 0))
        answer = asking.recv(_RECEIVE)
    finally:
        asking.close()
    _, kind, _, _, _ = struct.unpack_from("=IHHII", answer)
    code = -struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else 0
    if code not in (0, errno.ENOENT):
        raise OSError(code, os.strerror(code))
    return not code


def _attr(kind: int, name: str) -> bytes:
    """Encode a name as an attribute, padded to four bytes."""
    value = name.encode() + b"\0"
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def remove(names: tuple[str, ...], lock: str, *, table: bool) -> Child:
    """Start removing chains, and with TABLE the whole table; what is gone already is no error."""
    # Adding first makes the deletion succeed whether or not somebody was faster.
    lines = [f"{verb} chain {TABLE} {c}" for c in names for verb in ("add", "flush", "delete")]
    text = [f"add table {TABLE}", *lines]
    if table:
        text = [f"add table {TABLE}", f"delete table {TABLE}"]
    return Child(("nft", "-f", "-"), "\n".join(text) + "\n", lock)
