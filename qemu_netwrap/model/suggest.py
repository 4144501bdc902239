"""Suggestions for mistyped words; only loaded for an error message."""

from __future__ import annotations

from difflib import get_close_matches  # takes milliseconds: this module loads on first use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `did you mean X? ` for the most similar known word; "" if none is similar."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""
