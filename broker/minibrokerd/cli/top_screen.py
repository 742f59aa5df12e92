"""The screen of `minibroker top` as a value: looks and keys go in, lines come out.

It knows no terminal, no clock and no broker. Whoever drives it hands in what was found and which key was pressed,
does what `press` returns, and draws `lines` for the size that the terminal has at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from minibrokerd.cli.layout import fit
from minibrokerd.cli.top_detail import Detail, detail_lines
from minibrokerd.cli.top_keys import help_lines
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
FAR: Final = 1 << 30  # rows
STEPS: Final = {
    **dict.fromkeys(("up", "k"), -1),
    **dict.fromkeys(("down", "j"), 1),
    **dict.fromkeys(("home", "g"), -FAR),
    **dict.fromkeys(("end", "G"), FAR),
}
PAGES: Final = {"page_up": -1, "page_down": 1}
COLUMN_STEPS: Final = {"<": -1, "left": -1, ">": 1, "right": 1}
BACK: Final = ("escape", "enter", "left", "backspace")  # from the detail of a queue
HINTS: Final = ("q ends", "? help", "Enter detail", "< > sort", "r reverse", "/ filter", "p pause")
DETAIL_HINTS: Final = ("Esc back", "q ends", "? help", "up down scroll", "p pause")
HELP_HINTS: Final = ("any key goes back", "up down scroll")


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
        self.queue = ""  # the one that is shown in detail; empty: the table is
        self._letters = letters or Letters()
        self._table = Table(self._letters)
        self._look = look
        self._overview = look.overview
        self._detail: Detail | None = None
        self._detail_before: Detail | None = None
        self._scrolled = 0  # lines, of the detail
        self._helps = False
        self._all = rows_of(look, None)
        self._away: tuple[str, str] | None = None  # a word and why; None while somebody answers
        self._away_since_s = 0.0
        self._typed: str | None = None  # the filter, while it is typed
        self._rows: list[Row] = []  # those that fit the filter, in their order
        self._sums: list[str] = []  # what they come to
        self._chosen = ""  # the name of the queue; empty: the first one, whichever that is
        self._at = 0  # where that is
        self._top = 0  # the first row on the screen
        self._page = 1  # rows on the screen
        self._order()

    def take(self, found: Look | Detail) -> None:
        """Show what was found."""
        self._away = None
        self._overview = found.overview
        if isinstance(found, Look):
            self._all = rows_of(found, self._look)
            self._look = found
            self._order()
        elif found.name == self.queue:
            self._detail_before, self._detail = self._detail, found

    def fail(self, word: str, text: str, now_s: float) -> None:
        """Show that a look came to nothing, in a word, and why; what was seen last stays."""
        if not self._away:
            self._away_since_s = now_s
        self._away = word, text

    # -- keys ------------------------------------------------------------------------------------

    def press(self, key: str) -> Wish:
        """Take a key: a character, or the name of one that has none, as `page_up`."""
        if self._typed is not None:
            return self._type(key)
        step = STEPS.get(key, 0) or PAGES.get(key, 0) * self._page
        if self._helps:
            self._helps = bool(step)
            self._scrolled += step
            return Wish.NOTHING
        if key == "q":
            return Wish.END
        if key == "p":
            self.paused = not self.paused
            return Wish.NOTHING if self.paused else Wish.LOOK
        if key in ("?", "h"):
            self._helps, self._scrolled = True, 0
            return Wish.NOTHING
        return self._press_in_detail(key, step) if self.queue else self._press_in_table(key, step)

    def _press_in_table(self, key: str, step: int) -> Wish:
        if step:
            self._move(self._at + step)
        elif key in COLUMN_STEPS:
            self.sort = SORTS[(SORTS.index(self.sort) + COLUMN_STEPS[key]) % len(SORTS)]
            self._order()
        elif key == "r":
            self.reverse = not self.reverse
            self._order()
        elif key == "/":
            self._typed = self.filter
        elif key == "enter" and self._rows:
            self._chosen = self._rows[self._at].name  # where the user comes back to
            return self._open(self._chosen)
        elif key == "escape":
            return self._back()
        return Wish.NOTHING

    def _press_in_detail(self, key: str, step: int) -> Wish:
        self._scrolled += step
        return self._open("") if key in BACK else Wish.NOTHING

    def _open(self, queue: str) -> Wish:
        """Show a queue in detail, or the table again; what is asked for is shown, paused or not."""
        self.queue, self.paused, self._scrolled = queue, False, 0
        self._detail = self._detail_before = None
        return Wish.LOOK

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
        above = [] if self._helps else self._above(width, now_s, asked_s)
        lines = above[: max(height // 2 - 1, 0)]
        room = max(height - len(lines) - 1, 0)
        if self._helps:
            lines += self._scroll(help_lines(width, self._letters.ellipsis), room)
        elif self.queue:
            lines += self._detail_lines(width, room)
        else:
            lines += self._table_lines(width, room)
        lines += [Line("")] * (height - 1 - len(lines))
        return [*lines[: max(height - 1, 0)], self._below(width)]

    def _table_lines(self, width: int, room: int) -> list[Line]:
        self._page = max(room - 1, 1)
        self._top = max(min(self._top, self._at), self._at - self._page + 1)
        self._top = max(min(self._top, len(self._rows) - self._page), 0)
        shown = self._rows[self._top : self._top + self._page]
        head, *rows = self._table.lines(shown, width, self.sort, self.reverse)
        lines = [Line(head, Style.HEAD)]
        for at, text in enumerate(rows, self._top):
            lines.append(Line(text, Style.CHOSEN if at == self._at else Style.PLAIN))
        if not rows:
            lines.append(Line(fit(self._empty(), width, self._letters.ellipsis)))
        return lines

    def _detail_lines(self, width: int, room: int) -> list[Line]:
        if self._detail is None:
            name = self._letters.clean(self.queue)
            return [Line(fit(name, width, self._letters.ellipsis), Style.HEAD)]
        lines = list(detail_lines(self._detail, self._detail_before, width, self._letters))
        return self._scroll(lines, room)

    def _scroll(self, lines: list[Line], room: int) -> list[Line]:
        self._page = max(room - 1, 1)
        self._scrolled = max(min(self._scrolled, len(lines) - room), 0)
        return lines[self._scrolled : self._scrolled + room]

    def _above(self, width: int, now_s: float, asked_s: float | None) -> list[Line]:
        trouble = self._trouble(now_s, asked_s)
        lines = [Line(fit(trouble, width, self._letters.ellipsis), Style.ALARM)] if trouble else []
        sums = [] if self.queue else [*self._sums]
        if self.paused:
            sums.insert(0, "PAUSED")
        return lines + [
            Line(text)
            for parts in (broker_parts(self._overview), sums)
            for text in flowed(parts, width, self._letters.ellipsis)
        ]

    def _trouble(self, now_s: float, asked_s: float | None) -> str:
        clean = self._letters.clean
        if self._away:
            word, text = self._away
            return f"{word} for {age_text((now_s - self._away_since_s) * 1_000)}: {clean(text)}"
        if asked_s is not None and now_s - asked_s >= SILENT_S:
            return f"no answer for {age_text((now_s - asked_s) * 1_000)}"
        return ""

    def _empty(self) -> str:
        if self._overview["phase"] == "recovering":
            return "it reads its log, and has no queues until that is done"
        filter = self.filter if self._typed is None else self._typed
        return f"no queue fits {self._letters.clean(filter)!r}" if filter else "no queues yet"

    def _below(self, width: int) -> Line:
        """Return the last line; it leaves the last cell free, where some terminals would scroll."""
        if self._typed is not None:
            # Its end is what is being typed.
            text = self._letters.clean(self._typed)
            return Line(f"/{text[-max(width - 3, 1) :]}_", Style.HEAD)
        parts: Sequence[str] = HINTS
        if self._helps:
            parts = HELP_HINTS
        elif self.queue:
            parts = DETAIL_HINTS
        elif self.filter:
            parts = (f"/{self._letters.clean(self.filter)}", *parts)
        return Line(flowed(parts, width - 1, self._letters.ellipsis)[0])
