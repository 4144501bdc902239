"""Typer's declarations, made from the table of options and commands (`cli.options`)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from qemu_netwrap.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = TypeVar("Handler", bound=Callable[..., object])

HELP_NAMES: Final = options.HELP.names
CONTEXT: Final[dict[str, Any]] = {"help_option_names": [*HELP_NAMES]}

_LONGEST = 1_000_000  # seconds: poll(2) takes no more than twice that


def seconds(text: object) -> float:
    """Read a number of seconds. Raises `typer.BadParameter` if it is none, or out of range."""
    digits = str(text)
    is_number = set(digits) <= set("0123456789.") and digits.count(".") <= 1 and digits != "."
    if not (digits and is_number and float(digits) <= _LONGEST):
        raise typer.BadParameter(
            f"{digits!r} is not a number of seconds from 0 to {_LONGEST}, such as 10 or 0.5"
        )
    return float(digits)


def option(name: str, words: str = "") -> Any:  # noqa: ANN401 - typer's own says so too
    """Return the declaration of an option of the command of these WORDS. Raises `KeyError`."""
    found = options.of(words).option(name)
    parser = seconds if found.kind == options.SECONDS else None
    return typer.Option(
        *found.names, metavar=found.value or None, help=plain(found.help), parser=parser
    )


def argument(name: str, words: str) -> Any:  # noqa: ANN401 - typer's own says so too
    """Return the declaration of an argument of the command of these WORDS. Raises `KeyError`."""
    found = options.of(words).argument(name)
    return typer.Argument(metavar=found.usage, help=plain(found.help))


def group(words: str) -> typer.Typer:
    """Return the `typer.Typer` of a group of commands. Raises `KeyError`."""
    return typer.Typer(help=help_of(words), context_settings=CONTEXT)


def command(app: typer.Typer, words: str, **settings: bool) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the command of these WORDS in APP.

    SETTINGS are for click's context. Raises `KeyError` for words that the table lacks.
    """
    name = words.rpartition(" ")[2]
    text = help_of(words)
    return app.command(name, help=text, context_settings=settings or None)


def help_of(words: str) -> str:
    """Return the text of --help for a command, or for the program itself. Raises `KeyError`."""
    return plain(inspect.cleandoc(options.of(words).help))


def plain(text: str) -> str:
    """Return a text of the table without its backticks, as for a terminal."""
    return text.replace("`", "")


Json = Annotated[bool, option("--json", "ps")]
