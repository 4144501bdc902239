"""A journal: what is about to be acquired, what was learned, what has been released.

A head, and three kinds of line, each written in one go before the next thing happens:

    journal <tab> format=2 ... the format of what follows, and the program that writes it
    +NUMBER <tab> RESOURCE     intent: written before the effect
    =NUMBER <tab> FACT=VALUE   what release will need: an ifindex, a former value
    -NUMBER                    released, and verified to be gone

A line that a crash cut short has no newline and is ignored: its effect had not begun.

The head is written together with the first intent. Lines without a head are of format 1, which had
none. A program that adds an intent to a journal of an older format writes its own head before it. A
journal with a head of a newer format is neither read nor written to: the meaning of its lines, the
older ones included, may have changed.
"""

from __future__ import annotations

import os
import sys

from qemu_netwrap import __version__, linux, record_text, resources
from qemu_netwrap.errors import HostError
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import Resource, Unreadable, from_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


FORMAT = 2  # raised when an older program would misread the lines
_HEAD = "journal"
_DIGITS = 18


class Entry(Record):
    """A resource that has not been released, and what is known of it."""

    number: int
    resource: Resource
    facts: dict[str, str]


def _with_facts(entry: Entry, line: str) -> Entry:
    """Return ENTRY with the facts in LINE added; with an `Unreadable` if LINE is damaged."""
    try:
        return entry.replace(facts=entry.facts | record_text.read(f"\t{line}")[1])
    except ValueError:
        return entry.replace(resource=Unreadable(f"{entry.resource.to_line()} ({line})"))


def _head() -> str:
    """Return the head: the format, and for `other_format` where this program is."""
    fields = {
        "format": str(FORMAT),
        "version": __version__,
        "package": os.path.abspath(__file__).rpartition("/qemu_netwrap/")[0],
        "python": sys.executable,
        "interpreter": os.path.realpath(sys.executable),  # it outlives a deleted venv
    }
    return record_text.write(_HEAD, fields)


def _is_number(text: str) -> bool:
    """Whether TEXT is a decimal number of at most `_DIGITS` digits."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


def _format(head: str) -> int:
    """Return the number of a head's format; 0 if it has none."""
    try:
        number = record_text.read(head)[1].get("format", "")
    except ValueError:
        return 0
    return int(number) if _is_number(number) else 0


class Journal:
    """The journal in a file, which is created with the first line."""

    def __init__(self, path: str) -> None:
        """Take the PATH of the file; nothing is opened yet."""
        self.path = path
        self._last = 0  # the number used last, valid while the file has this size:
        self._size = -1
        self._format = 1  # the newest format in its heads, valid likewise

    def check(self) -> None:
        """Raise the `HostError` that every other method raises for a newer format."""
        for _ in self._lines():
            pass

    def intend(self, resource: Resource) -> int:
        """Write that RESOURCE is about to be acquired; return its number."""
        size = linux.files.size(self.path)
        if size != self._size:  # another process has written, or nothing was read yet
            self._last = max((number for number, _, _ in self._lines()), default=0)
            self._size = size
        self._last += 1
        line = f"+{self._last}\t{resource.to_line()}"
        self._append(line if self._format == FORMAT else f"{_head()}\n{line}")
        self._format = FORMAT
        return self._last

    def note(self, number: int, **facts: str) -> None:
        """Write what was learned of a resource."""
        self._append(record_text.write(f"={number}", facts))

    def done(self, number: int) -> None:
        """Write that a resource is released."""
        self._append(f"-{number}")

    def live(self) -> list[Entry]:
        """Return the entries that are not released, in the order of their intents.

        A line that this version cannot read is an `Unreadable` among the others. Raises `HostError`
        for a journal of a newer format.
        """
        entries: dict[int, Entry] = {}
        for number, sign, rest in self._lines():
            if sign == "+":
                entries[number] = Entry(number, from_line(rest), {})
            elif sign == "=" and number in entries:
                entries[number] = _with_facts(entries[number], rest)
            elif sign == "-":
                entries.pop(number, None)
        return list(entries.values())

    def peek(self) -> list[Entry]:
        """Return the same; [] if the file cannot be read, which its own release reports."""
        try:
            return self.live()
        except (OSError, HostError):
            return []

    def _lines(self) -> Iterator[tuple[int, str, str]]:
        """Yield number, sign and the rest of every whole line. Raises `HostError` before any."""
        lines = linux.files.read(self.path).split("\n")[:-1]
        heads = [line for line in lines if line.startswith(f"{_HEAD}\t")]
        self._format = 1
        for head in heads:
            found = _format(head)
            if not 0 < found <= FORMAT:
                raise resources.other_format.error(self.path, head, FORMAT)
            self._format = max(self._format, found)
        for line in lines:
            head, _, rest = line.partition("\t")
            if head[:1] in ("+", "=", "-") and _is_number(head[1:]):
                yield int(head[1:]), head[0], rest

    def _append(self, line: str) -> None:
        """Add one line."""
        is_known = linux.files.size(self.path) == self._size
        linux.files.append(self.path, line)
        if is_known:
            self._size = linux.files.size(self.path)
