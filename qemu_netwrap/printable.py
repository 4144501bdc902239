"""Text that is safe for a terminal: characters that a terminal would act on are escaped.

Names, paths, messages of nft and dnsmasq, and values of a configuration may contain escape
sequences, C1 controls, or marks that change the text direction. All output goes through here.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def line(text: str) -> str:
    """Return TEXT as one line of printable characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spelt(char) for char in text)


def lines(text: str) -> str:
    """Return TEXT as lines of printable characters."""
    return "\n".join(map(line, text.split("\n")))


def _spelt(char: str) -> str:
    r"""Return a character as an escape of TOML and JSON; a byte that is not UTF-8 as \xNN."""
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # by `surrogateescape`
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
