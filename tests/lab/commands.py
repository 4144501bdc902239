r"""Command lines from documentation and from other programs, and what must come of each.

They are in tests/unit/commands/*.txt, shortened where the rest is of no matter. A case is a
paragraph:

    # where it comes from
    qemu-system-x86_64 disk.img \
        -netdev bridge,id=n0 -device e1000,netdev=n0
        there br0
        -netdev tap,id=n0,fd=FD
        -device e1000,netdev=n0,mac=MAC
        qn4242-0 on br0

First the words as a shell takes them. Below, indented, what the host has: interfaces that are
`there`, and the bridge that the `default route` goes by. Then what comes of it: every option that
changes, in order, and every tap with its network and what is unusual about it. FD, VHOST and MAC
stand for what is chosen at the launch. `unchanged` says that QEMU gets the words as they are and
nothing is provisioned; what QEMU 7.2 says against them, if it does, is behind `refused:`.

To add one, write its source and its words, run the test, and judge what it says came of it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[1] / "unit" / "commands"


class Command(NamedTuple):
    """A command line, the host that it is typed on, and what must come of it."""

    where: str  # file and line
    words: tuple[str, ...]
    there: tuple[str, ...]
    host_bridge: str
    refused: str
    outcome: tuple[str, ...]


def commands() -> Iterator[Command]:
    """Yield every case, in the order of files and lines."""
    for file in sorted(FOLDER.glob("*.txt")):
        line = 1
        for paragraph in file.read_text().split("\n\n"):
            yield read(paragraph, f"{file.stem}:{line}")
            line += paragraph.count("\n") + 2


def read(paragraph: str, where: str) -> Command:
    """Read a case. Raises `ValueError` if its source is not named."""
    source, typed, *below = paragraph.strip("\n").replace("\\\n", " ").split("\n")
    if not source.startswith("# "):
        raise ValueError(f"{where}: where does this command line come from?")
    facts = dict.fromkeys(("there ", "default route by ", "refused: "), "")
    outcome = []
    for line in map(str.strip, below):
        fact = next((start for start in facts if line.startswith(start)), "")
        if fact:
            facts[fact] = line.removeprefix(fact)
        else:
            outcome.append(line)
    there, bridge, refused = facts.values()
    words = tuple(shlex.split(typed))
    return Command(where, words, tuple(there.split()), bridge, refused, tuple(outcome))
