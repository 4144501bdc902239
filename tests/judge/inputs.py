"""The inputs: what is in the files inputs/*.txt, a line each."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent / "inputs"


@dataclass(frozen=True)
class Input:
    """A line: words, and where some of them are ours, words of QEMU's alone that mean the same."""

    place: str  # file:line
    typed: str
    words: tuple[str, ...]
    plain: tuple[str, ...] | None

    def __str__(self) -> str:
        """Name the input as a test's id."""
        return f"{self.place} {self.typed}"


def read() -> Iterator[Input]:
    """Yield every input."""
    for path in sorted(FOLDER.glob("*.txt")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line and not line.startswith("#"):
                typed, arrow, plain = line.partition(" => ")
                yield Input(
                    f"{path.stem}:{number}",
                    line,
                    tuple(shlex.split(typed)),
                    tuple(shlex.split(plain)) if arrow else None,
                )


def with_files(
    words: tuple[str, ...], folder: Path, name: str, stand_ins: dict[str, str]
) -> tuple[str, ...]:
    r"""Return WORDS with each `<(TEXT)` as the path of a file in FOLDER that has that text.

    `\n` in it is a line's end, `{dir}` in any word is the folder; others are STAND_INS.
    """
    done = []
    for number, typed in enumerate(words):
        word = functools.reduce(lambda text, pair: text.replace(*pair), stand_ins.items(), typed)
        if word.startswith("<(") and word.endswith(")"):
            path = folder / f"{name}-{number}.conf"
            path.write_text(word[2:-1].replace("\\n", "\n"), "utf-8", newline="")
            done.append(str(path))
        else:
            done.append(word.replace("{dir}", str(folder)))
    return tuple(done)
