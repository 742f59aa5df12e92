"""What somebody may have meant by a word that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str:
    """Return that of the known words which is most like this one; empty: none is like it."""
    return next(iter(get_close_matches(word, list(known), n=1)), "")
