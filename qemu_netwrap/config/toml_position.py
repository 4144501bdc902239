"""Line numbers of keys in TOML text, which `tomllib` does not provide."""

from __future__ import annotations


def line_of(text: str, path: str) -> int:
    """Return the line of TEXT that sets PATH (`networks.lab.mode`), a table or a value.

    If there is none: the line of its innermost enclosing table, or 1.
    """
    wanted = _plain(path)
    found, nearest, header = 1, "", ""
    for number, line in enumerate(text.split("\n"), 1):
        plain = _plain(line)
        if plain.startswith("["):
            named = header = plain.strip("[").partition("]")[0]
        elif "=" in plain and not plain.startswith("#"):
            named = ".".join(filter(None, (header, plain.partition("=")[0])))
        else:
            continue
        if named == wanted:
            return number
        if wanted.startswith(f"{named}.") and len(named) > len(nearest):
            found, nearest = number, named
    return found


def _plain(line: str) -> str:
    """Return a line without quotes and blanks, which may surround keys."""
    return "".join(char for char in line if char not in "\"' \t\r")
