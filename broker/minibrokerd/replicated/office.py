"""How long a broker may act as the one that leads: for some seconds from an append on that was acked.

Whoever leads is deposed by a record in the stream, and learns of it by an append that is refused; not at all while
it is cut off. What it hands out leaves no record, so it has to end by the clock. Whoever takes over waits for the
sessions of before (decision 55) longer than that, so clients have left this one before anybody else gets what it
gave them.

Only an append says that nobody else leads: a read may be answered by a server that was cut off. So while there are
clients, and nothing else to append, an entry without content is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SURE_S: Final = 3.0  # well below the 5 s that whoever takes over waits for the sessions of before
RENEW_S: Final = 1.0  # without an append, while there are clients
# Without one that was due: it is said no more who leads. An election takes up to 9 s.
SAID_S: Final = 10.0


class Office:
    """That of one broker; `seam.Leadership`. `renew` has an entry appended soon."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self.is_watched: Callable[[], bool] = lambda: False
        self.on_news: Callable[[], object] = lambda: None
        self.renew: Callable[[], object] = lambda: None
        self._clock_s = clock_s
        self._acked_s = self._rested_s = 0.0

    def acked(self, sent_s: float) -> None:
        """Note an append that was acked: when it was sent, nobody else led."""
        self._acked_s = sent_s
        self.on_news()

    def rests(self) -> None:
        """Note that there is nothing to append: whoever leads without clients may have appended last days ago."""
        self._rested_s = self._clock_s()

    @property
    def is_over(self) -> bool:
        """Whether another one may act as the one that leads."""
        return self._clock_s() - self._acked_s > SURE_S

    @property
    def is_due(self) -> bool:
        """Whether something should be appended to find out."""
        return self._clock_s() - self._acked_s > RENEW_S and self.is_watched()

    @property
    def is_given_up(self) -> bool:
        """Whether another one had better lead, if it can append: for too long this one had to, and could not."""
        return self._clock_s() - max(self._acked_s, self._rested_s) > SAID_S
