"""Records as lines of text, for the journal and for messages between launcher and keeper.

A line is a kind and `field=value` pairs, separated by tabs, and readable with cat(1). A line that
a crash has cut short has no newline at its end, and its reader drops it.
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
    """Return the record, of text fields only, that this version or another wrote as FIELDS.

    A field that the other version did not know is empty; one that only it knows is dropped.
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
