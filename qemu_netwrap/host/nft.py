"""Our nftables table, by nft(8). Each change is one transaction of the kernel."""

from __future__ import annotations

from qemu_netwrap.host.spawn import Child

TABLE = "inet qemu_netwrap"


def add(rules: str, lock: str) -> Child:
    """Start adding chains (nft syntax) to our table, made if need be.

    By LOCK one change comes after the other, also after one whose starter was killed.
    """
    return Child(("nft", "-f", "-"), f"table {TABLE} {{\n{rules}}}\n", lock)


def remove(chains: tuple[str, ...], lock: str, *, table: bool) -> Child:
    """Start removing chains, and with TABLE the whole table; what is gone already is no error."""
    # Adding first makes the deletion succeed whether or not somebody was faster.
    lines = [f"{verb} chain {TABLE} {c}" for c in chains for verb in ("add", "flush", "delete")]
    text = [f"add table {TABLE}", *lines]
    if table:
        text = [f"add table {TABLE}", f"delete table {TABLE}"]
    return Child(("nft", "-f", "-"), "\n".join(text) + "\n", lock)
