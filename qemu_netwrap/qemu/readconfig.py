r"""A -readconfig file, parsed as QEMU parses it and written with some sections changed.

The rules are those of `qemu_config_foreach` in QEMU's util/qemu-config.c, which uses sscanf(3):
it ignores what follows a closing quote or bracket; `key = value` without quotes sets `key` to "",
and `key="value"` without blanks sets the key `key="value"` to "". Tried on QEMU 7.2 and 10.0.
"""

from __future__ import annotations

import re

from qemu_netwrap.qemu.command_line import Option
from qemu_netwrap.qemu.keyval import Item, OptList, escape
from qemu_netwrap.qemu.known_options import GROUPS
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CHARS = 1023  # what fgets(3) reads into char[1024]

# sscanf's "%63s" is greedy and does not backtrack: hence the possessive `}+`.
_WITH_ID = re.compile(r'\[\s*(\S{1,63}+)\s*"([^"]{1,63})', re.ASCII)
_WITHOUT_ID = re.compile(r"\[([^\]]{1,63})")
_PAIR = re.compile(r'\s*(\S{1,63}+)\s*=\s*"([^"]{1,1023})', re.ASCII)
_KEY = re.compile(r"\s*(\S{1,63})", re.ASCII)


class Section(Record):
    """One section: its group, its elements, and its lines."""

    group: str
    opts: OptList
    first: int  # the header's line, from 0
    end: int  # after the last line


class Place(Option):
    """A section as an option: `at` is the index of the -readconfig that names its file."""

    shown: str = ""

    @property
    def typed(self) -> str:
        """The section, for messages."""
        return self.shown


class ConfigFile(Record):
    """A file's text and sections; `fault` is QEMU's message if it would reject the file."""

    path: str
    lines: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    fault: str = ""

    def place(self, number: int, at: int) -> Place:
        """Return section NUMBER as an option; AT is the index of the option that names the file."""
        section = self.sections[number]
        header = self.lines[section.first].strip()
        shown = f"{self.path}:{section.first + 1}: {header}"
        return Place(section.group, at, section.opts.render(), number, shown)

    def rewritten(self, changed: Mapping[int, OptList]) -> str:
        """Return the file's text with sections replaced: CHANGED is {number: elements}."""
        lines = list(self.lines)
        for number in sorted(changed, reverse=True):
            section = self.sections[number]
            pairs = [_line(i.key, i.value) for i in changed[number].items if i.key != "id"]
            given = changed[number].get("id")
            pairs += [_line("id", given)] if given is not None else []
            header = _closed(self.lines[section.first])
            lines[section.first : section.end] = [f"{header}\n", *pairs, "\n"]
        return "".join(lines)


def parse(path: str, text: str) -> ConfigFile:
    """Parse TEXT of the -readconfig file PATH. Never raises: see `ConfigFile.fault`."""
    lines = tuple(_pieces(text))
    sections: list[Section] = []
    fault = ""
    group, first, pairs = "", 0, dict[str, str]()
    for number, piece in enumerate(lines):
        line = piece.partition("\0")[0]  # C's strings end there
        if line.startswith(("\n", "#")):
            continue
        if line.startswith("[") and (header := _header(line)):
            if group:
                sections.append(_section(group, pairs, first, number))
            (group, name), first = header, number
            pairs = {"id": name} if name else {}
            continue
        pair = _pair(line)
        fault = fault or ("" if pair and group else "parse error" if group else "no group defined")
        if pair and group:
            pairs[pair[0]] = pair[1]
    if group:
        sections.append(_section(group, pairs, first, len(lines)))
    fault = fault or next(
        (f"There is no option group '{s.group}'" for s in sections if s.group not in GROUPS), ""
    )
    return ConfigFile(path, lines, tuple(sections), fault)


def _pieces(text: str) -> list[str]:
    """Return TEXT in the pieces that fgets(3) returns: lines, of which long ones are split."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    return [line[at : at + _CHARS] for line in lines for at in range(0, len(line), _CHARS)]


def _header(line: str) -> tuple[str, str] | None:
    """Return (group, id) of a section's header, id "" without one; None if LINE is no header."""
    if found := _WITH_ID.match(line):
        return found[1], found[2]
    if found := _WITHOUT_ID.match(line):
        return found[1], ""
    return None


def _closed(header: str) -> str:
    """Return a section's header without its line end, which would extend an unclosed group or id.

    One that fgets has cut has no room for a bracket.
    """
    if header.endswith("\n") or len(header) == _CHARS:
        return header.removesuffix("\n")
    return f'{header}"]' if _WITH_ID.match(header) else f"{header}]"


def _pair(line: str) -> tuple[str, str] | None:
    """Return (key, value) of a line; None if it has no key."""
    if found := _PAIR.match(line):
        return found[1], found[2]
    found = _KEY.match(line)
    return (found[1], "") if found else None


def _line(key: str, value: str) -> str:
    """Return an element's line. A value without a closing quote includes the line end."""
    return f'  {key} = "{value}' if value.endswith("\n") else f'  {key} = "{value}"\n'


def _section(group: str, pairs: dict[str, str], first: int, end: int) -> Section:
    """Return a section of these elements."""
    items = (Item(key, value, f"{key}={escape(value)}") for key, value in pairs.items())
    return Section(group, OptList(tuple(items)), first, end)
