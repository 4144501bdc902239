"""bridge.conf, by which qemu-bridge-helper says who may use which bridge (qemu-bridge-helper.c).

Lines of `allow BRIDGE`, `deny BRIDGE`, `allow all`, `deny all`, `include FILE`; comments begin
with `#`. A bridge that is both allowed and denied is denied.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = "/etc/qemu/bridge.conf"
_DEEPEST = 16  # includes in includes; a file may include itself


def objection(path: str, bridge: str, read: Callable[[str], str | None]) -> str:
    """Say why the helper refuses BRIDGE by the file PATH; empty when it does not.

    READ returns a file's text, or None when it is not there or cannot be read.
    """
    if read(path) is None:
        return f"{path} is missing"
    verdicts = _verdicts(path, bridge, read, _DEEPEST)
    if "deny" in verdicts:
        return f"{path} denies {bridge}"
    return "" if "allow" in verdicts else f"{path} does not allow {bridge}"


def _verdicts(
    path: str, bridge: str, read: Callable[[str], str | None], depth: int
) -> frozenset[str]:
    """Return what the rules of a file, and of those it includes, say of a bridge."""
    found: frozenset[str] = frozenset()
    for line in (read(path) or "").splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2 and words[0] == "include" and depth:
            found |= _verdicts(words[1], bridge, read, depth - 1)
        elif len(words) == 2 and words[1] in (bridge, "all"):
            found |= {words[0]}
    return found
