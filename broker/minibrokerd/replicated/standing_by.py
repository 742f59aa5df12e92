"""What a broker that stands by hears of the one that leads, and when it may lead itself.

Nothing rests on what is heard. Who takes over although another one leads deposes that one, by its epoch record;
this is only so that two brokers with supervisors do not depose each other for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from minibrokerd.replicated.words import Word, decode

BEAT_S: Final = 0.25  # between two words of whoever leads
SILENT_S: Final = 1.0  # four of them
MOST_ENDS: Final = 4_096  # that are said and not reached, of which there is one more with each word


class Standing:
    """Listens; `hears` is told each word, in the loop of the connection."""

    def __init__(
        self,
        hears: Callable[[Word], object] = lambda word: None,
        clock_s: Callable[[], float] = monotonic,
    ) -> None:
        self.own_run = ""  # whose words are those of this broker
        self.word: Word | None = None  # the newest one
        self.led_by = ""  # whose epoch record is the newest that was read
        self.news = asyncio.Event()  # a last word was said
        self._hears = hears
        self._clock_s = clock_s
        self._began_s = self._heard_s = clock_s()
        self._knows_end = False
        # Where the log ended, and when that was heard.
        self._ends: deque[tuple[int, float]] = deque()

    def hear(self, said: bytes) -> None:
        """Take a word of a broker that leads."""
        word = decode(said)
        if word.run and word.run == self.own_run:
            return
        self.word = word
        self._heard_s = self._clock_s()
        self._knows_end = self._knows_end or word.end > 0
        if word.end and len(self._ends) < MOST_ENDS:
            self._ends.append((word.end, self._heard_s))
        if word.is_last:
            self.news.set()
        else:
            self.news.clear()
        self._hears(word)

    def is_deaf(self) -> None:
        """Silence counts from now on: until now nothing could be heard."""
        self._heard_s = self._clock_s()

    def is_claimed(self, run: str) -> None:
        """Note an epoch record that was read: its broker will be heard."""
        self.led_by = run
        self._heard_s = self._clock_s()

    def lag(self, reached: int) -> tuple[int, float]:
        """Return how many entries behind the one that is reached were said to be there, and for how long (s).

        Until it has heard how long the log is, it may lack anything that came before it listened.
        """
        ends = self._ends
        if not self._knows_end:
            return 0, self._clock_s() - self._began_s
        while ends and ends[0][0] <= reached:
            ends.popleft()
        if not ends:
            return 0, 0.0
        return ends[-1][0] - reached, self._clock_s() - ends[0][1]

    def has_all(self, reached: int) -> bool:
        """Whether it was said of late that there is nothing behind this entry, so that nobody need ask."""
        word = self.word
        is_late = self._clock_s() - self._heard_s >= 2 * BEAT_S
        return word is not None and 0 < word.end <= reached and not (is_late or word.is_last)

    @property
    def has_left(self) -> bool:
        """Whether the broker whose epoch record is the newest has said its last word."""
        word = self.word
        return word is not None and word.is_last and word.run == self.led_by

    @property
    def why(self) -> str:
        """Why nobody leads: `stopped` or `silence`."""
        return "stopped" if self.has_left else "silence"

    @property
    def may_lead(self) -> bool:
        """Whether nobody leads, as far as can be heard."""
        return self.has_left or self._clock_s() - self._heard_s >= SILENT_S
