"""What was measured, as tables in Markdown."""

from __future__ import annotations

import math
import os
import platform
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bench.peers import CLEAN
from lab.tool import QEMU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.rounds import Figures


class Row(NamedTuple):
    """A row of the budget: its values, and what their median may be."""

    name: str
    values: list[float]
    unit: str
    limit: float
    aim: float | None = None
    low: float = -math.inf

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.values)

    @property
    def mark(self) -> str:
        """Whether it is within the budget."""
        if self.median < self.low:
            return "**below**"
        return "pass" if self.median <= self.limit else "**over**"


def machine() -> dict[str, str]:
    """Return what it was measured on."""
    told = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    cpu = next((line.partition(": ")[2] for line in told if line.startswith("model name")), "")
    release = platform.freedesktop_os_release()["PRETTY_NAME"]
    return {
        "machine": f"{os.cpu_count()} CPUs, {' '.join(cpu.split())}; load {os.getloadavg()[0]:.1f}",
        "system": f"{release}, Linux {platform.release().partition('-')[0]}",
        "Python": _first(str(CLEAN / "python"), "--version"),
        "QEMU": _first(QEMU, "--version"),
        "nft": _first("nft", "--version"),
        "dnsmasq": _first("dnsmasq", "--version"),
        "qemu-netwrap": metadata.version("qemu-netwrap"),
    }


def launchers(found: Mapping[str, Figures], *, ends: str) -> list[str]:
    """Return the table of launchers, each paired round by round with the first.

    ENDS is the head of the column of their ends.
    """
    lines = table("launcher", "up", "added", "spread", "ratio", ends)
    base = next(iter(found.values()))
    for name, figures in found.items():
        added = [a - b for a, b in zip(figures.up, base.up, strict=True)]
        ratio = statistics.median(a / b for a, b in zip(figures.up, base.up, strict=True))
        end = [q + g for q, g in zip(figures.quit, figures.gone, strict=True)]
        cells = (number(figures.up), number(added), spread(added), f"{ratio:.2f}", number(end))
        if figures is base:
            cells = (number(figures.up), "-", spread(figures.up), "1", number(end))
        lines.append(row(name, *cells))
    return lines


def budget(rows: Sequence[Row]) -> list[str]:
    """Return the table of the budget."""
    lines = table("figure", "measured", "spread", "at most", "aim", "")
    for each in rows:
        aim = "-" if each.aim is None else f"{each.aim:g}"
        measured = f"{each.median:.2f} {each.unit}".rstrip()
        scatter = spread(each.values, 1 if each.unit == "ms" else 2)
        lines.append(row(each.name, measured, scatter, _allowed(each), aim, each.mark))
    return lines


def _allowed(each: Row) -> str:
    """Return what the figure may be."""
    if each.limit == math.inf:
        return f"at least {each.low:g}"
    return f"{each.low:g} to {each.limit:g}" if each.low > -math.inf else f"{each.limit:g}"


def commands(found: Mapping[str, list[float]]) -> list[str]:
    """Return a table of commands and how long they took."""
    lines = table("command", "ms", "spread")
    return lines + [row(name, number(took), spread(took)) for name, took in found.items()]


def stages(found: Mapping[str, list[float]]) -> list[str]:
    """Return the ladder: what each step takes longer than the one before."""
    lines = table("what comes to it", "ms", "in all")
    below = 0.0
    for name, took in found.items():
        here = statistics.median(took)
        lines.append(row(name, f"{here - below:.1f}", f"{here:.1f}"))
        below = here
    return lines


def table(*heads: str) -> list[str]:
    """Return the head of a table: the first column is text, the others are figures."""
    return [row(*heads), row("---", *("---:" for _ in heads[1:]))]


def row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def number(values: Sequence[float]) -> str:
    """Return the median."""
    return f"{statistics.median(values):.1f}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the first and the third quartile."""
    low, _, high = statistics.quantiles(values) if len(values) > 1 else (values[0],) * 3
    return f"{low:.{digits}f} to {high:.{digits}f}"


def plain(found: Any) -> Any:  # noqa: ANN401  whatever was measured
    """Return what was measured as JSON has it."""
    if hasattr(found, "_asdict"):
        return plain(found._asdict())
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    return [plain(each) for each in found] if isinstance(found, (list, tuple)) else found


def _first(*command: str) -> str:
    """Return the first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].partition("  ")[0]


PLOT: Final = "benchmarks.svg"
