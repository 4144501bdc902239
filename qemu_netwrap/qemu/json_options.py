"""The JSON form of -netdev and -device, with the interface of a key=value list (qemu.keyval).

Values are returned in the form of a key=value list: true is `on`, numbers are decimal. Only this
module imports `json`, so that only command lines with JSON pay for it.
"""

from __future__ import annotations

import json

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# The JSON types of the kinds of values (qemu.netdev_schema); other kinds are strings.
_TYPES: dict[str, type] = {
    "bool": bool, "list": list, "hostfwd": list, "dict": dict, "size": int,
    "u16": int, "u32": int, "u64": int, "i32": int, "i64": int,
}  # fmt: skip
_NAMES = {bool: "boolean", list: "array", dict: "object", int: "integer", str: "string"}


class JsonObject(Record):
    """A JSON object as an option's argument; if unchanged, it renders as typed."""

    data: dict[str, object]
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> JsonObject:
        """Parse TEXT. Raises `ValueError` if it is no JSON object, or repeats a key."""
        try:
            data = json.loads(
                _double_quoted(text), object_pairs_hook=_no_repeats, parse_constant=_no_constant
            )
            _check_characters(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(data, dict):
            msg = "not a JSON object"
            raise ValueError(msg)  # noqa: TRY004 - a wrong text, not a wrong call
        return cls(data, text)

    def kind_fault(self, key: str, kind: str) -> str:
        """Return QEMU's message if KEY's value does not have the JSON type of its kind, else ""."""
        value = self.data[key]
        wanted = _TYPES.get(kind, str)
        if type(value) is not wanted:
            return f"Invalid parameter type for '{key}', expected: {_NAMES[wanted]}"
        if isinstance(value, list) and not all(map(_is_string, value)):
            return f"Invalid parameter type for '{key}', expected: list of {{\"str\": ...}}"
        return ""

    def render(self) -> str:
        """Return the object as text for QEMU's command line."""
        return self.text or json.dumps(self.data, ensure_ascii=False)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys."""
        return iter(self.data)

    def get(self, key: str) -> str | None:
        """Return the value of KEY as a key=value list would spell it; None if it is missing."""
        if key not in self.data:
            return None
        value = self.data[key]
        if isinstance(value, bool):
            return "on" if value else "off"
        return value if isinstance(value, str) else json.dumps(value)

    def all(self, key: str) -> tuple[str, ...]:
        """Return the strings in the list that is KEY's value; () if it is missing."""
        value = self.data.get(key)
        return tuple(v["str"] for v in value if _is_string(v)) if isinstance(value, list) else ()

    def without(self, *keys: str) -> JsonObject:
        """Return the object without these keys."""
        return JsonObject({k: v for k, v in self.data.items() if k not in keys})

    def with_type(self, value: str) -> JsonObject:
        """Return the object with its type changed."""
        return JsonObject({**self.data, "type": value})

    def with_added(self, *pairs: tuple[str, str]) -> JsonObject:
        """Return the object with these pairs added, as strings; `addr.type` goes into `addr`."""
        data = {**self.data}
        for key, value in pairs:
            outer, dot, inner = key.partition(".")
            known = data.get(outer)
            nested = {**(known if isinstance(known, dict) else {}), inner: value}
            data[outer] = nested if dot else value
        return JsonObject(data)


def _is_string(value: object) -> bool:
    """Whether VALUE is {"str": ...}, in which QAPI wraps the strings of a list."""
    return isinstance(value, dict) and set(value) == {"str"} and isinstance(value["str"], str)


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object. Raises `ValueError` for a repeated key (QEMU's qobject/json-parser.c)."""
    if len({key for key, _ in pairs}) != len(pairs):
        msg = "duplicate key"
        raise ValueError(msg)
    return dict(pairs)


def _no_constant(name: str) -> object:
    """Raise `ValueError` for NaN and the infinities, which Python accepts."""
    raise ValueError(f"{name} is no JSON")


def _check_characters(value: object) -> None:
    r"""Raise `ValueError` for unpaired surrogates and \u0000, as QEMU rejects them."""
    text = json.dumps(value, ensure_ascii=False)
    text.encode()  # UnicodeEncodeError is a ValueError
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("a string has a zero in it")


def _double_quoted(text: str) -> str:
    r"""Return TEXT with its strings in double quotes: QEMU's JSON allows single ones as well.

    (qobject/json-lexer.c) In a single-quoted string \' is a quote, and " needs no backslash.
    """
    if "'" not in text:
        return text
    out, quote, at = [], "", 0
    while at < len(text):
        char = text[at]
        if char == "\\" and quote:
            pair = text[at : at + 2]
            out.append("'" if pair == "\\'" else pair)
            at += 2
            continue
        if not quote and char in "\"'":
            quote = char
            char = '"'
        elif char == quote:
            quote = ""
            char = '"'
        elif char == '"':
            char = '\\"'
        out.append(char)
        at += 1
    return "".join(out)
