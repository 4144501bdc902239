"""The plot: how what a launch adds grows with the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def draw(growth: Mapping[str, list[tuple[int, float]]], path: Path) -> None:
    """Draw a panel for each thing that grows, into an SVG that depends on the figures alone."""
    mpl.rcParams["svg.hashsalt"] = "qemu-netwrap"
    figure = Figure(figsize=(7, 2.4), layout="constrained")
    panels = figure.subplots(1, len(growth), sharey=True)
    for panel, (what, points) in zip(panels, growth.items(), strict=True):
        panel.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1)
        panel.set(xlabel=f"{what} on the host", xscale="log", ylim=(0, None))
        panel.grid(visible=True, linewidth=0.3)
    panels[0].set_ylabel("ms added to QEMU's start")
    top = max(added for points in growth.values() for _, added in points)
    panels[0].set_ylim(0, top * 1.2)
    figure.savefig(path, metadata={"Date": None})
