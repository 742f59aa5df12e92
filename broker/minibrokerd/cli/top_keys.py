"""The keys of `minibroker top`, in one table, of which the help on the screen is printed."""

from __future__ import annotations

from typing import Final

from minibrokerd.cli.layout import GAP, LEAST, fit, wrap
from minibrokerd.cli.top_lines import Line

# What a person reads, and the keys that do it; those of more than one letter are the names that curses has.
HELP: Final = (
    ("up down, k j", "the queue above, below"),
    ("PgUp PgDn", "a page up, down"),
    ("Home End, g G", "the first queue, which the order puts there; the last"),
    ("Enter", "one queue: its numbers and settings, who has its messages"),
    ("< >, left right", "sort by the column to the left, to the right"),
    ("r", "the other way round: smallest first, names from the end"),
    ("/", "show queues with this in their name, or a pattern as mail*"),
    ("p", "pause: look no more; again: go on"),
    ("Esc", "back; drop the filter; end"),
    ("q, Ctrl-C", "end"),
    ("?, h", "this help"),
)
WIDTH: Final = max(len(keys) for keys, _ in HELP)
MEANINGS: Final = (
    "ready: messages that wait for a consumer; begun: a handler works on them;",
    "held: delivered ahead to a client; delayed: they wait for their time;",
    "in/s: published; done/s: acked; failed/s: nacked; dead/s: to the dead-letter queue;",
    "oldest: for how long the oldest ready message has been ready;",
    "wait, run: 95 of 100 messages waited, and ran, for less, in the last minutes.",
)


def help_lines(width: int, ellipsis: str) -> list[Line]:
    """Return the help, in lines of at most `width` cells."""
    lines = []
    for keys, meaning in HELP:
        first, *more = wrap(meaning, max(width - WIDTH - GAP, LEAST))
        lines.append(keys.ljust(WIDTH + GAP) + first)
        lines += [" " * (WIDTH + GAP) + text for text in more]
    lines += ["", *(text for meaning in MEANINGS for text in wrap(meaning, width))]
    return [Line(fit(text, width, ellipsis)) for text in lines]
