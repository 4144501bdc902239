"""Debian packages beside the installed ones: downloaded, unpacked, kept; never installed.

apt gets sources, lists and cache of its own for that: the system's are left as they are. Nor does
it know what is installed: an installed version that those sources do not have is not looked for.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab.guest import cache, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

SUITE: Final = "bookworm"
BACKPORTS: Final = "bookworm-backports"
_SOURCE: Final = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    " http://deb.debian.org/debian {} main\n"
)


@contextlib.contextmanager
def apt(*suites: str) -> Iterator[tuple[str, ...]]:
    """Yield the words by which apt knows SUITES, up to date, and nothing else."""
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".apt-") as name:
        folder = Path(name)
        for each in ("lists/partial", "cache/archives/partial"):
            (folder / each).mkdir(parents=True)
        (folder / "status").touch()
        sources = folder / "sources.list"
        sources.write_text("".join(map(_SOURCE.format, suites)), encoding="ascii")
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": folder / "none",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Retries": 5,
        }
        words = tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))
        tool("apt-get", *words, "-q", "update")
        yield words


def unpack(words: tuple[str, ...], target: Path, *packages: str) -> None:
    """Download packages, apt being told WORDS, and unpack them as the folder TARGET."""
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".new-") as folder:
        tool("apt-get", *words, "-q", "download", *packages, cwd=folder)
        tree = Path(folder, "tree")
        for package in sorted(Path(folder).glob("*.deb")):
            tool("dpkg", "-x", str(package), str(tree))
        try:
            tree.rename(target)
        except OSError:
            # Another run of the tests was faster.
            if not target.is_dir():
                raise
