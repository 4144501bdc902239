#!/usr/bin/env python3
"""Write what is made from the tables of options and commands, and of the configuration's keys.

The tables are qemu_netwrap/cli/options.py, qemu_netwrap/config/key_texts.py and config/parse.py.

    tools/generate.py [--check]

Each file below has a part between two marker lines, which this program writes; the rest of the
file is written by hand. With --check nothing is written: files that are not up to date are named,
and the exit status is 1. See CONTRIBUTING.md, "How to add an option".
"""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the table of this tree, not that of an installed version

from qemu_netwrap.cli import options  # noqa: E402 - the path above leads to it
from qemu_netwrap.config import key_texts, parse  # noqa: E402
from qemu_netwrap.model.network import MODES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_netwrap.cli.options import Argument, Command, Option

BEGIN, END = "begin generated", "end generated"
_WIDTH = 100  # columns of sources


def main(words: list[str]) -> int:
    """Write the generated parts, or check them. Returns the exit status."""
    if words not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}")
        return 2
    stale = []
    for name, made in PARTS.items():
        path = ROOT / name
        old = path.read_text("utf-8")
        new = filled(old, made)
        if new != old:
            stale.append(name)
            if not words:
                path.write_text(new, "utf-8")
    for name in stale:
        state = "out of date: run make generate" if words else "written"
        sys.stdout.write(f"{name}: {state}\n")
    return 1 if words and stale else 0


def filled(text: str, made: dict[str, Callable[[], Iterator[str]]]) -> str:
    """Return TEXT with each of its parts made anew. MADE has the lines of each part by its name.

    A part begins behind the line with `begin generated`, its name and a colon, and ends before the
    next line with `end generated`. A part that is missing raises `ValueError`.
    """
    lines = text.split("\n")
    for name, part in made.items():
        begin = next((n for n, line in enumerate(lines) if f"{BEGIN} {name}:" in line), None)
        if begin is None:
            raise ValueError(f"there is no line with {BEGIN!r} {name}:")
        end = next(n for n, line in enumerate(lines) if n > begin and END in line)
        lines[begin + 1 : end] = part()
    return "\n".join(lines)


# The launch's own words


def splitter_part() -> Iterator[str]:
    """Yield the tables by which a launch tells its options from commands and from QEMU's words."""
    launch = [option for option in options.PROGRAM_ITSELF.options if not option.informs]
    informs = [option for option in options.PROGRAM_ITSELF.options if option.informs]
    yield from _joined("COMMANDS", options.subcommands(""))
    yield from _mapping("WITH_VALUE", [option for option in launch if option.value])
    yield from _joined("LISTS", (o.name for o in launch if o.is_list))
    yield from _mapping("FLAGS", [option for option in launch if not option.value])
    yield from _joined("INFORM", (n for o in informs for n in o.names))


def _joined(name: str, words: Iterator[str]) -> Iterator[str]:
    """Yield a set of words, as the formatter breaks its line."""
    inner = f'"{" ".join(words)}".split()'
    line = f"{name} = frozenset({inner})"
    yield from [line] if len(line) <= _WIDTH else [f"{name} = frozenset(", f"    {inner}", ")"]


def _mapping(name: str, found: list[Option]) -> Iterator[str]:
    """Yield a dict from each name of an option to its field."""
    yield f"{name} = {{"
    yield from (f'    "{n}": "{option.field}",' for option in found for n in option.names)
    yield "}"


# Completions

_NAMES = ("subcommands", "flags", "valued", "kinds")
_DEFAULTS: dict[str, list[str]] = {name: [] for name in _NAMES} | {"flags": [options.HELP.name]}


