"""A message in the hands of the application.

Objects of this module are made for every message, so they are small, and what most handlers never ask for
(headers, the decoded body, the date) is worked out when asked for.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from minibroker.contract import limits
from minibroker.contract.bodies import decode_body, decode_headers
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import LeaseLost
from minibroker.session.error_text import describe
from minibroker.session.settlements import ENDED, HELD, Settlement
from minibroker.session.spans import milliseconds, of_type
from minibroker.session.ways_out import Ending, ending_of

if TYPE_CHECKING:
    from minibroker.session.delivery import DeliveryRun

Body = TypeVar("Body")
_UNSET: Any = object()
_ERRORS: Any = (BaseException, str)


class Message(msgspec.Struct, Generic[Body], eq=False, gc=False):
    """One delivery of a message; it is begun, and its lease is renewed while the process lives.

    A thread renews it, so a handler may compute for longer than the lease without a turn of the event loop. Only
    an extension module that keeps the GIL for that long stops the thread too: consume with a longer lease then.

    Exactly one of `ack`, `nack`, `reject` and `release` ends it; `process` does so by itself. Raised by
    all of them: `LeaseLost` if the lease has ended or another of them was called before.
    """

    # A struct of msgspec is made in a third of the time of a class with slots. `gc=False`: the collector does not
    # look at a thousand of them again and again (a fifth of what consuming cost). The circles they are in, with
    # their delivery and with what waits to be written, are broken by hand (Session._keep, Session.let_go).
    run: DeliveryRun
    sequence: int
    _headers: bytes
    raw: bytes
    _body: Any = _UNSET
    state: int = HELD
    lost: bool = False
    begun_at: float = 0.0  # monotonic seconds
    task: Any = None

    @property
    def body(self) -> Body:
        """The body, decoded when first read.

        Raises:
            BodyError: the bytes are not what their encoding says; `raw` still has them.
        """
        if self._body is _UNSET:
            encoding = self.run.encoding
            self._body = decode_body(self.raw, encoding) if encoding else self.raw
        return self._body  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers, as published; BodyError if they cannot be decoded."""
        return decode_headers(self._headers)

    @property
    def origin(self) -> int:
        """The number of the queue the message was first published to."""
        return self.run.origin

    @property
    def id(self) -> MessageId:
        """The identity of the message, as its confirm named it; kept over DLQ moves and redrives."""
        return MessageId(self.run.origin, self.sequence)

    @property
    def token(self) -> int:
        """The number of this delivery; it grows with each one, so it can fence off older handlers."""
        return self.run.delivery.token

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.run.attempt

    @property
    def key(self) -> str | None:
        """The key it was published with; None if it has none."""
        return self.run.key

    @property
    def queue(self) -> str:
        """The name of the queue that delivered it."""
        return self.run.delivery.queue

    @property
    def published_at(self) -> datetime:
        """When the server took it, by the server's wall clock (UTC)."""
        return datetime.fromtimestamp(self.run.published_unix_ms / 1000, UTC)

    @property
    def marked(self) -> bool:
        """Whether it came back before without an end: an earlier handler may have died with it."""
        return self.run.marked

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
        self._check(confirmed)
        self._end()
        settlements = self.run.settlements
        settlements.acks.append(self)
        if confirmed:
            await self.run.delivery.shell.confirmed(self, settlements)
        elif len(settlements.acks) >= settlements.flush_at:
            wait = settlements.on_ripe()
            if wait is not None:
                await wait

    async def nack(
        self,
        error: BaseException | str | None = None,
        delay: float | timedelta | None = None,
        confirmed: bool = False,
    ) -> None:
        """Say that the attempt failed.

        It comes back after `delay` seconds (None: as the queue's retry policy says), or is moved to the
        DLQ if this was its last attempt.
        """
        if error is not None:
            of_type("error", error, _ERRORS, "an exception or a str")
        error_class, text = describe(error)
        delay_ms = None if delay is None else milliseconds("delay", delay, limits.MAX_DELAY_MS)
        self._check(confirmed)
        self._end()
        await self._hand_over(Settlement("nack", self, delay_ms, error_class, text), confirmed)

    async def reject(self, error: BaseException | str, confirmed: bool = False) -> None:
        """Say that it can never succeed; it is moved to the DLQ now."""
        of_type("error", error, _ERRORS, "an exception or a str")
        error_class, text = describe(error)
        self._check(confirmed)
        self._end()
        await self._hand_over(Settlement("reject", self, None, error_class, text), confirmed)

    async def release(self, confirmed: bool = False) -> None:
        """Give it back: to its place, no attempt charged."""
        self._check(confirmed)
        self._end()
        await self._hand_over(Settlement("release", self), confirmed)

    async def extend(self, lease: float | timedelta | None = None) -> None:
        """Renew the lease now, for `lease` seconds; returns when the server has done so.

        Not needed for handlers that run long: leases are renewed by themselves.

        Raises:
            LeaseLost: it had ended; another consumer may hold the message.
        """
        self._check(confirmed=True)
        if self.state == ENDED:
            raise self.lost_error()
        lease_ms = self.run.delivery.lease_ms
        if lease is not None:
            lease_ms = milliseconds("lease", lease, limits.MAX_LEASE_MS, limits.MIN_LEASE_MS)
        settlements, shell = self.run.settlements, self.run.delivery.shell
        shell.extended(self, lease_ms)
        settlements.others.append(Settlement("extend", self, lease_ms))
        await shell.confirmed(self, settlements, extends=True)

    def release_unseen(self) -> None:
        """Give back a message that the application never saw."""
        if self.state != ENDED:
            self._end()
            settlements = self.run.settlements
            settlements.others.append(Settlement("release", self))
            settlements.owe()

    def lose(self) -> None:
        """Note that it is not this client's any more."""
        self.lost = True
        if self.state != ENDED:
            self._end()

    def _check(self, confirmed: bool) -> None:
        """Raise before anything is changed: RuntimeError in a foreign loop, Closed if an answer is due."""
        shell = self.run.delivery.shell
        if confirmed:
            shell.check_open()
        elif get_ident() != shell.thread or not shell.scheduled:
            shell.check_loop()

    def _end(self) -> None:
        if self.state == ENDED:
            raise self.lost_error()
        self.state = ENDED
        self.run.delivery.open -= 1

    def lost_error(self) -> LeaseLost:
        """Return what is raised by a settlement that comes too late."""
        if self.lost:
            return LeaseLost(f"the lease of message {self.id} of {self.queue} was lost")
        return LeaseLost(f"message {self.id} of {self.queue} was settled before")

    async def _hand_over(self, settlement: Settlement, confirmed: bool) -> None:
        settlements = self.run.settlements
        settlements.others.append(settlement)
        if confirmed:
            await self.run.delivery.shell.confirmed(self, settlements)
        else:
            wait = settlements.on_ripe()
            if wait is not None:
                await wait

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
            settlements.acks.append(self)
            if len(settlements.acks) >= settlements.flush_at:
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
            ending = ending_of(error, shell.is_cancelled())
        finally:
            self.task = None  # it keeps the error, whose frames keep the message: a circle
        goes_on = ending in (Ending.FAILED, Ending.UNREADABLE)
        if self.state == ENDED:
            return goes_on and not reraise
        if ending is Ending.INTERRUPTED:
            settlement = Settlement("release", self)
        else:
            shell.failed(self, error)
            op = "reject" if ending is Ending.UNREADABLE else "nack"
            settlement = Settlement(op, self, None, *describe(error))
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

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.queue}, attempt {self.attempt}, {len(self.raw)} bytes>"


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
