"""Text in columns, and the output of `network list` and `network show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_netwrap.runtime.inventory import NetworkSummary
    from qemu_netwrap.runtime.status import NetworkStatus

WIDTH = 80  # columns of a terminal that nobody has made wider
_HEAD = ("NETWORK", "MODE", "BRIDGE", "STATE", "KEPT", "RUNS", "ADDRESS")


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, with each column as wide as its widest cell.

    Further lines of a last cell stand below the row. If one would not end within 80 columns there,
    it begins at an earlier column.
    """
    cells = [(*row[:-1], *row[-1].split("\n", 1)[:1]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    starts = [sum(widths[:at]) + 2 * at for at in range(len(widths))]
    lines = []
    for row, own in zip(rows, cells, strict=True):
        lines.append("  ".join(c.ljust(w) for c, w in zip(own, widths, strict=True)).rstrip())
        for more in row[-1].split("\n")[1:]:
            fitting = [start for start in starts if start + len(more) <= WIDTH]
            lines.append(" " * (fitting[-1] if fitting else 0) + more)
    return "\n".join(lines)


def networks_text(known: list[NetworkSummary]) -> str:
    """Return a table of all networks; a star marks the default."""
    return columns([_HEAD, *map(_row, known)])


def network_text(known: NetworkSummary, up: NetworkStatus | None) -> str:
    """Return one network as text; UP is its status, None if it is not up."""
    rows = [
        ("name", known.name),
        ("mode", known.mode),
        ("bridge", known.bridge),
        ("address", known.address),
        ("address6", known.address6),
        ("state", f"{known.state}, kept" if known.kept else known.state),
        ("runs", " ".join(known.runs)),
    ]
    if up is not None:
        rows += [
            ("ports", " ".join(up.ports)),
            ("dnsmasq", str(up.dnsmasq or "")),
            ("way out", up.way_out),
            *(("lease", f"{le.mac} {le.address} {le.name}".rstrip()) for le in up.leases),
            *(("fault", fault) for fault in up.faults),
        ]
    return columns([row for row in rows if row[1]])


def _row(known: NetworkSummary) -> tuple[str, ...]:
    """Return a network's row."""
    return (
        f"{known.name}*" if known.is_default else known.name,
        known.mode,
        known.bridge,
        known.state,
        "yes" if known.kept else "-",
        str(len(known.runs)),
        "\n".join(filter(None, (known.address, known.address6))) or "-",
    )
