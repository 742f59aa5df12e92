"""Connecting, and connecting again: when to dial, how long to wait for a welcome, when to try once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.errors import LoginRefused
from minibroker.session.address import Place
from minibroker.session.calls import Jitter
from minibroker.session.events import Again, Away, Dial, Effect, HangUp, Opened
from minibroker.session.rounds import Rounds
from minibroker.session.timers import Timers

FIRST_DELAY_MS: Final = 50
MOST_JITTER: Final = 1.5
# With its variation far below the time for which a server that crashed holds back what was begun: nearly all of
# that is for noticing, for connecting, and for a machine with too much to do.
LONGEST_DELAY_MS: Final = int(limits.RECONNECT_PAUSE_MS / MOST_JITTER)
# With a token, or a certificate, that the other side does not take.
REFUSED_DELAY_MS: Final = 10_000


class Phase(Enum):
    """Where a connection stands."""

    IDLE = "there is none; another attempt may be due later"
    DIALLING = "the shell was asked to dial"
    LOGGING_IN = "the first frame is written, the welcome has not come"
    OPEN = "the server has welcomed this session"
    CLOSED = "for good"


class Connecting:
    """One attempt after the other, from `start` to `stop`."""

    def __init__(
        self,
        timers: Timers,
        jitter: Jitter,
        connect_ms: int,
        tell: Callable[[Effect], None],
        ended: Callable[[Exception, int], bool],
    ) -> None:
        """Begin; `ended` is told of each end, before it is tried again, and says whether to try."""
        self.phase = Phase.IDLE
        self._timers = timers
        self._jitter = jitter
        self._connect_ms = connect_ms
        self._tell = tell
        self._ended = ended
        self._rounds = Rounds(())  # the shell knows the one place there is
        self._delay_ms = FIRST_DELAY_MS
        self._attempts = 0  # since there was a connection
        self._lost_ms: int | None = None  # when the last one was lost
        self._timer: tuple[Any, int] | None = None

    def among(self, places: Sequence[Place]) -> None:
        """Connect to one of these from now on."""
        self._rounds = Rounds(places)

    def start(self, now_ms: int) -> None:
        """Begin an attempt, if none is under way."""
        if self.phase is Phase.IDLE:
            self._clear()
            self.phase = Phase.DIALLING
            self._attempts += 1
            place = self._rounds.dial()
            self._set(self._late, now_ms + self._rounds.patience_ms(self._connect_ms))
            self._tell(Dial(place))

    def dialled(self) -> bool:
        """There is a connection; return False if it is not wanted any more."""
        if self.phase is not Phase.DIALLING:
            return False
        self.phase = Phase.LOGGING_IN
        return True

    def welcomed(self, now_ms: int) -> None:
        """The server has answered the login."""
        self._clear()
        self.phase = Phase.OPEN
        away_ms = None if self._lost_ms is None else now_ms - self._lost_ms
        self._tell(Opened(self._attempts, away_ms, self._rounds.opened()))
        self._attempts, self._lost_ms, self._delay_ms = 0, None, FIRST_DELAY_MS

    def ended(self, error: Exception, now_ms: int) -> None:
        """The connection ended, or an attempt failed: try again after a delay that doubles, more or less.

        At once, while there is a place that was not tried since there was a connection, or since the last delay.
        """
        was, why = self.phase, str(error) or type(error).__name__
        if was in (Phase.IDLE, Phase.CLOSED):
            return
        self._clear()
        self.phase = Phase.IDLE
        if was is Phase.OPEN:
            self._lost_ms = now_ms
            self._tell(Away(why))
        if not self._ended(error, now_ms) or self.phase is not Phase.IDLE:
            return
        delay_ms = 0
        if was is Phase.OPEN or not self._rounds.goes_on(error):
            delay_ms = round(self._delay_ms * self._jitter(0.5, MOST_JITTER))
            # Who is not let in need not hurry: nothing is begun that would be handed out again.
            is_let_in = not isinstance(error, LoginRefused) or error.ends_session
            longest_ms = LONGEST_DELAY_MS if is_let_in else REFUSED_DELAY_MS
            self._delay_ms = min(2 * self._delay_ms, longest_ms)
        self._set(self.start, now_ms + delay_ms)
        # Once each: the 1st, 2nd, 4th, ... attempt of an outage that goes on is told, the others to who debugs.
        is_news = self._attempts & (self._attempts - 1) == 0
        self._tell(Again(self._attempts + 1, delay_ms, why, is_news))

    def restart(self, now_ms: int) -> None:
        """Replace a connection that nobody has used for long: at once, and without a word."""
        self._clear()
        self.phase = Phase.IDLE
        self.start(now_ms)

    def stop(self) -> None:
        """Try no more."""
        self._clear()
        self.phase = Phase.CLOSED

    def _late(self, now_ms: int) -> None:
        self._tell(HangUp())
        self.ended(TimeoutError("there was no answer in time"), now_ms)

    def _set(self, item: Callable[[int], None], when_ms: int) -> None:
        self._timer = (item, self._timers.at(when_ms, item))

    def _clear(self) -> None:
        if self._timer is not None:
            self._timers.discard(*self._timer)
            self._timer = None
