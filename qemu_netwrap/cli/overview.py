"""The first screen: what the program does, and its commands by subject, each with an example."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from qemu_netwrap.cli import declare, options
from qemu_netwrap.cli.tables import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterator

_USAGE: Final = """\
Usage: qemu-netwrap [OPTIONS] [--] [QEMU] [QEMU'S OPTIONS AND IMAGES]...
       qemu-netwrap [OPTIONS] COMMAND [ARGS]...
"""
_NETWORKS: Final = """\
Networks, as -nic, -netdev or -net takes them:
  nat        guests reach what this host reaches, and each other by name
  host-only  guests reach each other and this host
  bridge,br=BRIDGE, tap,network=NAME, tap,br=BRIDGE, sriov,pf=NIC, user
"""
_MORE: Final = "qemu-netwrap help COMMAND shows a command's options; man qemu-netwrap, all.\n"


def text(*, with_options: bool = False) -> str:
    """Return the overview, for a terminal of 80 columns; WITH_OPTIONS also the program's own."""
    sentence = declare.help_of("").partition("\n\n")
    parts = [_paragraph(sentence[0]), _paragraph(sentence[2]), _USAGE]
    if with_options:
        parts.append("".join(_table("Options:", _options())))
    parts += ["".join(_section(subject)) for subject in options.SUBJECTS]
    return "\n".join((*parts, _NETWORKS, _MORE))


def _paragraph(text: str) -> str:
    """Return sentences, filled."""
    return textwrap.fill(" ".join(text.split()), WIDTH) + "\n"


def _section(subject: options.Subject) -> Iterator[str]:
    """Yield the lines of a subject: its commands and its examples."""
    found = map(options.of, subject.words)
    rows = [(each.words, _first_sentence(each.help)) for each in found]
    yield from _table(f"{subject.title}:", rows)
    yield from (f"    $ {example}\n" for example in subject.examples)


def _options() -> list[tuple[str, str]]:
    """Return the program's options as typed, with their help."""
    return [
        (", ".join(option.names) + f" {option.value}" * bool(option.value), option.help)
        for option in options.PROGRAM_ITSELF.options
    ]


def _table(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a title and of rows below it: names, and texts beside them."""
    yield f"{title}\n"
    wide = max(len(name) for name, _ in rows)
    for name, told in rows:
        begin = f"  {name:<{wide}}  "
        filled = textwrap.fill(
            declare.plain(told), WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin)
        )
        yield f"{filled}\n"


def _first_sentence(text: str) -> str:
    """Return the sentence that lists of commands show."""
    return " ".join(text.partition("\n\n")[0].split())
