"""bridge.conf: to which bridges the helper may attach taps (QEMU's qemu-bridge-helper.c)."""

from __future__ import annotations

from qemu_netwrap.model.names import IFNAME_BYTES
from qemu_netwrap.record import Record

ALLOW, DENY, INCLUDE = "allow", "deny", "include"
ALL = "all"
_BLANK = " \t\n\f\r"  # g_ascii_isspace


class Rule(Record):
    """One line: `allow` or `deny` with a bridge or `all`, `include` with a file."""

    verb: str
    what: str


class Acl(Record):
    """The rules of a file up to its first mistake, and that mistake (LINE: TEXT), else empty."""

    rules: tuple[Rule, ...] = ()
    fault: str = ""


def parse(text: str) -> Acl:
    """Return a file's rules as QEMU's helper reads them: those above the first mistake apply.

    The verb ends at the first space of the line or, only if there is none, at the first tab.
    """
    rules: list[Rule] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.lstrip(_BLANK)
        if not line or line.startswith("#"):
            continue
        verb, found, what = line.partition(" " if " " in line else "\t")
        if not found:
            return Acl(tuple(rules), f"{number}: {verb} what? A name is missing")
        if verb not in (ALLOW, DENY, INCLUDE):
            return Acl(tuple(rules), f"{number}: unknown command {verb!r}")
        rules.append(Rule(verb, what.strip(_BLANK)))
    return Acl(tuple(rules))


def verdict(rules: tuple[Rule, ...], bridge: str) -> str:
    """Return the rules' verdict on a bridge: `deny`, which takes precedence, `allow`, or ""."""
    verbs = {rule.verb for rule in rules if _means(rule.what, bridge)}
    return next((verb for verb in (DENY, ALLOW) if verb in verbs), "")


def _means(what: str, bridge: str) -> bool:
    """Whether a rule applies to BRIDGE; QEMU cuts names to an interface's length."""
    raw = what.encode("utf-8", "surrogateescape")[:IFNAME_BYTES]
    return what == ALL or raw == bridge.encode("utf-8", "surrogateescape")
