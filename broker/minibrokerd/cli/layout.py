"""How rows become lines: a table where it fits, else the fields of each row one under the other.

Nothing here prints or asks a terminal: the width comes in, lines go out. Widths are counted in cells of a
terminal, of which wide characters (of Chinese, Japanese, Korean, most emoji) take two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Final

GAP: Final = 2  # cells between two columns
LEAST: Final = 20  # cells that a column which is cut keeps
MOST_PARTS: Final = 3  # tables that one is folded into
MOST_LINES: Final = 4  # of one value that may be cut, where fields stand one under the other


def width_of(text: str) -> int:
    """Return how many cells a terminal needs for `text`."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # its table of widths takes a moment to load

    return cell_len(text)


def fit(text: str, width: int, ellipsis: str) -> str:
    """Return `text`, cut to `width` cells if need be; what was cut ends in `ellipsis`."""
    if len(text) <= width and width_of(text) <= width:
        return text
    return _start(text, max(width - len(ellipsis), 0)) + ellipsis[:width]


def _start(text: str, width: int) -> str:
    """Return as much of the start of `text` as `width` cells hold."""
    text = text[: 4 * width]  # a character with its accents is hardly ever longer
    while width_of(text) > width:
        text = text[: max(len(text) - max((width_of(text) - width) // 2, 1), 0)]
    return text


def wrap(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` cells, broken behind a space where there is one."""
    lines = []
    while width_of(text) > width:
        line = _start(text, width) or text[:1]
        if text[len(line)] != " " and " " in line.strip(" "):
            line = line[: line.rindex(" ") + 1]
        lines.append(line.rstrip(" "))
        text = text[len(line) :].lstrip(" ")
    return [*lines, text]


class Table:
    """Rows of text under `heads`, laid out for a terminal of `width` cells; None: for a pipe, nothing is cut.

    The columns named in `elastic` give way when the others need the room (without any, the last one does): what
    they say is cut or, in `prose`, goes on in the next line. A table that may `fold` becomes up to three, one
    below the other, before the fields of each row stand one under the other.
    Rows may come in pages: the head is printed once, and columns keep their width or grow.
    """

    def __init__(
        self,
        heads: Sequence[str],
        *,
        elastic: Sequence[str] = (),
        prose: bool = False,
        fold: bool = False,
        width: int | None = None,
        ellipsis: str = "...",
        styled: Callable[[str], str] = str,
    ) -> None:
        self._heads = heads
        self._elastic = [head in (elastic or heads[-1:]) for head in heads]
        self._prose = prose
        self._fold = fold
        self._width = width
        self._ellipsis = ellipsis
        self._styled = styled
        self.widths = [width_of(head) for head in heads]
        self._right: list[bool] | None = None  # columns of numbers, as the first page says
        self._stacked = False
        self.empty = True

    def widen(self, widths: Sequence[int]) -> None:
        """Make columns at least as wide as those of a table before."""
        if len(widths) == len(self.widths):
            self.widths = list(map(max, self.widths, widths))

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the lines of the next rows."""
        if not rows:
            return []
        first, self.empty = self.empty, False
        for at in range(len(self._heads)):
            self.widths[at] = max(self.widths[at], max(width_of(row[at]) for row in rows))
        if self._right is None:
            self._right = [all(map(_is_number, column)) for column in zip(*rows, strict=True)]
        widths = None if self._stacked else self._fitted()
        if widths is None:
            folded = self._folded(rows) if self._fold and len(rows) > 1 else None
            if folded is not None:
                return folded
            self._stacked = True
            return self._stack(rows, first)
        lines = [self._styled(self._line(self._heads, widths))] if first else []
        for row in rows:
            if self._prose:
                parts = map(wrap, row, widths)
                lines += [self._line(part, widths) for part in zip_longest(*parts, fillvalue="")]
            else:
                lines.append(self._line(row, widths))
        return lines

    def _folded(self, rows: Sequence[Sequence[str]]) -> list[str] | None:
        """Return a few tables, one below the other, each with the first column and some of the others."""
        assert self._width is not None
        for lead in (self.widths[0], min(self.widths[0], max(LEAST, self._width // 2))):
            parts = self._parts(lead, self._width)
            if len(parts) <= MOST_PARTS:
                break
        else:
            return None
        lines: list[str] = []
        for part in parts:
            heads = [self._heads[at] for at in part]
            table = Table(
                heads,
                elastic=heads[:1],
                prose=self._prose,
                width=self._width,
                ellipsis=self._ellipsis,
                styled=self._styled,
            )
            lines += [""] if lines else []
            lines += table.lines([[row[at] for at in part] for row in rows])
            if table._stacked:
                return None
        return lines

    def _parts(self, lead: int, width: int) -> list[list[int]]:
        """Return the columns of each of these tables, if the first column takes `lead` cells."""
        parts: list[list[int]] = [[0]]
        for at in range(1, len(self._heads)):
            others = sum(self.widths[each] + GAP for each in (*parts[-1][1:], at))
            if lead + others > width and len(parts[-1]) > 1:
                parts.append([0])
            parts[-1].append(at)
        return parts

    def _fitted(self) -> list[int] | None:
        """Return the widths of all columns; None if they do not fit side by side."""
        widths = list(self.widths)
        if self._width is None:
            return widths
        over = sum(widths) + GAP * (len(widths) - 1) - self._width
        giving = [at for at, elastic in enumerate(self._elastic) if elastic]
        floors = {at: max(LEAST, width_of(self._heads[at])) for at in giving}
        while over > 0:
            at = max(giving, key=lambda at: widths[at] - floors[at])
            others = [widths[other] - floors[other] for other in giving if other != at]
            spare = widths[at] - floors[at]
            if spare <= 0:
                return None
            taken = min(over, max(spare - max([*others, 0]), 1))
            widths[at] -= taken
            over -= taken
        return widths

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        assert self._right is not None
        cells = []
        for text, width, right in zip(row, widths, self._right, strict=True):
            text = fit(text, width, self._ellipsis)
            space = " " * (width - width_of(text))
            cells.append(space + text if right else text + space)
        return (" " * GAP).join(cells).rstrip(" ")

    def _stack(self, rows: Sequence[Sequence[str]], first: bool) -> list[str]:
        assert self._width is not None
        indent = max(map(width_of, self._heads)) + GAP
        room = max(self._width - indent, 1)
        lines = []
        for row in rows:
            if not first:
                lines.append("")
            first = False
            for head, text, elastic in zip(self._heads, row, self._elastic, strict=True):
                if elastic and not self._prose:
                    text = fit(text, room * MOST_LINES, self._ellipsis)
                start, *more = wrap(text, room)
                label = self._styled(head) + " " * (indent - width_of(head))
                lines.append((label + start).rstrip(" "))
                lines += [" " * indent + line for line in more]
        return lines


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).removeprefix("-").isdigit()
