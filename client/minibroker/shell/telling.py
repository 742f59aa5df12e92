"""What a client tells its operator and its application: the connection, lost messages, handlers that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from minibroker.contract.errors import MinibrokerError
from minibroker.session.address import show
from minibroker.session.error_text import describe
from minibroker.session.events import (
    Again,
    Away,
    Differs,
    Leaving,
    MadeAnew,
    NotDeclared,
    Opened,
)
from minibroker.session.message import MessageData

logger = logging.getLogger("minibroker")
QUIET_S: Final = 1.0
# What a record is about, as its attribute `told`, for whoever says it in words of its own.
BACK: Final = {"told": "back"}
AWAY: Final = {"told": "away"}
AGAIN: Final = {"told": "again"}
DIFFERS: Final = {"told": "differs"}
GOES_ON: Final = (
    "message %s of %s was cancelled while its handler runs in a thread, which cannot be interrupted: it goes on "
    "to its end, unless it looks at message.cancelled"
)
NOT_KEPT: Final = (
    "the result of message %s of %s is told to those who wait for it now, and kept for nobody: the queue keeps "
    "none (declare it with result_ms, or `minibroker queue set %s result_ms=...`; or say kept=)"
)
Hook = Callable[[Any, MinibrokerError], object]
Later = Callable[[float, Callable[[], None]], object]  # calls a function after so many seconds


def tell_goes_on(message: MessageData[Any]) -> None:
    """Say that a cancelled message is worked on all the same, if it is."""
    if message.cancelled:
        logger.warning(GOES_ON, message.id, message.queue)


class Telling:
    """Says things once; `hook` is the application's `on_settle_error`."""

    def __init__(self, where: str, hook: Hook | None, later: Later) -> None:
        self._where = where
        self._hook = hook
        self._later = later
        self._unsaid: list[str] = []  # lost since the last line, in the queues of these names
        self._quiet = False  # a line was written a moment ago
        self._not_kept: set[str] = set()  # queues of which it was said

    def opened(self, effect: Opened) -> None:
        """There is a connection."""
        if effect.away_ms is not None:
            seconds, attempts = effect.away_ms / 1000, effect.attempts
            text = "connected to %s again after %.1f s (attempt %d)"
            place = self._where if effect.place is None else show(effect.place)
            logger.info(text, place, seconds, attempts, extra=BACK)

    def away(self, effect: Away) -> None:
        """There is none any more."""
        logger.warning("the connection to %s is lost: %s", self._where, effect.why, extra=AWAY)

    def again(self, effect: Again) -> None:
        """It is tried again."""
        logger.log(
            logging.INFO if effect.is_news else logging.DEBUG,
            "trying again to connect to %s (attempt %d in %.2f s): %s",
            self._where,
            effect.attempt,
            effect.delay_ms / 1000,
            effect.why,
            extra=AGAIN,
        )

    def leaving(self, effect: Leaving) -> None:
        """The server said that it stops."""
        logger.info("the server is stopping: %s", effect.text)

    def differs(self, effect: Differs) -> None:
        """A queue has other settings than this program declares."""
        each = [
            f"{name} is {has!r}, this program declares {asked!r}"
            for name, (asked, has) in effect.differs.items()
        ]
        text = "the queue %s stays as it is: %s (overwrite=True or `minibroker queue set` would change it)"
        logger.warning(text, effect.queue, "; ".join(each), extra=DIFFERS)

    def not_declared(self, effect: NotDeclared) -> None:
        """The server refused a declaration."""
        logger.warning("the queue %s was not declared: %s", effect.queue, effect.error)

    def made_anew(self, effect: MadeAnew) -> None:
        """A queue had ended meanwhile."""
        text = "the queue %s was gone and is made anew, without what was in it and without its bindings"
        logger.warning(text, effect.queue)

    def not_kept(self, message: MessageData[Any]) -> None:
        """A message came to a result, and nobody keeps it: said once for each queue."""
        if message.queue not in self._not_kept:
            self._not_kept.add(message.queue)
            logger.warning(NOT_KEPT, message.id, message.queue, message.queue)

    def lost(self, messages: Sequence[MessageData[Any]], error: MinibrokerError) -> None:
        """Write one line, and for what follows within a second another one: a thousand can be lost at once."""
        if self._quiet:
            self._unsaid += [message.queue for message in messages]
            return
        first = messages[0]
        others = f" and {len(messages) - 1} others" if len(messages) > 1 else ""
        logger.warning("message %s of %s%s: lost: %s", first.id, first.queue, others, error)
        self._quiet = True
        self._later(QUIET_S, self.say_the_rest)

    def say_the_rest(self) -> None:
        """Write how many were lost since the last line."""
        self._quiet, unsaid, self._unsaid = False, self._unsaid, []
        if unsaid:
            names = ", ".join(sorted(set(unsaid))[:3])
            logger.warning("%d more messages are lost, of %s", len(unsaid), names)

    def to_hook(self, message: MessageData[Any], error: MinibrokerError) -> None:
        """Tell the application of one lost message."""
        if self._hook is None:
            return
        try:
            self._hook(message, error)
        except Exception:  # the application's code: it must not end the connection
            logger.exception("on_settle_error failed")

    def failed(self, message: MessageData[Any], error: BaseException) -> None:
        """Log that a handler failed."""
        where = (message.id, message.queue, message.run.attempt)
        try:
            logger.warning(
                "the handler of message %s of %s (attempt %d) failed", *where, exc_info=error
            )
        except BaseException:  # noqa: BLE001 - formatting it runs the application's code, which has failed already
            error_class, text = describe(error)
            logger.warning(
                "the handler of message %s of %s (attempt %d) failed: %s: %s",
                *where, error_class.decode(), text.decode(),
            )  # fmt: skip
