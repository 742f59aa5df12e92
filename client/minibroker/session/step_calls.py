"""Steps that have no answer yet: who waits for each, its deadline, and what is done when the server refuses it.

What is refused for now is tried again until the deadline. A step that is over for its caller, and was not done,
must not keep its messages: they are released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from minibroker.contract.errors import (
    LeaseLost,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    ShuttingDown,
    again,
)
from minibroker.session.calls import PASSED, Jitter, retry_delay_ms
from minibroker.session.events import StepDone, StepFailed
from minibroker.session.message import MessageData
from minibroker.session.publishes import FOR_NOW
from minibroker.session.session import Session
from minibroker.session.step_frame import StepFrame
from minibroker.session.timers import Timers

NO_CONFIRM: Final = "no confirm came in time; the step may be done or not"


class StepCalls:
    """The steps of one client; `lose` notes messages as lost, `schedule` sees to it that what waits is written."""

    def __init__(
        self,
        session: Session,
        timers: Timers,
        jitter: Jitter,
        schedule: Callable[[], None],
        lose: Callable[[Sequence[MessageData[Any]], MinibrokerError], None],
    ) -> None:
        self._session = session
        self._timers = timers
        self._jitter = jitter
        self._schedule = schedule
        self._lose = lose

    def ask(self, waiter: Any, frame: StepFrame, within_ms: int, now_ms: int) -> None:
        """Have a step written with the next flush; `waiter` gets the confirms of its groups, or the error.

        Raises:
            NotSent: `within_ms` is 0.
            LeaseLost: a message of it is not there any more. In both cases nothing will be sent.
        """
        if not within_ms:
            raise NotSent(f"nothing of the step was sent: {PASSED}")
        frame.claim()
        frame.waiter = waiter
        frame.whole_ms = within_ms
        frame.deadline_ms = now_ms + within_ms
        frame.slot = self._timers.at(frame.deadline_ms, frame)
        self._session.steps[frame] = None
        self._schedule()

    def due(self, frame: StepFrame, trouble: str) -> None:
        """The deadline of a step has passed."""
        if frame in self._session.steps:
            del self._session.steps[frame]
            error: Exception = NotSent(f"the step was not sent in time: {trouble}")
            self._undone(frame, frame.refusal or error)
        elif not frame.waiter.done():
            # Its messages stay with it: it may still be done.
            frame.waiter.set_exception(OutcomeUnknown(NO_CONFIRM))

    def gave_up(self, frame: StepFrame) -> None:
        """Nobody waits for a step any more: one that was not written never is."""
        if frame in self._session.steps:
            del self._session.steps[frame]
            self._timers.discard(frame, frame.slot)
            frame.give_back()

    def gives_up(self, frame: StepFrame, now_ms: int) -> bool:
        """Return whether a step that was written is not to be sent again: its deadline has passed."""
        if frame.deadline_ms > now_ms:
            return False
        self._timers.discard(frame, frame.slot)
        self._unknown(frame, OutcomeUnknown(NO_CONFIRM))
        return True

    def done(self, event: StepDone, now_ms: int) -> None:
        """A step was done: tell its caller."""
        frame = event.frame
        self._timers.discard(frame, frame.slot)
        if event.lost:  # the only ack, which is no step of its own
            _tell_by_step(event.lost)
            self._lose(event.lost, LeaseLost("ack: the lease had ended"))
        if frame.waiter.done():
            return
        if event.lost:
            frame.waiter.set_exception(event.lost[0].lost_error())
        else:
            frame.waiter.set_result(frame.confirms(event.results, event.known))

    def failed(self, event: StepFailed, now_ms: int) -> None:
        """A step was refused, so nothing of it was done, or nobody can say: try again, or tell its caller."""
        frame, error = event.frame, event.error
        if isinstance(error, OutcomeUnknown):
            self._timers.discard(frame, frame.slot)
            self._unknown(frame, error)
            return
        if not frame.waiter.done():
            delay_ms: int | None = None
            if isinstance(error, ShuttingDown):
                delay_ms = 0  # it waits for the restart
            elif isinstance(error, FOR_NOW):
                left_ms = frame.deadline_ms - now_ms
                delay_ms = retry_delay_ms(
                    error, frame.refusals, left_ms, frame.whole_ms, self._jitter
                )
            if delay_ms is not None:
                self._later(frame, error, now_ms + delay_ms)
                return
        self._timers.discard(frame, frame.slot)
        self._undone(frame, error)

    def _later(self, frame: StepFrame, error: MinibrokerError, when_ms: int) -> None:
        frame.refusal = error
        frame.refusals += 1
        frame.until_ms = when_ms
        self._session.steps[frame] = None
        self._timers.at(when_ms, lambda now_ms: self._schedule())

    def _undone(self, frame: StepFrame, error: Exception) -> None:
        """Nothing of a step was done, and it is over."""
        back = frame.give_back()
        if isinstance(error, LeaseLost):
            # A cancel says more than that the lease is lost.
            error = next((m.lost_error() for m in frame.messages() if m.cancelled), error)
        if isinstance(error, LeaseLost) and len(back) == 1:
            _tell_by_step(back)
            self._lose(back, error)
        elif frame.waiter.done():
            for message in back:
                message.release_unseen()
            self._schedule()
        if not frame.waiter.done():
            frame.waiter.set_exception(
                again(error) if isinstance(error, MinibrokerError) else error
            )

    def _unknown(self, frame: StepFrame, error: OutcomeUnknown) -> None:
        messages = [message for message in frame.messages() if not message.lost]
        _tell_by_step(messages)
        frame.end()
        self._lose(messages, error)
        if not frame.waiter.done():
            frame.waiter.set_exception(error)

    def close(self, why: str) -> None:
        """Let the callers of all steps go: nothing will be answered any more."""
        waiting = list(self._session.steps)
        self._session.steps.clear()
        for frame in waiting:
            if not frame.waiter.done():
                frame.waiter.set_exception(NotSent(why))
        for sent in self._session.window:
            if isinstance(sent.content, StepFrame) and not sent.content.waiter.done():
                sent.content.waiter.set_exception(OutcomeUnknown(why))


def _tell_by_step(messages: Sequence[MessageData[Any]]) -> None:
    """Whoever handles these messages hears from his step that they are lost, and is not cancelled for it."""
    for message in messages:
        message.task = None
