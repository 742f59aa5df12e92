"""Counts with their nouns: one of something is no plural, wherever it is printed."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from minibrokerd.text.counts import count_text
from support.source import SERVER, name_of, nodes, offenders, python_files

COUNTED = (
    "attempt batch binding byte client connection consumer exchange group id key lease lock message "
    "policy queue record schedule segment server session time token"
)
PLURALS = re.compile(
    rf" (?:(?!had )\w+ )?(?:{'|'.join(count_text(0, noun)[2:] for noun in COUNTED.split())})\b"
)
# Numbers that cannot be 1: bounds, and what says that there is no room.
BOUND = re.compile(r"most|MOST|MAX|least|SHOWN|longest")
PLACES = [*python_files(SERVER / "cli"), SERVER / "serving" / "banner.py"]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "message", "0 messages"),
        (1, "message", "1 message"),
        (1_234, "message", "1,234 messages"),
        (2, "batch", "2 batches"),
        (2, "policy", "2 policies"),
        (2, "key", "2 keys"),
        (2, "new binding", "2 new bindings"),
        (1, "new binding", "1 new binding"),
    ],
)
def test_a_count_has_its_noun(number: int, noun: str, text: str) -> None:
    """Thousands have a comma, as everywhere."""
    assert count_text(number, noun) == text


def test_the_command_line_counts_by_one_function() -> None:
    """A number that a plural follows is 1 one day."""
    assert not offenders(PLACES, _bare_plurals)


def _bare_plurals(path: Path) -> list[str]:
    found = []
    for text in nodes(path):
        parts = text.values if isinstance(text, ast.JoinedStr) else []
        for number, after in pairwise(parts):
            words = after.value if isinstance(after, ast.Constant) else ""
            counts = isinstance(number, ast.FormattedValue) and not BOUND.search(
                ast.unparse(number)
            )
            if counts and isinstance(words, str) and PLURALS.match(words):
                found.append(f"{name_of(path)}: {ast.unparse(text)}")
    return found