def states() -> Iterator[tuple[str, tuple[list[str], ...]]]:
    """Yield what each beginning of a command line can go on with: its words, and lists.

    The lists are those of `_NAMES`: the words that can follow, options, options with a value as
    `--name:kind`, and the kinds of arguments, the last with `...` if it can be repeated.
    """
    for command in (options.PROGRAM_ITSELF, *options.GROUPS, *options.COMMANDS):
        if command.words == "help":
            continue
        shown = [*command.options] if command.words == "" else [*command.options, options.HELP]
        kinds = [each.kind + "..." * each.is_list for each in command.arguments]
        if command.arguments and command.arguments[0].kind == options.QEMU:
            kinds = [options.QEMU]
        has_dashes = any(_has_dashes(each) for each in command.arguments)
        flags = ["--"] * has_dashes + [option.name for option in shown]
        valued = [f"{n}:{option.kind}" for option in shown if option.value for n in option.names]
        yield command.words, ([*options.subcommands(command.words)], flags, valued, kinds)
    topics = [each for each in options.subcommands("") if each != "help"]
    yield "help", (topics, [options.HELP.name], [], [])
    for group in options.GROUPS:
        yield f"help {group.words}", ([*options.subcommands(group.words)], [], [], [])


def _differing(lists: tuple[list[str], ...]) -> Iterator[tuple[str, str]]:
    """Yield the names of a state's lists with their words, but for those that are as by default."""
    for name, found in zip(_NAMES, lists, strict=True):
        if found != _DEFAULTS[name]:
            yield name, " ".join(found)


def bash_part() -> Iterator[str]:
    """Yield the function by which bash knows the table."""
    yield f"_qemu_netwrap_netdevs='{' '.join(options.NETDEVS)}'"
    yield from _case_part(["_qemu_netwrap_table()", "{"], "{0}='{1}'", "'{0}')")


def zsh_part() -> Iterator[str]:
    """Yield the function by which zsh knows the table."""
    yield f"_qemu_netwrap_netdevs=({' '.join(options.NETDEVS)})"
    yield from _case_part(["_qemu_netwrap_table() {"], "{0}=({1})", "('{0}')")


def _case_part(head: list[str], setting: str, pattern: str) -> Iterator[str]:
    """Yield a shell function that begins with HEAD: SETTING sets a list, PATTERN is a state's."""
    yield ""
    yield from head
    defaults = (setting.format(name, " ".join(words)) for name, words in _DEFAULTS.items())
    yield f"    {' '.join(defaults)}"
    yield '    case "$1" in'
    for words, lists in states():
        yield f"        {pattern.format(words)}"
        yield from (f"            {setting.format(*each)}" for each in _differing(lists))
        yield "            ;;"
    yield "    esac"
    yield "}"


def fish_part() -> Iterator[str]:
    """Yield the function by which fish knows the table."""
    yield f"set -g __qemu_netwrap_netdevs {' '.join(options.NETDEVS)}"
    yield ""
    yield "function __qemu_netwrap_table"
    for name, default in _DEFAULTS.items():
        yield " ".join([f"    set -g __qemu_netwrap_{name}", *default])
    yield '    switch "$argv"'
    for words, lists in states():
        yield f"        case '{words}'"
        for name, found in _differing(lists):
            yield f"            set __qemu_netwrap_{name} {found}"
    yield "    end"
    yield "end"


# Man page


def options_part() -> Iterator[str]:
    """Yield the man page's entries of the program's own options."""
    for option in options.PROGRAM_ITSELF.options:
        yield from _option_entry(option)


def commands_part() -> Iterator[str]:
    """Yield the man page's entries of commands, each with those of its options."""
    for command in options.COMMANDS:
        yield ".TP"
        yield " ".join([_bold(command.words), *_usage(command)])
        values = [each.name for each in command.arguments]
        values += [option.value for option in command.options if option.value]
        yield from _paragraph(command.help, command.more, values)
        if command.options:
            yield ".RS"
            for option in command.options:
                yield from _option_entry(option)
            yield ".RE"


def top_part() -> Iterator[str]:
    """Yield the entries of keys at the top of the configuration file."""
    for key, text in key_texts.TOP.items():
        yield from _key_entry(key, text)


