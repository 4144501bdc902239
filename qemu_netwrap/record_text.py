"""Records as lines of text: what the journal keeps and what launcher and keeper say to each other.

A line is a kind and `field=value` pairs, separated by tabs. Anyone can read it with cat(1); a
line cut short by a crash has no newline at its end and is dropped by whoever reads it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from qemu_netwrap.record import Record

    R = TypeVar("R", bound=Record)

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n"}


def write(kind: str, fields: dict[str, str]) -> str:
    """Return one line, without its newline."""
    return "\t".join((kind, *(f"{name}={escape(value)}" for name, value in fields.items())))


def read(line: str) -> tuple[str, dict[str, str]]:
    """Return kind and fields of a line that `write` made. Raises `ValueError` on any other."""
    kind, *pairs = line.split("\t")
    fields = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            msg = f"not a field: {pair!r}"
            raise ValueError(msg)
        fields[name] = unescape(value)
    return kind, fields


def fill(kind: type[R], fields: dict[str, str]) -> R:
    """Return the record of text fields that FIELDS were written from, by this version or another.

    What the other version did not know is empty; what it alone knew is left out.
    """
    return kind(**{name: fields.get(name, "") for name in kind.fields})


def escape(value: str) -> str:
    """Return VALUE without tabs, newlines and bare backslashes."""
    for plain, escaped in _ESCAPES.items():
        value = value.replace(plain, escaped)
    return value


def unescape(value: str) -> str:
    """Undo `escape`."""
    if "\\" not in value:
        return value
    plain = {"\\": "\\", "t": "\t", "n": "\n"}
    out, escaped = [], False
    for char in value:
        out.append(plain.get(char, char) if escaped else "" if char == "\\" else char)
        escaped = char == "\\" and not escaped
    return "".join(out)
