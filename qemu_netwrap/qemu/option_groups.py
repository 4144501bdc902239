"""QEMU's option groups, filled as QEMU fills them: by options, -readconfig files and -set.

QEMU processes its options once, in order (system/vl.c, the second pass of `qemu_init`). An option
for a netdev or a NIC becomes an entry of its group; -readconfig adds more; -set changes existing
entries. QEMU checks types and keys only afterwards.
"""

from __future__ import annotations

from qemu_netwrap import qemu
from qemu_netwrap.qemu.command_line import Option
from qemu_netwrap.qemu.keyval import OptList
from qemu_netwrap.qemu.known_options import GROUPS
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_netwrap.qemu.command_line import CommandLine
    from qemu_netwrap.qemu.json_options import JsonObject
    from qemu_netwrap.qemu.readconfig import ConfigFile

IMPLIED = {"netdev": "type", "nic": "type", "net": "type", "device": "driver"}
NETWORK = ("netdev", "nic", "net")
# Groups that -set rejects (`qemu_set_option`), and those that do not matter here.
NOT_SETTABLE = frozenset({"audiodev", "machine", "memory", "object", "smp-opts", "boot-opts"})
MODERN = ("stream", "dgram")  # netdevs of the new syntax even without JSON (net/net.c)
_SET_NAME = 63  # "%63[^.]"


class Entry(Record):
    """One entry of a group: the option that made it, its elements, each -set that changed it."""

    option: Option
    opts: OptList | JsonObject
    settings: tuple[Option, ...] = ()

    @property
    def id(self) -> str:
        """The entry's id, the first of several, or in the new syntax the last; else empty."""
        if isinstance(self.opts, OptList) and self.is_modern:
            return (self.opts.all("id") or ("",))[-1]
        return self.opts.get("id") or ""

    @property
    def is_modern(self) -> bool:
        """Whether it has QEMU's new syntax: JSON, or a -netdev of a type introduced with it."""
        if not isinstance(self.opts, OptList):
            return True
        if self.option.name != "netdev" or self.option.number is not None:
            return False  # sections of files have the old one
        return self.opts.get("type") in MODERN

    @property
    def group(self) -> str:
        """The group's name."""
        return self.option.name


class Groups(Record):
    """The entries of the groups netdev, nic, net and device, and faults found on adding them."""

    entries: tuple[Entry, ...] = ()
    faults: tuple[tuple[Option, str], ...] = ()

    def of(self, *groups: str) -> tuple[Entry, ...]:
        """Return the entries of these groups, in the order they were added."""
        return tuple(entry for entry in self.entries if entry.group in groups)


def fill(line: CommandLine, files: Mapping[int, ConfigFile]) -> Groups:
    """Return the groups of LINE; FILES are its -readconfig files by the index of the option.

    The one at -1 is read before any option (qemu.conf).
    """
    filling = _Filling()
    if -1 in files:
        filling.read_file(files[-1], Option("readconfig", -1, files[-1].path))
    for option in line.options:
        if option.name in IMPLIED:
            filling.add(option, read_list(option.value or "", IMPLIED[option.name], option.name))
        elif option.name == "readconfig" and option.at in files:
            filling.read_file(files[option.at], option)
        elif option.name == "set":
            filling.set(option)
    return Groups(tuple(filling.entries), tuple(filling.faults))


def read_list(
    text: str, implied: str, name: str = ""
) -> OptList | qemu.json_options.JsonObject | None:
    """Parse an option's argument, a key=value list or JSON; None if it is invalid JSON.

    -nic and -net accept no JSON (net/net.c calls `netdev_is_modern` for -netdev only).
    """
    if not text.startswith("{") or name in ("nic", "net"):
        return OptList.parse(text, implied)
    # Loaded here, as json takes longer than all other imports of the launch path together.

    try:
        return qemu.json_options.JsonObject.parse(text)
    except ValueError:
        return None


def valid_id(text: str) -> bool:
    """Whether QEMU accepts TEXT as an id: a letter, then letters, digits, `-`, `.` and `_`."""
    if not text.isascii() or not text[:1].isalpha():
        return False
    return all(char.isalnum() or char in "-._" for char in text)


class _Filling:
    """The groups while options are added to them."""

    def __init__(self) -> None:
        """Start with empty groups."""
        self.entries: list[Entry] = []
        self.faults: list[tuple[Option, str]] = []
        self._places: dict[tuple[str, str], int] = {}  # by (group, id), for the old syntax only

    def add(self, option: Option, opts: OptList | JsonObject | None) -> None:
        """Add the entry that OPTION makes."""
        if opts is None:
            self.faults.append((option, "not JSON that QEMU can read"))
            return
        entry = Entry(option, opts)
        if not entry.is_modern and opts.get("id") is not None:
            if not valid_id(entry.id):
                self.faults.append((option, "Parameter 'id' expects an identifier"))
            elif self._find(option.name, entry.id) is not None:
                self.faults.append((option, f"Duplicate ID '{entry.id}' for {option.name}"))
            self._places.setdefault((option.name, entry.id), len(self.entries))
        self.entries.append(entry)

    def read_file(self, file: ConfigFile, option: Option) -> None:
        """Add the entries of a file; OPTION names it."""
        for number, section in enumerate(file.sections):
            if section.group in IMPLIED:
                self.add(file.place(number, option.at), section.opts)
        if file.fault:
            self.faults.append((option, file.fault))

    def set(self, option: Option) -> None:
        """Apply -set GROUP.ID.KEY=VALUE: the first dot ends the group, the second the id."""
        path, equals, value = (option.value or "").partition("=")
        group, _, rest = path.partition(".")
        name, _, key = rest.partition(".")
        if not (equals and group and name and key) or max(map(len, (group, name, key))) > _SET_NAME:
            self.faults.append((option, f'can\'t parse: "{option.value or ""}"'))
        elif group in NOT_SETTABLE:
            self.faults.append((option, f"-set is not supported with {group}"))
        elif group not in GROUPS:
            self.faults.append((option, f"There is no option group '{group}'"))
        elif group in IMPLIED:
            at = self._find(group, name)
            if at is None:
                self.faults.append((option, f'there is no {group} "{name}" defined'))
            elif key == "id":
                self.faults.append((option, "an id cannot be changed"))  # QEMU aborts
            else:
                self._set(at, key, value, option)

    def _set(self, at: int, key: str, value: str, option: Option) -> None:
        """Add an element to the entry at index AT."""
        old = self.entries[at]
        if isinstance(old.opts, OptList):
            changed = old.opts.with_added((key, value))
            self.entries[at] = Entry(old.option, changed, (*old.settings, option))

    def _find(self, group: str, name: str) -> int | None:
        """Return the index of the entry with that id, else None; it must have the old syntax."""
        return self._places.get((group, name))
