"""Tables for terminals of any width, and for none."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from minibrokerd.cli.layout import Table, fit, width_of, wrap

HEADS = ("id", "attempts", "body")
ROWS = [["1-0", "1", "short"], ["1-1,000", "12", "東京" * 30]]


def test_a_pipe_gets_everything() -> None:
    """Nothing is cut; numbers stand to the right."""
    assert Table(HEADS).lines(ROWS) == [
        "id       attempts  body",
        "1-0             1  short",
        "1-1,000        12  " + "東京" * 30,
    ]


def test_a_terminal_gets_what_fits_and_an_ellipsis() -> None:
    """Wide characters take two cells, also where they are cut."""
    lines = Table(HEADS, width=50, ellipsis="…").lines(ROWS)
    assert lines[1] == "1-0             1  short"
    assert lines[2].endswith("東…")
    assert max(map(cell_len, lines)) in {49, 50}


def test_a_narrow_terminal_gets_the_fields_one_under_the_other() -> None:
    """With a line between two rows, and nothing left out but the end of a long text."""
    lines = Table(HEADS, width=36, ellipsis="…").lines(ROWS)
    assert lines[:5] == ["id        1-0", "attempts  1", "body      short", "", "id        1-1,000"]
    assert lines[6].startswith("body      東京")
    assert lines[-1].endswith("…")
    assert len(lines) == 10


def test_prose_goes_on_in_the_next_line() -> None:
    """Its words stay whole, and none is lost."""
    row = ["65", "the log is damaged, and nothing was changed", "copy the data directory"]
    table = Table(("code", "means", "do"), elastic=("means", "do"), prose=True, width=54)
    assert table.lines([row]) == [
        "code  means                    do",
        "  65  the log is damaged, and  copy the data directory",
        "      nothing was changed",
    ]


def test_a_table_that_may_fold_does_so_though_one_name_is_long() -> None:
    """The first column gives way, down to half of the width, before the fields stand one under the other."""
    heads = ("queue", "ready", "delayed", "held", "begun", "dead", "consumers")
    rows = [["a", *"123456"], ["orders-of-the-shop-in-frankfurt-am-main.high-priority", *"654321"]]
    lines = Table(heads, elastic=("queue",), fold=True, width=50, ellipsis="…").lines(rows)
    assert [line.split() for line in lines if not line.startswith("orders")] == [
        ["queue", "ready", "delayed", "held"],
        ["a", "1", "2", "3"],
        [],
        ["queue", "begun", "dead", "consumers"],
        ["a", "4", "5", "6"],
    ]
    assert max(map(cell_len, lines)) == 50


def test_pages_of_a_table_have_one_head() -> None:
    """Columns keep their width from page to page, or grow."""
    table = Table(HEADS)
    assert table.empty
    first, second, third = (table.lines([row]) for row in (["1-0", "1", "a"], *ROWS))
    assert (len(first), len(second), len(third)) == (2, 1, 1)
    assert second[0].index("short") == first[0].index("body")
    assert not table.empty


@pytest.mark.parametrize("seed", range(200))
def test_no_line_is_wider_than_the_terminal(seed: int) -> None:
    """Whatever the columns, the texts and the width are; without wide heads down to 12 cells."""
    chance = random.Random(seed)
    heads = [chance.choice(["id", "state", "key", "b"]) for _ in range(chance.randint(1, 6))]
    letters = "ab c東é京 한e\u0301"
    rows = [
        ["".join(chance.choices(letters, k=chance.choice([0, 1, 5, 30, 300]))) for _ in heads]
        for _ in range(3)
    ]
    width = chance.randint(12, 200)
    table = Table(heads, width=width, ellipsis="…", prose=chance.random() < 0.5)
    assert all(cell_len(line) <= width for line in table.lines(rows))


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 10])
def test_text_is_cut_to_its_width(width: int) -> None:
    """Also where not even the ellipsis fits."""
    for text in ("", "a", "abc", "東京東京", "a東" * 100_000):
        assert width_of(fit(text, width, "...")) <= width


def test_text_is_wrapped_behind_words() -> None:
    """A word that is wider than a line is broken."""
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("abcdefgh ij", 4) == ["abcd", "efgh", "ij"]
    assert wrap("", 4) == [""]
