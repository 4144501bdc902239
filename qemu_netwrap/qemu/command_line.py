"""QEMU's command line, split into options as QEMU splits it (system/vl.c, `lookup_opt`).

A word that does not start with a dash is a disk image. An option may have one or two dashes and
must match exactly; one that takes an argument takes the next word, whatever it looks like.
"""

from __future__ import annotations

from qemu_netwrap.qemu.known_options import SOMETIMES, WITH_ARGUMENT, WITHOUT_ARGUMENT
from qemu_netwrap.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

# Options that make QEMU print and exit, wherever they stand.
PRINTS = frozenset({"audio-help", "h", "help", "version"})
# Options that make QEMU print if their value, or one element of it, is `help` or `?`.
ANSWERS_HELP = frozenset(
    "M accel action add-fd audio audiodev blockdev boot chardev cpu d device display drive global"
    " iscsi L m machine msg net netdev nic object overcommit plugin rtc run-with smp soundhw spice"
    " tpmdev trace vga vnc watchdog watchdog-action".split()
)
# Options that make netdevs.
NETWORK = ("netdev", "nic", "net")

_HELP_ELEMENTS = frozenset(
    f"{key}{value}"
    for key in ("", "type=", "model=", "driver=", "qom-type=", "backend=", "trace=")
    for value in ("help", "?")
)
_HELP_WORDS = frozenset({"help", "?"})
# Other beginnings of an element that requests help: for some, the key suffices.
_HELP_ALSO = {"device": ("help=", "?="), "drive": ("format=help", "format=?")}


class Option(Record):
    """One option: its name without dashes, its index in the words, and its argument.

    A section of a -readconfig file is an option too (qemu.readconfig): NUMBER is its index in the
    file that the option at `at` names.
    """

    name: str
    at: int
    value: str | None = None
    number: int | None = None

    @property
    def typed(self) -> str:
        """The option and its argument, for messages."""
        return f"-{self.name}" if self.value is None else f"-{self.name} {self.value}"


class CommandLine(Record):
    """QEMU's words (words[0] is the program), split into options and disk images."""

    words: tuple[str, ...]
    options: tuple[Option, ...] = ()
    images: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # words that QEMU would reject as an invalid option
    truncated: bool = False  # the last option lacks its argument

    @property
    def refused(self) -> bool:
        """Whether QEMU is sure to refuse these words, whatever their values are."""
        return bool(self.unknown) or self.truncated

    @property
    def is_uncertain(self) -> bool:
        """Whether an option exists in some versions of QEMU only, or is unknown."""
        return bool(self.unknown) or any(option.name in SOMETIMES for option in self.options)

    @property
    def prints_and_exits(self) -> bool:
        """Whether QEMU prints help or its version and runs nothing."""
        return any(option.name in PRINTS or _asks_for_help(option) for option in self.options)

    @property
    def runs(self) -> bool:
        """Whether QEMU would run a machine, as far as its options are known."""
        return not self.refused and not self.prints_and_exits

    @property
    def may_set_up_taps(self) -> bool:
        """Whether a tap may be set up by the user's keys: a cheap check with false positives."""
        texts = (option.value or "" for option in self.named(*NETWORK))
        return self.runs and any(map(_may_set_up_tap, texts))

    @property
    def may_pass_through(self) -> bool:
        """Whether a host device may be passed through: a cheap check with false positives."""
        return any("vfio-pci" in (option.value or "") for option in self.named("device"))

    def named(self, *names: str) -> Iterator[Option]:
        """Yield the options with these names, in the order typed."""
        return (option for option in self.options if option.name in names)

    def with_options(self, values: Mapping[int, str]) -> CommandLine:
        """Return the command line with changed arguments; VALUES is that of `with_values`."""
        options = (o.replace(value=values.get(o.at, o.value)) for o in self.options)
        return self.replace(words=self.with_values(values), options=tuple(options))

    def with_values(
        self,
        values: Mapping[int, str],
        without: Container[int] = (),
        instead: Mapping[int, tuple[str, ...]] | None = None,
    ) -> tuple[str, ...]:
        """Return the words with changed arguments: VALUES is {index of the option: value}.

        The options at the indexes WITHOUT are left out, with their arguments; those in INSTEAD
        are replaced by other words.
        """
        words = list(self.words)
        for at, value in values.items():
            words[at + 1] = value
        for option in reversed(self.options):
            if option.at in without:
                del words[option.at : option.at + 2]
            elif instead and option.at in instead:
                words[option.at : option.at + 2] = instead[option.at]
        return tuple(words)


def parse(
    words: Sequence[str],
    with_argument: frozenset[str] = WITH_ARGUMENT,
    without_argument: frozenset[str] = WITHOUT_ARGUMENT,
) -> CommandLine:
    """Split WORDS (the program first) into options and disk images. Never raises."""
    options: list[Option] = []
    images: list[str] = []
    unknown: list[str] = []
    truncated = False
    at = 1
    while at < len(words):
        word = words[at]
        name = word[2:] if word.startswith("--") else word[1:]
        if not word.startswith("-"):
            images.append(word)
        elif name in with_argument:
            truncated = at + 1 == len(words)
            options.append(Option(name, at, None if truncated else words[at + 1]))
            at += 1
        elif name in without_argument:
            options.append(Option(name, at))
        else:
            unknown.append(word)
        at += 1
    return CommandLine(tuple(words), tuple(options), tuple(images), tuple(unknown), truncated)


def parse_for(
    words: Sequence[str], with_argument: frozenset[str], without_argument: frozenset[str]
) -> CommandLine:
    """Split WORDS as a QEMU does whose -help lists these options."""
    gone = SOMETIMES - with_argument - without_argument
    return parse(
        words,
        (WITH_ARGUMENT | with_argument) - gone,
        (WITHOUT_ARGUMENT | without_argument) - gone,
    )


def _may_set_up_tap(text: str) -> bool:
    """Whether a netdev may be set up by the user's keys, so that these can make it fail."""
    if any(key in text for key in ("ifname", "helper", "script")):
        return True
    return "fd" in text and ("vhost" in text or "br=" in text)


def _asks_for_help(option: Option) -> bool:
    """Whether this option's value makes QEMU list the possible values."""
    if option.value is None:
        return False
    if option.name == "name":  # its first element is a name
        return not _HELP_WORDS.isdisjoint(option.value.split(",")[1:])
    if option.name not in ANSWERS_HELP:
        return False
    elements = [option.value] if option.name == "L" else option.value.split(",")
    if option.name == "accel":
        del elements[1:]
    more = _HELP_ALSO.get(option.name, ())
    return any(each in _HELP_ELEMENTS or each.startswith(more or "\0") for each in elements)
