"""QEMU's `key=value,...` lists, parsed as QEMU parses them and rendered as they were typed.

The rules are those of `get_opt_name_value` and `opts_do_parse` in QEMU's util/qemu-option.c:
`,,` stands for a comma inside a value, the first element may leave out its key, a bare word is a
flag (`foo` is on, `nofoo` is off), the last of a repeated key wins, for `id` the first.
"""

from __future__ import annotations

from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BARE_IDS = {"id": "on", "noid": "off"}


class Item(Record):
    """One element: its key and value as QEMU understands them, and the text as typed."""

    key: str
    value: str
    text: str
    flag: bool = False  # typed without a value


class OptList(Record):
    """A parsed list. `render()` of an unchanged list is the text it was parsed from."""

    items: tuple[Item, ...]
    tail: str = ""  # a trailing comma, which QEMU allows

    @classmethod
    def parse(cls, text: str, implied: str = "") -> OptList:
        """Parse TEXT; IMPLIED is the key of a first element typed without one (`type`)."""
        items = []
        start = 0
        key_if_bare = implied
        while start < len(text):
            end = _element_end(text, start)
            items.append(_item(text[start:end], key_if_bare))
            key_if_bare = ""
            start = end + 1
        return cls(tuple(items), "," if text.endswith(",") and start == len(text) else "")

    def render(self) -> str:
        """Return the list as text for QEMU's command line."""
        return ",".join(item.text for item in self.items) + self.tail

    def __iter__(self) -> Iterator[str]:
        """Yield every key, in order, as often as it was given."""
        return (item.key for item in self.items)

    def get(self, key: str) -> str | None:
        """Return the effective value of KEY: the last one given, for `id` the first; else None.

        QEMU looks for the id before it applies the implied key (`opts_parse_id`): so a bare first
        element `id` is an id as well, with the value `on`.
        """
        if key == "id" and self.items[:1] and self.items[0].text in _BARE_IDS:
            return _BARE_IDS[self.items[0].text]
        values = self.all(key)
        if not values:
            return None
        return values[0] if key == "id" else values[-1]

    def all(self, key: str) -> tuple[str, ...]:
        """Return every value given for KEY, in order."""
        return tuple(item.value for item in self.items if item.key == key)

    def without(self, *keys: str) -> OptList:
        """Return the list with every element of these keys left out."""
        return self.replace(items=tuple(item for item in self.items if item.key not in keys))

    def with_type(self, value: str) -> OptList:
        """Return the list with the effective `type` set to VALUE, with `type=` only if typed."""
        at = max(i for i, item in enumerate(self.items) if item.key == "type")
        bare = not self.items[at].text.startswith("type=")
        item = Item("type", value, value if bare else f"type={value}")
        return self.replace(items=(*self.items[:at], item, *self.items[at + 1 :]))

    def with_added(self, *pairs: tuple[str, str]) -> OptList:
        """Return the list with these key=value pairs at its end."""
        added = (Item(key, value, f"{key}={escape(value)}") for key, value in pairs)
        return OptList((*self.items, *added))


def escape(value: str) -> str:
    """Return VALUE with its commas doubled, as in a list."""
    return value.replace(",", ",,")


def _element_end(text: str, start: int) -> int:
    """Return where the element that begins at START ends.

    A key ends at the first `=` or `,`; in a value `,,` is a comma and does not end it. A first
    element without its key is a value from its first letter on, which makes no difference here:
    no key contains a comma.
    """
    at = start
    while (at := text.find(",", at)) >= 0:
        if text[at + 1 : at + 2] != ",":
            return at
        at += 2
    return len(text)


def _item(text: str, implied: str) -> Item:
    """Return the element typed as TEXT."""
    key, equals, value = text.partition("=")
    comma = key.find(",")
    if equals and comma < 0:
        return Item(key, value.replace(",,", ","), text)
    if implied:
        return Item(implied, text.replace(",,", ","), text)
    name = text.replace(",,", ",")
    if name.startswith("no"):
        return Item(name[2:], "off", text, flag=True)
    return Item(name, "on", text, flag=True)
