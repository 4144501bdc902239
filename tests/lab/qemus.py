"""Another QEMU beside the installed one: the backports' package, unpacked and never installed."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Final

from lab.guest import cache, tool

_SUITE: Final = "bookworm-backports"
_PACKAGES: Final = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")
_SOURCE: Final = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    f" http://deb.debian.org/debian {_SUITE} main\n"
)
_PROGRAM: Final = "usr/bin/qemu-system-x86_64"


@functools.cache
def backports() -> Path:
    """Return the backports' qemu-system-x86_64; the first call ever downloads and unpacks it.

    apt gets sources, lists and cache of its own for that: the system's are left as they are.
    """
    target = cache() / f"qemu-{_SUITE}"
    if not (target / _PROGRAM).exists():
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as folder:
            tree = _download(Path(folder))
            try:
                tree.rename(target)
            except OSError:
                # Another run of the tests was faster.
                if not (target / _PROGRAM).exists():
                    raise
    return target / _PROGRAM


def _download(folder: Path) -> Path:
    """Download the packages into FOLDER; return the tree that they were unpacked into."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(_SOURCE, encoding="ascii")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "none",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": 5,
    }
    own = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    tool("apt-get", *own, "-q", "update")
    tool("apt-get", *own, "-q", "download", *_PACKAGES, cwd=str(folder / "debs"))
    for package in sorted((folder / "debs").glob("*.deb")):
        tool("dpkg", "-x", str(package), str(folder / "tree"))
    return folder / "tree"
