"""Which of several servers is dialled next: one of them leads, and each that does not says so.

A round tries each place once, one after the other without a pause; then there is a pause, and the next round. A
server that stands by may name the one that leads: that is tried first. Where a connection was open, the next round
begins there: as a rule it was the network, or a start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minibroker.contract.errors import LoginRefused, NotLeading
from minibroker.session.address import Place, place_of

# For the answer to a login where there are others to try: a machine that is gone says nothing at all. It grows
# with each round, so that one that is only slow is heard.
PATIENCE_MS: Final = 500
MORE_PATIENCE_MS: Final = 100


class Rounds:
    """The servers of one client, and where it stands between them; with none the shell knows its one."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._all = tuple(places)
        self._here = places[0] if places else None
        self._named: Place | None = None  # as the one that leads, in this round
        self._tried: set[Place | None] = set()  # in this round
        self._rounds = 0  # since there was a connection

    def dial(self) -> Place | None:
        """Return where to connect to now."""
        self._tried.add(self._here)
        return self._here

    def patience_ms(self, connect_ms: int) -> int:
        """Return how long the attempt may take: less than `connect_ms` where there are others to try."""
        if self._tried.issuperset(self._all) and len(self._tried) < 2:
            return connect_ms
        return min(connect_ms, PATIENCE_MS + MORE_PATIENCE_MS * self._rounds)

    def opened(self) -> Place | None:
        """The server has welcomed this client; return where it is."""
        self._begin_round(0)
        return self._here

    def goes_on(self, error: Exception) -> bool:
        """An attempt has failed: choose the next place; return whether it is to be dialled at once."""
        if isinstance(error, LoginRefused) and error.ends_session:  # by the one that leads
            return False
        if isinstance(error, NotLeading):
            self._named = place_of(error.leader) or self._named
        fresh = [place for place in (self._named, *self._others()) if place is not None]
        fresh = [place for place in fresh if place not in self._tried]
        if fresh:
            self._here = fresh[0]
            return True
        self._here = self._named or next(iter(self._others()), self._here)
        self._begin_round(self._rounds + 1)
        return False

    def _others(self) -> Sequence[Place]:
        """Return those of the url behind the one that was dialled, then those before it."""
        at = self._all.index(self._here) + 1 if self._here in self._all else 0
        return self._all[at:] + self._all[:at]

    def _begin_round(self, number: int) -> None:
        self._rounds, self._named = number, None
        self._tried.clear()
