"""QEMU's command line, cut into options the way QEMU cuts it (system/vl.c, `lookup_opt`).

A word that does not start with a dash is a disk image. An option may have one or two dashes and
must match exactly; one that takes an argument takes the next word, whatever it looks like.
"""

from __future__ import annotations

from qemu_netwrap.core.qemu_options import WITH_ARGUMENT, WITHOUT_ARGUMENT
from qemu_netwrap.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Options that print and exit, wherever they stand.
PRINTS = frozenset({"audio-help", "h", "help", "version"})
# Options that print when their value, or one element of it, is `help` or `?`.
ANSWERS_HELP = frozenset(
    "M accel audio audiodev blockdev chardev cpu d device display drive global machine net netdev"
    " nic object smp soundhw spice tpmdev trace vga vnc watchdog watchdog-action".split()
)
# Options that make netdevs.
NETWORK = ("netdev", "nic", "net")

_HELP_ELEMENTS = frozenset(
    f"{key}{value}"
    for key in ("", "type=", "model=", "driver=", "qom-type=", "backend=", "trace=")
    for value in ("help", "?")
)


class Option(Record):
    """One option: its name without dashes, and where it and its argument stand in the words."""

    name: str
    at: int
    value: str | None = None

    @property
    def typed(self) -> str:
        """The option and its argument as a message shows them."""
        return f"-{self.name}" if self.value is None else f"-{self.name} {self.value}"


class CommandLine(Record):
    """QEMU's words (words[0] is the program) and what they are."""

    words: tuple[str, ...]
    options: tuple[Option, ...] = ()
    images: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # words QEMU would call an invalid option
    truncated: bool = False  # the last option lacks its argument

    @property
    def refused(self) -> bool:
        """Whether QEMU is sure to refuse these words, whatever their values are."""
        return bool(self.unknown) or self.truncated

    @property
    def prints_and_exits(self) -> bool:
        """Whether QEMU prints help or its version and runs nothing."""
        return any(option.name in PRINTS or _asks_for_help(option) for option in self.options)

    @property
    def may_be_ours(self) -> bool:
        """Whether QEMU will run these words, and they say anything of a network."""
        runs = not self.refused and not self.prints_and_exits
        return runs and any(self.named(*NETWORK))

    @property
    def may_set_up_taps(self) -> bool:
        """Whether some tap may be set up in the user's own way. Quick, and not exact."""
        texts = (option.value or "" for option in self.named(*NETWORK))
        own = any(key in text for text in texts for key in ("ifname", "helper", "script"))
        return own and self.may_be_ours

    def named(self, *names: str) -> Iterator[Option]:
        """Yield the options of these names, in the order typed."""
        return (option for option in self.options if option.name in names)

    def with_values(self, values: dict[int, str]) -> tuple[str, ...]:
        """Return the words with some options' arguments changed: {index of the option: value}."""
        words = list(self.words)
        for at, value in values.items():
            words[at + 1] = value
        return tuple(words)


def parse(
    words: Sequence[str],
    with_argument: frozenset[str] = WITH_ARGUMENT,
    without_argument: frozenset[str] = WITHOUT_ARGUMENT,
) -> CommandLine:
    """Cut WORDS (the program first) into options and disk images. Never fails."""
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


def _asks_for_help(option: Option) -> bool:
    """Tell whether this option's value asks QEMU for a list of possible values."""
    if option.name not in ANSWERS_HELP or option.value is None:
        return False
    elements = option.value.split(",")
    return any(element in _HELP_ELEMENTS for element in elements)
