"""A journal: what is about to be acquired, what was learned, what has been released.

Three kinds of line, each written in one go before the next thing happens:

    +NUMBER <tab> RESOURCE     intent: written before the effect
    =NUMBER <tab> FACT=VALUE   what release will need: an ifindex, a former value
    -NUMBER                    released, and seen to be gone

A line that a crash cut short has no newline and is ignored: its effect had not begun.
"""

from __future__ import annotations

from qemu_netwrap import linux, record_text
from qemu_netwrap.record import Record
from qemu_netwrap.resources.base import Resource, Unreadable, from_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_DIGITS = 18


class Entry(Record):
    """A resource that has not been released, and what is known of it."""

    number: int
    resource: Resource
    facts: dict[str, str]


def _with_facts(entry: Entry, line: str) -> Entry:
    """Return an entry with what a LINE of facts adds to it."""
    try:
        return entry.replace(facts=entry.facts | record_text.read(f"\t{line}")[1])
    except ValueError:
        return entry.replace(resource=Unreadable(f"{entry.resource.to_line()} ({line})"))


def _is_number(text: str) -> bool:
    """Whether TEXT is digits, no more than a line's number has."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS


class Journal:
    """The journal in a file, which is made with the first line."""

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self.path = path
        self._last = 0  # the number used last, when the file had this size
        self._size = -1

    def intend(self, resource: Resource) -> int:
        """Write that RESOURCE is about to be acquired; return its number."""
        size = linux.files.size(self.path)
        if size != self._size:  # somebody else has written, or this journal only begins
            self._last = max((number for number, _, _ in self._lines()), default=0)
            self._size = size
        self._last += 1
        self._append(f"+{self._last}\t{resource.to_line()}")
        return self._last

    def note(self, number: int, **facts: str) -> None:
        """Write what was learned of a resource."""
        self._append(record_text.write(f"={number}", facts))

    def done(self, number: int) -> None:
        """Write that a resource is released."""
        self._append(f"-{number}")

    def live(self) -> list[Entry]:
        """Return what is not released, in the order it was intended.

        A line that this version cannot read is an `Unreadable` among the others.
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
        """Return the same; nothing if the file cannot be read, which its own release reports."""
        try:
            return self.live()
        except OSError:
            return []

    def _lines(self) -> Iterator[tuple[int, str, str]]:
        """Yield number, sign and the rest of every whole line."""
        for line in linux.files.read(self.path).split("\n")[:-1]:
            head, _, rest = line.partition("\t")
            if head[:1] in ("+", "=", "-") and _is_number(head[1:]):
                yield int(head[1:]), head[0], rest

    def _append(self, line: str) -> None:
        """Add one line."""
        is_known = linux.files.size(self.path) == self._size
        linux.files.append(self.path, line)
        if is_known:
            self._size = linux.files.size(self.path)
