"""A message in the hands of an application that blocks: its settlements, and the block of `process`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar

from minibroker.contract import limits
from minibroker.session.error_text import describe
from minibroker.session.message import MessageData
from minibroker.session.result_wish import completion, progress
from minibroker.session.settlements import ENDED, Settlement
from minibroker.session.spans import Span, milliseconds, of_type
from minibroker.session.ways_out import Cancellation, Ending, ending_of
from minibroker.sync.atomic_step import Step

Body = TypeVar("Body")
_ERRORS: Any = (BaseException, str)


class Message(MessageData[Body], eq=False, gc=False):
    """One delivery of a message; it is begun, and its lease is renewed while the process lives.

    A thread renews it, so a handler may compute for longer than the lease. Only an extension module that keeps the
    GIL for that long stops the thread too: consume with a longer lease then.

    Exactly one of `ack`, `nack`, `reject` and `release` ends it; `process` does so by itself. Raised by
    all of them: `LeaseLost` if the lease has ended or another of them was called before.
    """

    def process(self, reraise: bool = False) -> AbstractContextManager[Message[Body], bool]:
        """Return a context manager that settles the message when its block ends.

        - A normal end acks.
        - An `Exception` nacks with the error and is logged; it goes no further unless `reraise`. A `BodyError`
          rejects instead.
        - `SystemExit`, `GeneratorExit` and any other `BaseException` nacks, and propagates.
        - `KeyboardInterrupt` releases, and propagates.

        Of a group the gravest of its errors counts. What is settled here is written before an error propagates. A
        message that was settled inside is left alone. When the lease is lost, `lost` is true; the block goes on,
        for a thread cannot be stopped, and its end settles nothing.
        """
        return Reraising(self) if reraise else self

    def ack(self, confirmed: bool = False) -> None:
        """Say that the work is done; the message ends. With `confirmed`, return when that is safe."""
        self._settle(None, confirmed)

    def complete(self, result: Any, *, kept: Span | None = None, confirmed: bool = False) -> None:
        """Say that the work is done and what it came to: as `ack`, and `Queue.result` returns it.

        Args:
            result: any value that a body can be, of at most 64 KiB.
            kept: for so long; None: as the queue says (its setting `result_ms`), and if that is 0, not at all.
            confirmed: return when it is safe.

        Raises:
            TypeError, BadValue, TooLarge: it can be no result; the message is still to be settled.
        """
        self._settle(completion(self, result, kept), confirmed)

    def progress(self, share: float, note: str = "") -> None:
        """Say how far the work is, 0.0 to 1.0: told to those who wait for the result, and kept nowhere else."""
        said = progress(self, share, note)
        driver, settlements = self.run.delivery.shell, self.run.settlements
        with driver:
            if self.state == ENDED:
                raise self.lost_error()
            settlements.others.append(said)
            waiter = settlements.on_ripe()
        if waiter is not None:
            driver.wait(waiter)

    def nack(
        self,
        error: BaseException | str | None = None,
        delay: float | timedelta | None = None,
        confirmed: bool = False,
        *,
        key_delay: float | timedelta | None = None,
    ) -> None:
        """Say that the attempt failed.

        It comes back after `delay` seconds (None: as the queue's retry policy says), or is moved to the
        DLQ if this was its last attempt. Nothing of its key comes for `key_delay` seconds, as after an answer
        "too many requests".
        """
        if error is not None:
            of_type("error", error, _ERRORS, "an exception or a str")
        error_class, text = describe(error)
        delay_ms = None if delay is None else milliseconds("delay", delay, limits.MAX_DELAY_MS)
        key_delay_ms = milliseconds("key_delay", key_delay or 0, limits.MAX_DELAY_MS)
        settlement = Settlement("nack", self, delay_ms, error_class, text, key_delay_ms)
        self._settle(settlement, confirmed)

    def reject(self, error: BaseException | str, confirmed: bool = False) -> None:
        """Say that it can never succeed; it is moved to the DLQ now."""
        of_type("error", error, _ERRORS, "an exception or a str")
        self._settle(Settlement("reject", self, None, *describe(error)), confirmed)

    def release(self, confirmed: bool = False) -> None:
        """Give it back: to its place, no attempt charged."""
        self._settle(Settlement("release", self), confirmed)

    def extend(self, lease: float | timedelta | None = None) -> None:
        """Renew the lease now, for `lease` seconds; returns when the server has done so.

        Not needed for handlers that run long: leases are renewed by themselves.

        Raises:
            LeaseLost: it had ended; another consumer may hold the message.
        """
        lease_ms = self.run.delivery.lease_ms
        if lease is not None:
            lease_ms = milliseconds("lease", lease, limits.MAX_LEASE_MS, limits.MIN_LEASE_MS)
        driver, settlements = self.run.delivery.shell, self.run.settlements
        with driver:
            driver.machine.check_open()
            if self.state == ENDED:
                raise self.lost_error()
            driver.extended(self, lease_ms)
            settlements.others.append(Settlement("extend", self, lease_ms))
            waiter, done = driver.confirmed(self, settlements, extends=True)
        driver.wait(waiter, done)

    def step(self, *, timeout: Span | None = None) -> Step:
        """Return a context manager: at the end of its block the message is acked, with all that is said in it.

            with message.step() as step:
                step.publish("mails", {"to": "bob@example.com"})

        All of it happens, or nothing: see `Step`. `timeout` is its deadline, that of the connection by default.

        Raises:
            LeaseLost: the lease has ended, or the message was settled before. At the end of the block, too: then
                nothing of it was done.
            NotSent, OutcomeUnknown, Busy, ...: at the end of the block, as `Queue.publish` says.
        """
        step = Step(self.run.delivery.shell, timeout)
        step.ack(self)
        return step

    def _settle(self, settlement: Settlement | None, confirmed: bool) -> None:
        """Hand over a settlement, None for an ack; wait for its confirm, or for room."""
        driver, settlements = self.run.delivery.shell, self.run.settlements
        waiter, done = None, None
        flush = False
        try:
            driver.__enter__()
            if confirmed:
                driver.machine.check_open()
            self._end()
            if settlement is None:
                settlements.acks.append(self)
            else:
                settlements.others.append(settlement)
            if confirmed:
                waiter, done = driver.confirmed(self, settlements)
                flush = True
            elif settlement is not None or len(settlements.acks) >= settlements.flush_at:
                waiter = settlements.on_ripe()
                flush = driver.wants_flush()
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=flush)
        if waiter is not None:
            driver.wait(waiter, done)

    def returned(self, value: Any) -> None:
        """Take what a handler returned for the result, where the queue keeps those and it is not settled yet."""
        if self.run.delivery.keeps_results and self.state != ENDED:
            self.complete(value)

    # ---- the block of `process` ----

    def __enter__(self) -> Message[Body]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is not None:
            return self._failed(error, reraise=False)
        if self.state != ENDED:
            self._settle(None, confirmed=False)
        return False

    def _failed(self, error: BaseException, reraise: bool) -> bool:
        ending = ending_of(error, False, _cancellation())
        goes_on = ending in (Ending.FAILED, Ending.UNREADABLE)
        if self.state != ENDED:
            settlement = self._answer(error, ending)
            if self.state != ENDED:  # it may be lost at any time, by another thread
                self._settle(settlement, confirmed=False)
        return goes_on and not reraise

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.queue}, attempt {self.attempt}, {len(self.raw)} bytes>"


def _cancellation() -> Cancellation:
    """Return the class of asyncio's cancellations, if the application has loaded it: it is a failure here."""
    asyncio = sys.modules.get("asyncio")
    return () if asyncio is None else asyncio.CancelledError


class Reraising(Generic[Body]):
    """The block of `Message.process(reraise=True)`: what its handler raises settles the message and goes on."""

    __slots__ = ("_message",)

    def __init__(self, message: Message[Body]) -> None:
        self._message = message

    def __enter__(self) -> Message[Body]:
        return self._message.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return self._message.__exit__(None, None, None)
        return self._message._failed(error, reraise=True)
