"""Numbers, sizes and booleans as QEMU reads them from a key=value list.

Rules: util/cutils.c (`qemu_strtoui`, `qemu_strtosz`) and qapi/opts-visitor.c, tried on QEMU 7.2
and 10.0.
"""

from __future__ import annotations

BOOLEANS = {
    "on": True, "yes": True, "true": True, "y": True,
    "off": False, "no": False, "false": False, "n": False,
}  # fmt: skip
SPACE = " \t\n\v\f\r"  # what strtoul(3) skips
_SUFFIXES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_DIGITS, _BEYOND = 64, 1 << 256  # digits of 64 bits in base 2; above any 64-bit number
_UINT32, _UINT64 = (1 << 32) - 1, (1 << 64) - 1
# The smallest and the largest number of a kind.
_RANGES = {
    "u16": (0, (1 << 16) - 1),
    "u32": (0, _UINT32),
    "u64": (0, _UINT64),
    "i32": (-(1 << 31), (1 << 31) - 1),
    "i64": (-(1 << 63), (1 << 63) - 1),
}


def fault(key: str, text: str, kind: str) -> str:
    """Return QEMU's message if TEXT is no value for KEY; "" if it is, or KIND is not checked."""
    if kind == "bool":
        return "" if text in BOOLEANS else f"Parameter '{key}' expects 'on' or 'off'"
    if kind == "size":
        return "" if is_size(text) else f"Parameter '{key}' expects a size value"
    if kind in _RANGES:
        what = "an int64 value" if kind[0] == "i" else "a uint64 value"
        return "" if in_range(text, kind) else f"Parameter '{key}' expects {what}"
    return ""


def in_range(text: str, kind: str) -> bool:
    """Whether TEXT is a number in the range of KIND, a key of `_RANGES`."""
    least, greatest = _RANGES[kind]
    text = text.lstrip(SPACE)
    number = integer(text.removeprefix("-")) if least < 0 else integer(text.removeprefix("+"))
    if number is None:
        return False
    return least <= (-number if text.startswith("-") else number) <= greatest


def parse_uint32(text: str) -> int | None:
    """Return a decimal, 0x hexadecimal or 0 octal number; None if it is no 32-bit number."""
    number = integer(text.lstrip(SPACE).removeprefix("+"))
    return number if number is not None and number <= _UINT32 else None


def is_size(text: str) -> bool:
    """Whether TEXT is a size: a number with a suffix like M, which may then have a fraction."""
    suffix = text[-1:].lower()
    plain = text[:-1] if suffix in _SUFFIXES and not text.startswith("0x") else text
    shift = _SUFFIXES[suffix] if plain != text else 0
    number = integer(plain)
    if number is None:
        whole, dot, fraction = plain.partition(".")
        if not (shift and dot and _digits(whole) and _digits(fraction)):
            return False
        number = (integer(whole.lstrip("0") or "0") or 0) + 1
    return number << shift <= _UINT64


def integer(text: str) -> int | None:
    """Return a number in the base of its prefix, as strtoul(3) with base 0 does; else None.

    More than 64 digits become `_BEYOND`: Python's `int` refuses to read 5,000 digits.
    """
    if text[:2] in ("0x", "0X"):
        body, base = text[2:], 16
    else:
        body, base = text, 8 if text[:1] == "0" else 10
    allowed = set("0123456789abcdef"[:base])
    if not (body and set(body.lower()) <= allowed):
        return None
    body = body.lstrip("0") or "0"
    return int(body, base) if len(body) <= _DIGITS else _BEYOND


def _digits(text: str) -> bool:
    """Whether TEXT consists of decimal digits, at least one."""
    return text.isascii() and text.isdigit()
