"""Text in columns, and the output of `network list` and `network show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_netwrap.runtime.inventory import NetworkSummary
    from qemu_netwrap.runtime.status import NetworkStatus

_HEAD = ("NETWORK", "MODE", "BRIDGE", "ADDRESS", "STATE", "KEPT", "RUNS")


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


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
        known.address or "-",
        known.state,
        "yes" if known.kept else "-",
        str(len(known.runs)),
    )