def keys_part() -> Iterator[str]:
    """Yield the entries of a network's keys, each with the modes that it is for."""
    for key, modes in parse.keys().items():
        is_general = len(modes) == len(MODES)
        only = "" if is_general else f"For {' and '.join(f'`{mode}`' for mode in modes)}: "
        yield from _key_entry(key, only + key_texts.KEYS[key])


def _key_entry(key: str, text: str) -> Iterator[str]:
    """Yield a tagged paragraph about a key."""
    yield ".TP"
    yield _bold(key)
    yield from _paragraph(text, "", [])


def _option_entry(option: Option) -> Iterator[str]:
    """Yield a tagged paragraph about an option."""
    yield ".TP"
    value = f" {_italic(option.value)}" if option.value else ""
    yield ", ".join(map(_bold, option.names)) + value
    yield from _paragraph(option.help, option.more, [option.value])


def _usage(command: Command) -> Iterator[str]:
    """Yield what stands behind a command's words in its usage line."""
    for option in command.options:
        value = f" {_italic(option.value)}" if option.value else ""
        yield f"[{_bold(option.name)}{value}]"
    for argument in command.arguments:
        if _has_dashes(argument):
            yield f"[{_bold('--')}]"
        yield _argument(argument)


def _has_dashes(argument: Argument) -> bool:
    """Whether `--` may stand before an argument: a program, whose options follow."""
    is_qemu = argument.kind == options.QEMU and not argument.is_optional
    return is_qemu or argument.kind == options.COMMAND


def _argument(argument: Argument) -> str:
    """Return an argument as it stands in a usage line."""
    text = _italic(argument.name) + "..." * argument.is_list
    return f"[{text}]" if argument.is_optional else text


def _paragraph(text: str, more: str, values: list[str]) -> Iterator[str]:
    """Yield sentences as roff, each on lines of its own, as mandoc wants them.

    VALUES are names of values that become italic; what is in backticks becomes bold, names of
    files italic.
    """
    joined = " ".join(f"{text} {more}".split())
    for sentence in _sentences(joined):
        for line in textwrap.wrap(
            _marked(sentence, values), 78, break_on_hyphens=False, break_long_words=False
        ):
            yield f"\\&{line}" if line.startswith((".", "'")) else line  # no request of roff's


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of TEXT."""
    begin = 0
    for at, pair in enumerate(itertools.pairwise(text)):
        if pair == (".", " "):
            yield text[begin : at + 1]
            begin = at + 2
    yield text[begin:]


def _marked(sentence: str, values: list[str]) -> str:
    """Return a sentence with the font changes that its backticks and values stand for."""
    parts = sentence.split("`")
    for n, part in enumerate(parts):
        if n % 2:
            parts[n] = _italic(part) if part.startswith("/") else _bold(part)
        else:
            parts[n] = " ".join(_value(word, values) for word in part.split(" "))
    return "".join(parts)


def _value(word: str, values: list[str]) -> str:
    """Return a word, in italics if it is a value's name with or without a punctuation mark."""
    bare = word.rstrip(".,;:")
    return _italic(bare) + word[len(bare) :] if bare and bare in values else word


def _bold(text: str) -> str:
    return f"\\fB{text.replace('-', chr(92) + '-')}\\fP"


def _italic(text: str) -> str:
    return f"\\fI{text.replace('-', chr(92) + '-')}\\fP"


PARTS: dict[str, dict[str, Callable[[], Iterator[str]]]] = {
    "qemu_netwrap/cli/splitter.py": {"words": splitter_part},
    "completions/qemu-netwrap.bash": {"table": bash_part},
    "completions/_qemu-netwrap": {"table": zsh_part},
    "completions/qemu-netwrap.fish": {"table": fish_part},
    "docs/man/qemu-netwrap.1": {"options": options_part, "commands": commands_part},
    "docs/man/qemu-netwrap.toml.5": {"top": top_part, "keys": keys_part},
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
