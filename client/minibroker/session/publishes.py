"""Publishes: the callers of each group, its deadline, and what is done when the server refuses it.

A group is what callers of one moment share, by no wish of theirs. So a refusal of it is taken apart until each
call has its own, and what is refused for now is tried again until the deadline, in front of what came later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final

from minibroker.contract.confirms import Confirm, ConfirmRun, RoutedRun, known_of
from minibroker.contract.errors import (
    BadName,
    Busy,
    CommandError,
    DiskFull,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    ShuttingDown,
    UnknownExchange,
    UnknownQueue,
    Unroutable,
    again,
)
from minibroker.contract.outcomes import Failures, Part, PartialConfirms
from minibroker.session.calls import PASSED, Jitter, retry_delay_ms
from minibroker.session.events import Published, PublishFailed, RouteDone
from minibroker.session.outbox import Key, PublishGroup, Waiter
from minibroker.session.session import Session
from minibroker.session.timers import Timers

FOR_NOW: Final = (Busy, DiskFull)
# Refusals that every message of the group would meet.
OF_THE_QUEUE: Final = (BadName, UnknownQueue, UnknownExchange, Unroutable)


class Publishes:
    """The publishes of one driver that have no answer."""

    def __init__(
        self,
        session: Session,
        timers: Timers,
        jitter: Jitter,
        schedule: Callable[[], None],
        is_over: type[Exception],
    ) -> None:
        """Begin; `is_over` is what `set_result` of a waiter raises when nobody waits any more."""
        self._session = session
        self._outbox = session.outbox
        self._timers = timers
        self._jitter = jitter
        self._schedule = schedule  # sees to it that what waits is written
        self._is_over = is_over

    def open_group(
        self, key: Key, now_ms: int, make: type[PublishGroup] = PublishGroup
    ) -> PublishGroup:
        """Return a new group for a queue and time-out; it leaves with the next flush. NotSent if timeout=0."""
        if not key[1]:
            raise NotSent(f"not published: {PASSED}")
        group = self._outbox.start(key, now_ms, make)
        group.slot = self._timers.at(group.deadline_ms, group)
        self._schedule()
        return group

    def due(self, group: PublishGroup, trouble: str) -> None:
        """The deadline of a group has passed."""
        error: MinibrokerError
        if self._outbox.remove(group):
            error = NotSent(f"not published in time, and not sent: {trouble}")
            if isinstance(group.refusal, MinibrokerError):
                error = group.refusal
            self._outbox.answered(group)
        else:
            why = f" ({trouble})" if trouble and not self._session.is_open else ""
            error = OutcomeUnknown(f"no confirm came in time; it may be stored or not{why}")
        self.fail(group, error)

    def gives_up(self, group: PublishGroup, now_ms: int) -> bool:
        """Return whether nobody waits for a group any more; those whose deadline passes just now hear so."""
        if not group.waiters:
            return True
        if group.deadline_ms > now_ms:
            return False
        self._timers.discard(group, group.slot)
        self.due(group, "")
        return True

    def published(self, event: Published) -> None:
        """A group is stored: give its callers their confirms."""
        group, origin, sequence = event.group, event.origin, event.first
        durability = event.durability
        self._timers.discard(group, group.slot)
        if self._outbox.holds:
            self._has_answer(group, stored=True)
        if event.known:
            confirm_known(event)
            group.let_go()
            return
        if group.alone:
            confirm_each(group.waiters, origin, sequence, durability, self._is_over)
            group.let_go()
            return
        for waiter in group.waiters:
            future, count = waiter if type(waiter) is tuple else (waiter, 0)
            if not future.done():
                future.set_result(
                    ConfirmRun(origin, sequence, count, durability)
                    if count
                    else Confirm(origin, sequence, durability)
                )
            sequence += count or 1
        group.let_go()

    def routed(self, event: RouteDone, now_ms: int) -> None:
        """A group that an exchange led somewhere is stored: tell its callers where."""
        group, run, at = event.group, event.run, 0
        self._timers.discard(group, group.slot)
        if self._outbox.holds:
            self._has_answer(group, stored=True)
        for waiter in group.waiters:
            future, count = waiter if type(waiter) is tuple else (waiter, 0)
            if not future.done():
                future.set_result(run.part(at, count) if count else run.confirm(at))
            at += count or 1
        group.let_go()

    def failed(self, event: PublishFailed, now_ms: int) -> None:
        """A group was refused: try again, take it apart, or tell its callers."""
        group, error = event.group, event.error
        # The pieces behind it are in their places before anything else of its queue may leave.
        if isinstance(error, ShuttingDown) and group.waiters:
            self._has_answer(group, stored=False)
            self._outbox.groups.appendleft(group)  # it left no trace: it waits for the restart
            return
        pieces = self._pieces(group, error, now_ms)
        self._has_answer(group, stored=isinstance(error, OutcomeUnknown))
        if not pieces:
            self._timers.discard(group, group.slot)
            self.fail(group, error)
            return
        until_ms = now_ms
        if isinstance(error, FOR_NOW):
            until_ms += self._delay_ms(group, error, now_ms) or 0
            self._timers.at(until_ms, self._retry)
            for piece in pieces:
                keys = piece.named_keys()
                piece.behind = {later for later in event.later if later.named_keys() & keys}
                piece.refusal = error
        if pieces != [group]:
            self._timers.discard(group, group.slot)
            for piece in pieces:
                piece.slot = self._timers.at(piece.deadline_ms, piece)
        self._outbox.put_back(pieces, until_ms)
        self._schedule()

    def _pieces(
        self, group: PublishGroup, error: MinibrokerError, now_ms: int
    ) -> list[PublishGroup]:
        """Return what of a refused group is to be written again; nothing: its callers get the error."""
        group.drop_withdrawn()
        if not group.waiters or not isinstance(error, CommandError):
            return []
        if isinstance(error, FOR_NOW):
            if self._delay_ms(group, error, now_ms) is None:
                return []
            pieces = group.halves()
            if len(pieces) == 2 and not pieces[0].named_keys() & pieces[1].named_keys():
                return pieces
            return [group]
        return [] if isinstance(error, OF_THE_QUEUE) else group.halves()

    def _delay_ms(self, group: PublishGroup, error: MinibrokerError, now_ms: int) -> int | None:
        left_ms = group.deadline_ms - now_ms
        return retry_delay_ms(error, group.refusals, left_ms, group.where[1], self._jitter)

    def _retry(self, now_ms: int) -> None:
        self._schedule()

    def _has_answer(self, group: PublishGroup, *, stored: bool) -> None:
        self._outbox.answered(group)
        for other in self._outbox.overtaken_by(group, stored=stored):
            # A message of one of its keys is stored that was published later: its own cannot follow any more.
            assert isinstance(other.refusal, MinibrokerError)
            _fail_all(other.drop_keyed(group.named_keys()), other.refusal)
            if not other.waiters:
                self._outbox.remove(other)
                self._outbox.answered(other)
                self._timers.discard(other, other.slot)

    def fail(self, group: PublishGroup, error: MinibrokerError) -> None:
        """Let the callers of a group raise `error`."""
        _fail_all(group.waiters, error)
        group.let_go()


def confirm_known(event: Published) -> None:
    """Answer the callers of a group of which some messages were there already, or replaced one."""
    group, known = event.group, known_of(event.known)
    whole = ConfirmRun(event.origin, event.first, group.count, event.durability, known)
    at = 0
    for waiter in group.waiters:
        future, count = waiter if type(waiter) is tuple else (waiter, 0)
        run = whole.part(at, count or 1)
        if not future.done():
            future.set_result(run if count else run.confirm(0))
        at += count or 1


def _fail_all(waiters: Sequence[Waiter], error: MinibrokerError) -> None:
    for waiter in waiters:
        future: Any = waiter[0] if type(waiter) is tuple else waiter
        if not future.done():
            future.set_exception(again(error))


def none_of(error: NotSent, count: int) -> NotSent:
    """Return the error of a `publish_many` that stored none of `count` bodies."""
    parts = [(count, error)]
    error.confirms, error.failed = PartialConfirms(parts), Failures(parts)
    return error


def outcomes_of(
    calls: Sequence[tuple[Any, int, PublishGroup]],
) -> list[Part]:
    """Return what became of each call's bodies so far: count, and the confirms or the error."""
    outcomes: list[Part] = []
    for future, count, group in calls:
        if future.done() and not future.cancelled():
            error = future.exception()
            outcome = future.result() if error is None else error
            assert isinstance(outcome, ConfirmRun | RoutedRun | MinibrokerError)
        elif group.sequence:
            outcome = OutcomeUnknown("the call ended before its confirm came; it may be stored")
        else:
            outcome = NotSent("the call ended before this was written")
        outcomes.append((count, outcome))
    return outcomes


def confirm_each(
    waiters: Sequence[Any], origin: int, first: int, durability: str, is_over: type[Exception]
) -> None:
    """Answer callers who wait for one message each; `first` is the sequence of the first one.

    Runs per message: the interpreter's own loops make the confirms and hand them out, and that a caller is gone is
    found out by trying.
    """
    if not waiters:
        return
    confirms = map(Confirm, repeat(origin), range(first, first + len(waiters)), repeat(durability))
    answers = map(type(waiters[0]).set_result, waiters, confirms)
    while True:
        try:
            deque(answers, maxlen=0)
        except is_over:
            continue  # that caller was cancelled, or had waited for long enough; the next one follows
        return
