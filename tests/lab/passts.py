"""The passts of the tests, each pasta too: the installed one, and one as new as Debian 13's.

Where the installed one is older the new one is Debian 13's. It wants a newer libc than Debian 12
has, so it comes with that release's, and is run by its dynamic loader.
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lab import packages
from lab.guest import cache, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.netns import Host

_RELEASE: Final = "trixie"
_PACKAGES: Final = ("passt", "libc6")
# The first to carry what goes on when one half of a connection is closed: Debian's changelog.
_RECENT: Final = "0.0~git20240906"
_PLACE: Final = "/mnt"
_BIN: Final = "recent"
# passt knows by its first word that it is to be pasta.
_WRAPPER: Final = f"""#!/bin/sh
libs={_PLACE}/usr/lib/$(uname -m)-linux-gnu
exec "$libs"/ld-linux-*.so.? --library-path "$libs" --argv0 "${{0##*/}}" {_PLACE}/usr/bin/passt "$@"
"""


@functools.cache
def _is_recent() -> bool:
    """Whether the installed passt is as new."""
    version = tool("dpkg-query", "--show", "--showformat=${Version}", "passt")
    compared = ("dpkg", "--compare-versions", version, "ge", _RECENT)
    return subprocess.run(compared, check=False).returncode == 0


def kinds() -> list[str]:
    """Return the kinds of pasta that a machine can offer, `recent` and where it has one `old`."""
    return ["recent"] if _is_recent() else ["old", "recent"]


@contextlib.contextmanager
def on_path(host: Host, kind: str, path: str) -> Iterator[str]:
    """Yield PATH, changed so that HOST finds a passt and pasta of KIND by it."""
    if kind == "old" or _is_recent():
        yield path
        return
    host.run("mount", "--bind", str(_tree()), _PLACE)  # users may not read the cache
    try:
        yield f"{_PLACE}/{_BIN}:{path}"
    finally:
        host.run("umount", "--lazy", _PLACE)


@functools.cache
def _tree() -> Path:
    """Return the unpacked packages; the first call ever downloads them."""
    target = cache() / f"passt-{_RELEASE}"
    if not target.is_dir():
        with packages.apt(_RELEASE) as words:
            packages.unpack(words, target, *_PACKAGES)
    (target / _BIN).mkdir(exist_ok=True)
    for name in ("pasta", "passt"):
        _put(target / _BIN / name)
    return target


def _put(path: Path) -> None:
    """Make PATH the wrapper, in one step: another run of the tests may start it now."""
    if path.exists() and path.read_text(encoding="ascii") == _WRAPPER:
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="ascii", delete=False) as new:
        new.write(_WRAPPER)
    Path(new.name).chmod(0o755)
    Path(new.name).rename(path)
