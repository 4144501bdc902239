"""Suggestions for mistyped words; only loaded for an error message."""

from __future__ import annotations

from difflib import get_close_matches  # takes milliseconds: this module loads on first use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Return the known word that is most similar to WORD; "" if none is similar.

    ALIKE is the least ratio of `difflib`, from 0 to 1.
    """
    near = get_close_matches(word, list(known), n=1, cutoff=alike)
    return near[0] if near else ""


def suggestion(word: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Return `did you mean X? ` for the most similar known word; "" if none is similar."""
    near = nearest(word, known, alike)
    return f"did you mean {near}? " if near else ""
