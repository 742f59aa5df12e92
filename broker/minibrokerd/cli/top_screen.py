"""The screen of `minibroker top` as a value: looks and keys go in, lines come out.

It knows no terminal, no clock and no broker. Whoever drives it hands in what was found and which key was pressed,
does what `press` returns, and draws `lines` for the size that the terminal has at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from minibrokerd.cli.layout import fit
from minibrokerd.cli.top_lines import (
    Letters,
    Line,
    Style,
    Table,
    broker_parts,
    flowed,
    queue_parts,
)
from minibrokerd.cli.top_numbers import SORTS, Look, Row, age_text, fits, ordered, rows_of

SILENT_S: Final = 2.0  # an answer that takes longer is said to be waited for
STEPS: Final = {"up": -1, "k": -1, "down": 1, "j": 1}
HINTS: Final = (
    "q ends",
    "< > sort",
    "r reverse",
    "/ filter",
    "p pause",
)


class Wish(Enum):
    """What whoever drives the screen has to do after a key."""

    NOTHING = "nothing"
    LOOK = "look"  # at once: what is shown is another thing now
    END = "end"


class Screen:
    """What is shown, and where in it the user is."""

    def __init__(
        self, look: Look, *, filter: str, sort: str, reverse: bool, letters: Letters | None = None
    ) -> None:
        self.filter = filter
        self.sort = sort
        self.reverse = reverse
        self.paused = False
        self._letters = letters or Letters()
        self._table = Table(self._letters)
        self._look = look
        self._all = rows_of(look, None)
        self._away = ""  # why; empty while somebody answers
        self._away_since_s = 0.0
        self._typed: str | None = None  # the filter, while it is typed
        self._rows: list[Row] = []  # those that fit the filter, in their order
        self._sums: list[str] = []  # what they come to
        self._chosen = ""  # the name of the queue; empty: the first one, whichever that is
        self._at = 0  # where that is
        self._top = 0  # the first row on the screen
        self._page = 1  # rows on the screen
        self._order()

    def take(self, look: Look) -> None:
        """Show this look."""
        self._away = ""
        self._all = rows_of(look, self._look)
        self._look = look
        self._order()

    def fail(self, text: str, now_s: float) -> None:
        """Show that a look came to nothing, and why; what was seen last stays."""
        if not self._away:
            self._away_since_s = now_s
        self._away = text

    # -- keys ------------------------------------------------------------------------------------

    def press(self, key: str) -> Wish:
        """Take a key: a character, or the name of one that has none, as `page_up`."""
        if self._typed is not None:
            return self._type(key)
        if key in STEPS:
            self._move(self._at + STEPS[key])
        elif key in ("page_up", "page_down"):
            self._move(self._at + self._page * (1 if key == "page_down" else -1))
        elif key in ("home", "g"):
            self._move(0)
        elif key in ("end", "G"):
            self._move(len(self._rows))
        elif key in ("left", "<", "right", ">"):
            step = 1 if key in ("right", ">") else -1
            self.sort = SORTS[(SORTS.index(self.sort) + step) % len(SORTS)]
            self._order()
        elif key == "r":
            self.reverse = not self.reverse
            self._order()
        elif key == "/":
            self._typed = self.filter
        elif key == "p":
            self.paused = not self.paused
            return Wish.NOTHING if self.paused else Wish.LOOK
        elif key == "q":
            return Wish.END
        elif key == "escape":
            return self._back()
        return Wish.NOTHING

    def _back(self) -> Wish:
        return self._filter_by("") if self.filter else Wish.END

    def _filter_by(self, filter: str) -> Wish:
        """Show other queues; what is asked for is shown, paused or not."""
        self.filter, self.paused = filter, False
        self._order()
        return Wish.LOOK

    def _type(self, key: str) -> Wish:
        assert self._typed is not None
        if key == "enter":
            typed, self._typed = self._typed, None
            return self._filter_by(typed)
        if key == "escape":
            self._typed = None
        elif key == "backspace":
            self._typed = self._typed[:-1]
        elif len(key) == 1 and key.isprintable():
            self._typed += key
        self._order()
        return Wish.NOTHING

    def _move(self, at: int) -> None:
        self._at = max(0, min(at, len(self._rows) - 1))
        # At the first row it stays there, whichever queue comes to stand in it.
        self._chosen = self._rows[self._at].name if self._at else ""

    def _order(self) -> None:
        filter = self.filter if self._typed is None else self._typed
        rows = [row for row in self._all if fits(row.name, filter)]
        self._rows = ordered(rows, self.sort, self.reverse)
        self._sums = queue_parts(rows, self._look.overview["queues"])
        places = (at for at, row in enumerate(self._rows) if row.name == self._chosen)
        self._at = next(places, max(0, min(self._at, len(self._rows) - 1)) if self._chosen else 0)

    # -- lines -----------------------------------------------------------------------------------

    def lines(
        self, width: int, height: int, now_s: float, asked_s: float | None = None
    ) -> list[Line]:
        """Return what is to be seen now, at most `height` lines of at most `width` cells.

        `asked_s`: since when an answer is waited for, by the same clock; None: none is.
        """
        lines = self._above(width, now_s, asked_s)[: max(height // 2 - 1, 0)]
        self._page = max(height - len(lines) - 2, 1)
        self._top = max(min(self._top, self._at), self._at - self._page + 1)
        self._top = max(min(self._top, len(self._rows) - self._page), 0)
        shown = self._rows[self._top : self._top + self._page]
        head, *rows = self._table.lines(shown, width, self.sort, self.reverse)
        lines.append(Line(head, Style.HEAD))
        for at, text in enumerate(rows, self._top):
            lines.append(Line(text, Style.CHOSEN if at == self._at else Style.PLAIN))
        if not rows:
            lines.append(Line(fit(self._empty(), width, self._letters.ellipsis)))
        lines += [Line("")] * (height - 1 - len(lines))
        return [*lines[: max(height - 1, 0)], self._below(width)][:height]

    def _above(self, width: int, now_s: float, asked_s: float | None) -> list[Line]:
        trouble = self._trouble(now_s, asked_s)
        lines = [Line(fit(trouble, width, self._letters.ellipsis), Style.ALARM)] if trouble else []
        sums = ["PAUSED", *self._sums] if self.paused else self._sums
        return lines + [
            Line(text)
            for parts in (broker_parts(self._look), sums)
            for text in flowed(parts, width, self._letters.ellipsis)
        ]

    def _trouble(self, now_s: float, asked_s: float | None) -> str:
        clean = self._letters.clean
        if self._away:
            return f"AWAY for {age_text((now_s - self._away_since_s) * 1_000)}: {clean(self._away)}"
        if asked_s is not None and now_s - asked_s >= SILENT_S:
            return f"no answer for {age_text((now_s - asked_s) * 1_000)}"
        return ""

    def _empty(self) -> str:
        filter = self.filter if self._typed is None else self._typed
        return f"no queue fits {self._letters.clean(filter)!r}" if filter else "no queues yet"

    def _below(self, width: int) -> Line:
        """Return the last line; it leaves the last cell free, where some terminals would scroll."""
        if self._typed is not None:
            # Its end is what is being typed.
            text = self._letters.clean(self._typed)
            return Line(f"/{text[-max(width - 3, 1) :]}_", Style.HEAD)
        parts: Sequence[str] = HINTS
        if self.filter:
            parts = (f"/{self._letters.clean(self.filter)}", *parts)
        return Line(flowed(parts, width - 1, self._letters.ellipsis)[0])
