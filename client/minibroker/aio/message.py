"""A message in the hands of an application that awaits: its settlements, and the block of `process`."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, TypeVar

from minibroker.aio.atomic_step import Step
from minibroker.contract import limits
from minibroker.session.error_text import describe
from minibroker.session.message import MessageData
from minibroker.session.result_wish import completion, progress
from minibroker.session.settlements import ENDED, Settlement
from minibroker.session.spans import Span, milliseconds, of_type
from minibroker.session.ways_out import Ending, ending_of

Body = TypeVar("Body")
_ERRORS: Any = (BaseException, str)


class Message(MessageData[Body], eq=False, gc=False):
    """One delivery of a message; it is begun, and its lease is renewed while the process lives.

    A thread renews it, so a handler may compute for longer than the lease without a turn of the event loop. Only
    an extension module that keeps the GIL for that long stops the thread too: consume with a longer lease then.

    Exactly one of `ack`, `nack`, `reject` and `release` ends it; `process` does so by itself. Raised by
    all of them: `LeaseLost` if the lease has ended or another of them was called before.
    """

    def process(self, reraise: bool = False) -> AbstractAsyncContextManager[Message[Body], bool]:
        """Return a context manager that settles the message when its block ends.

        - A normal end acks.
        - An `Exception`, and a `CancelledError` that nobody asked of this task, nacks with the error and is
          logged; it goes no further unless `reraise`. A `BodyError` rejects instead.
        - `SystemExit`, `GeneratorExit` and any other `BaseException` nacks, and propagates.
        - A cancellation that was asked of this task, and `KeyboardInterrupt`, release, and propagate.

        Of a group the gravest of its errors counts. What is settled here is written before an error propagates. A
        message that was settled inside is left alone. When the lease is lost, the block is cancelled; this
        cancellation goes no further.
        """
        return Reraising(self) if reraise else self

    async def ack(self, confirmed: bool = False) -> None:
        """Say that the work is done; the message ends. With `confirmed`, return when that is safe."""
        self._check_settling(confirmed)
        self._end()
        settlements = self.run.settlements
        settlements.acks.append(self)
        if confirmed:
            await self.run.delivery.shell.confirmed(self, settlements)
        elif len(settlements.acks) >= settlements.flush_at:
            wait = settlements.on_ripe()
            if wait is not None:
                await wait

    async def complete(
        self, result: Any, *, kept: Span | None = None, confirmed: bool = False
    ) -> None:
        """Say that the work is done and what it came to: as `ack`, and `Queue.result` returns it.

        Args:
            result: any value that a body can be, of at most 64 KiB.
            kept: for so long; None: as the queue says (its setting `result_ms`), and if that is 0, not at all.
            confirmed: return when it is safe.

        Raises:
            TypeError, BadValue, TooLarge: it can be no result; the message is still to be settled.
        """
        settlement = completion(self, result, kept)
        self._check_settling(confirmed)
        self._end()
        await self._hand_over(settlement, confirmed)

    async def progress(self, share: float, note: str = "") -> None:
        """Say how far the work is, 0.0 to 1.0: told to those who wait for the result, and kept nowhere else."""
        said = progress(self, share, note)
        self._check_settling(confirmed=False)
        if self.state == ENDED:
            raise self.lost_error()
        await self._hand_over(said, confirmed=False)

    async def nack(
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
        self._check_settling(confirmed)
        self._end()
        settlement = Settlement("nack", self, delay_ms, error_class, text, key_delay_ms)
        await self._hand_over(settlement, confirmed)

    async def reject(self, error: BaseException | str, confirmed: bool = False) -> None:
        """Say that it can never succeed; it is moved to the DLQ now."""
        of_type("error", error, _ERRORS, "an exception or a str")
        error_class, text = describe(error)
        self._check_settling(confirmed)
        self._end()
        await self._hand_over(Settlement("reject", self, None, error_class, text), confirmed)

    async def release(self, confirmed: bool = False) -> None:
        """Give it back: to its place, no attempt charged."""
        self._check_settling(confirmed)
        self._end()
        await self._hand_over(Settlement("release", self), confirmed)

    async def extend(self, lease: float | timedelta | None = None) -> None:
        """Renew the lease now, for `lease` seconds; returns when the server has done so.

        Not needed for handlers that run long: leases are renewed by themselves.

        Raises:
            LeaseLost: it had ended; another consumer may hold the message.
        """
        self._check_settling(confirmed=True)
        if self.state == ENDED:
            raise self.lost_error()
        lease_ms = self.run.delivery.lease_ms
        if lease is not None:
            lease_ms = milliseconds("lease", lease, limits.MAX_LEASE_MS, limits.MIN_LEASE_MS)
        settlements, shell = self.run.settlements, self.run.delivery.shell
        shell.extended(self, lease_ms)
        settlements.others.append(Settlement("extend", self, lease_ms))
        await shell.confirmed(self, settlements, extends=True)

    def step(self, *, timeout: Span | None = None) -> Step:
        """Return a context manager: at the end of its block the message is acked, with all that is said in it.

            async with message.step() as step:
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

    def _check_settling(self, confirmed: bool = False) -> None:
        """Raise before anything is changed: RuntimeError in a foreign loop, Closed if an answer is due."""
        shell = self.run.delivery.shell
        if confirmed:
            shell.check_open()
        elif get_ident() != shell.thread or not shell.scheduled:
            shell.check_loop()

    async def _hand_over(self, settlement: Settlement, confirmed: bool) -> None:
        settlements = self.run.settlements
        settlements.others.append(settlement)
        if confirmed:
            await self.run.delivery.shell.confirmed(self, settlements)
        else:
            wait = settlements.on_ripe()
            if wait is not None:
                await wait

    async def returned(self, value: Any) -> None:
        """Take what a handler returned for the result, where the queue keeps those and it is not settled yet."""
        if self.run.delivery.keeps_results and self.state != ENDED:
            await self.complete(value)

    # ---- the block of `process` ----

    async def __aenter__(self) -> Message[Body]:
        shell = self.run.delivery.shell
        self.task = task = shell.current_task()
        if task is None or get_ident() != shell.thread:  # its loop does not run, or not here
            shell.check_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        # As `ack`, written out: a call less saves a tenth of what a message costs a quick handler.
        if error is not None:
            return await self._failed(error, reraise=False)
        if self.state != ENDED:
            self.task = None
            self.state = ENDED
            run = self.run
            run.delivery.open -= 1
            settlements = run.settlements
            acks = settlements.acks
            acks.append(self)
            if len(acks) >= settlements.flush_at:
                wait = settlements.on_ripe()
                if wait is not None:
                    await wait
        elif self.lost:
            self.run.delivery.shell.takes_cancellation(self, None)
        else:
            self.task = None
        return False

    async def _failed(self, error: BaseException, reraise: bool) -> bool:
        shell = self.run.delivery.shell
        try:
            if self.lost and shell.takes_cancellation(self, error):
                if reraise:
                    raise self.lost_error() from error
                return True
            ending = ending_of(error, shell.is_cancelled(), CancelledError)
        finally:
            self.task = None  # it keeps the error, whose frames keep the message: a circle
        goes_on = ending in (Ending.FAILED, Ending.UNREADABLE)
        if self.state == ENDED:
            return goes_on and not reraise
        settlement = self._answer(error, ending)
        self._end()
        if goes_on:
            await self._hand_over(settlement, confirmed=False)
            return not reraise
        # No turn of the loop may follow: what propagates can be the end of the process, or of this coroutine.
        settlements = self.run.settlements
        settlements.others.append(settlement)
        settlements.owe()
        shell.flush()
        return False


class Reraising(Generic[Body]):
    """The block of `Message.process(reraise=True)`: what its handler raises settles the message and goes on."""

    __slots__ = ("_message",)

    def __init__(self, message: Message[Body]) -> None:
        self._message = message

    async def __aenter__(self) -> Message[Body]:
        return await self._message.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return await self._message.__aexit__(None, None, None)
        return await self._message._failed(error, reraise=True)
