"""What Celery has in hand: delivery tags and their leases, instead of copies that are published again.

kombu's own class keeps copies of what is unacknowledged, and publishes them anew when a channel closes: at the
end of the queue, the last one first, as messages that nobody saw before. Here each of them is lent until its task
starts, if Celery says when that is, and then a lease, renewed by the client for as long as this process lives and
Celery holds it. Any thread may settle it: the one that consumes, that of results, one of a pool, that
of a timer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, Final

from minibroker.contract.errors import Closed, LeaseLost
from minibroker.contrib.celery.intake import Fed
from minibroker.session.settlements import ENDED, HELD
from minibroker.sync.message import Message

REQUEUED: Final = "requeued by Celery"
REJECTED: Final = "rejected by Celery"

logger = logging.getLogger("minibroker.contrib.celery")


class Leases:
    """What kombu calls the QoS of a channel: what it has in hand, and how much that may be."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        self.channel = channel
        self.prefetch_count = prefetch_count or 0  # 0: no limit; Celery changes it while it runs
        # Told when there is room where there was none.
        self.on_room: Callable[[], None] | None = None
        # With who lent it; None: it was begun when it was delivered.
        self._held: dict[str, tuple[Message[Any], Fed | None]] = {}
        self._reasons: dict[str, BaseException] = {}
        self._pid = os.getpid()
        self._apart = False  # tasks start in processes, each behind the next poll of the loop

    def __len__(self) -> int:
        return len(self._held)

    def can_consume(self) -> bool:
        """Return whether there is room for one more."""
        return not self.prefetch_count or len(self._held) < self.prefetch_count

    def can_consume_max_estimate(self) -> int | None:
        """Return for how many there is room; None: no limit."""
        if not self.prefetch_count:
            return None
        return max(0, self.prefetch_count - len(self._held))

    def hold(self, tag: str, lease: Message[Any], lender: Fed | None = None) -> None:
        """Note what was delivered under a tag; with a `lender` it has not begun."""
        self._held[tag] = lease, lender

    def begin(self, tag: str, *, told: bool = True, apart: bool = False) -> bool:
        """Begin what was lent, as its task starts. False: it was given back meanwhile, and may be somebody else's.

        `told`: the server has been told when this returns; not needed where the ack comes as it starts. `apart`:
        it starts in a process, so the end of this turn of the loop is soon enough.

        Until somebody asks, it stands in the way of others: a worker that is too busy to start what it was lent
        needs no more.
        """
        self._apart = apart
        lease, lender = self._held.get(tag, (None, None))
        if lease is None:
            return False
        if lender is None or lender.begin(lease, told=told and not self._is_written_later()):
            return True
        self._forget(tag)
        return False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Nothing is kept of a message: `hold` has its lease."""

    def explain(self, delivery_tag: str, error: BaseException) -> None:
        """Note why a message will be rejected; of one that is not in hand any more nobody will ask."""
        if delivery_tag in self._held:
            self._reasons[delivery_tag] = error

    def ack(self, delivery_tag: str) -> None:
        """Say that it is done. A tag that is not known, as of a connection before this one, is passed over."""
        self._settle(delivery_tag, "acknowledged", self._ack)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let it go to the dead-letter queue; or be tried again after a delay, as an attempt that failed."""
        if requeue:
            delay_s = self.channel.requeue_delay
            self._settle(delivery_tag, "requeued", lambda lease: lease.nack(REQUEUED, delay_s))
        else:
            why = self._reasons.get(delivery_tag, REJECTED)
            self._settle(delivery_tag, "rejected", lambda lease: lease.reject(why))

    def _ack(self, lease: Message[Any]) -> None:
        """Acknowledge, and write it now, or with all else of this turn of the loop.

        What waits longer for company runs twice if this process is killed.
        """
        is_plain = type(lease) is Message
        if not is_plain:
            lease.ack()  # with a span
        driver = lease.run.delivery.shell
        flush = not self._is_written_later()
        driver.__enter__()
        try:
            if is_plain:
                lease._end()
                settlements = lease.run.settlements
                settlements.acks.append(lease)
                settlements.owe()
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=flush)

    def _is_written_later(self) -> bool:
        return self._apart and self.channel.connection.writes_later()

    def _forget(self, tag: str) -> None:
        was_full = not self.can_consume()
        self._held.pop(tag, None)
        self._reasons.pop(tag, None)
        self._tell_room(was_full)

    def _tell_room(self, was_full: bool) -> None:
        if was_full and self.on_room is not None:
            self.on_room()

    def _settle(self, tag: str, what: str, settle: Callable[[Message[Any]], None]) -> None:
        was_full = not self.can_consume()
        lease, lender = self._held.pop(tag, (None, None))
        if lease is None:
            return
        try:
            if lender is not None and lease.state == HELD:  # revoked, or expired, before it started
                lender.begin(lease, told=False)
            settle(lease)
        except LeaseLost as error:
            logger.warning("a task was %s too late, and may run again: %s", what, error)
        except Closed:
            pass  # its connection has ended, and its lease with it
        finally:
            self._reasons.pop(tag, None)
        self._tell_room(was_full)

    def restore_unacked(self) -> list[Any]:
        """Give back all that is in hand, to its place and uncharged; nothing in a child of a fork."""
        if self._pid != os.getpid():
            self._held.clear()
            return []
        while self._held:
            tag, (lease, _) = next(iter(self._held.items()))
            if lease.state == ENDED:  # with its consumer
                self._forget(tag)
            else:
                self._settle(tag, "given back", lambda lease: lease.release())
        return []

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """As `restore_unacked`: what was given back is not in hand any more."""
        self.restore_unacked()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Leases that ended come back by themselves."""
