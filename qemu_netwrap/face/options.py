"""What the commands share: options and settings of typer."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
