"""What the commands share: options and settings of typer."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}

_LONGEST = 1_000_000  # seconds: poll(2) takes no more than twice that


def seconds(text: object) -> float:
    """Read a number of seconds. Raises typer's error for what is none, or no time to wait."""
    digits = str(text)
    is_number = set(digits) <= set("0123456789.") and digits.count(".") <= 1 and digits != "."
    if not (digits and is_number and float(digits) <= _LONGEST):
        raise typer.BadParameter(
            f"{digits!r} is not a number of seconds from 0 to {_LONGEST}, such as 10 or 0.5"
        )
    return float(digits)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
