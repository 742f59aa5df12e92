"""Queues and messages with spans around their verbs; made instead of the plain ones where OpenTelemetry is used.

What is traced stands in subclasses, so that a connection without it runs not one instruction more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from minibroker.aio.driver import Driver
from minibroker.aio.exchange import Exchange
from minibroker.aio.message import Message
from minibroker.aio.queue import Queue
from minibroker.aio.typed_queue import TypedQueue
from minibroker.contract.confirms import Confirm, Confirms, Routed
from minibroker.session.declaring import Declaration
from minibroker.session.exchange_wishes import Matched, RouteTerms
from minibroker.session.settlements import ENDED, Settlement
from minibroker.session.spans import Span
from minibroker.session.typed import UNTYPED
from minibroker.session.ways_out import Ending
from minibroker.shell.tracing import begin_tracing

Body = TypeVar("Body")


def is_traced(driver: Driver) -> bool:
    """Return whether queues of a connection are traced from now on."""
    return begin_tracing(driver, TracedMessage)


def traced_queue(
    driver: Driver, name: str, declaration: Declaration | None, body_type: Any
) -> Queue[Any]:
    """Return a queue of a connection that is traced; TypeError if no body can be of the type `body_type`."""
    if body_type in UNTYPED:
        return TracedQueue(driver, name, declaration)
    return TracedTypedQueue(driver, name, declaration, body_type)


class TracedQueue(Queue[Body]):
    """A queue with spans around what is published and received."""

    async def publish(
        self, body: Body, *, headers: Mapping[str, object] | None = None, **options: Any
    ) -> Confirm:
        """As `Queue.publish`; the message carries the context of its span."""
        with self._telemetry.sending(self.name, headers) as sending:
            confirm = await super().publish(body, headers=sending.headers, **options)
            sending.stored(confirm.id)
        return confirm

    async def publish_many(
        self,
        bodies: Iterable[Body],
        *,
        headers: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Confirms:
        """As `Queue.publish_many`; all messages carry the context of one span."""
        bodies = bodies if isinstance(bodies, list | tuple) else list(bodies)
        with self._telemetry.sending(self.name, headers, len(bodies)) as sending:
            return await super().publish_many(bodies, headers=sending.headers, **options)

    async def receive(
        self,
        count: int = 1,
        wait: Span = 0,
        lease: Span | None = None,
        *,
        timeout: Span | None = None,
    ) -> list[Message[Body]]:
        """As `Queue.receive`; the span links to where each message comes from."""
        with self._telemetry.receiving(self.name) as receiving:
            receiving.messages = messages = await super().receive(
                count, wait, lease, timeout=timeout
            )
        return messages

    @property
    def _telemetry(self) -> Any:
        return self._driver.telemetry


class TracedTypedQueue(TypedQueue[Body], TracedQueue[Body]):
    """A queue that was given the type of its bodies, with spans."""


class TracedExchange(Exchange):
    """An exchange with spans around what is published; what bindings look at is what the application gave."""

    _appends = False  # each publish has headers of its own, which name its span

    async def _publish(
        self,
        body: Any,
        routing_key: str,
        headers: Mapping[str, object] | None,
        matched: Matched,
        key: str | None,
        delay: Span | None,
        terms: RouteTerms,
    ) -> Routed:
        with self._driver.telemetry.sending(self.name, headers) as sending:
            said = sending.headers, matched, key, delay, terms
            return await super()._publish(body, routing_key, *said)

    async def _publish_many(
        self,
        bodies: Iterable[Any],
        routing_key: str,
        headers: Mapping[str, object] | None,
        matched: Matched,
        key: str | None,
        delay: Span | None,
        terms: RouteTerms,
    ) -> list[Routed]:
        bodies = bodies if isinstance(bodies, list | tuple) else list(bodies)
        with self._driver.telemetry.sending(self.name, headers, len(bodies)) as sending:
            said = sending.headers, matched, key, delay, terms
            return await super()._publish_many(bodies, routing_key, *said)


class TracedMessage(Message[Body], eq=False, gc=False):
    """A message with a span around the work on it, and around each settlement but the ack that ends the work."""

    work: Any = None  # Work, inside the block of `process`
    # Of the trace and of the span of the work, also when it has ended.
    work_ids: tuple[str, str] = ("", "")
    counted: bool = False  # as delivered

    async def ack(self, confirmed: bool = False) -> None:
        """As `Message.ack`."""
        with self._telemetry.settling(self, "ack", None):
            await super().ack(confirmed)

    async def nack(
        self,
        error: BaseException | str | None = None,
        delay: float | timedelta | None = None,
        confirmed: bool = False,
        *,
        key_delay: float | timedelta | None = None,
    ) -> None:
        """As `Message.nack`."""
        with self._telemetry.settling(self, "nack", error):
            await super().nack(error, delay, confirmed, key_delay=key_delay)

    async def reject(self, error: BaseException | str, confirmed: bool = False) -> None:
        """As `Message.reject`."""
        with self._telemetry.settling(self, "reject", error):
            await super().reject(error, confirmed)

    async def release(self, confirmed: bool = False) -> None:
        """As `Message.release`."""
        with self._telemetry.settling(self, "release", None):
            await super().release(confirmed)

    async def __aenter__(self) -> Message[Body]:
        await super().__aenter__()
        self.work = work = self._telemetry.begin(self)
        self.work_ids = work.ids
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is not None:
            return await self._failed(error, reraise=False)
        if self.state != ENDED:
            self.work.settled("ack", None)
        try:
            return await super().__aexit__(None, None, None)
        finally:
            self._end_work(self.lost_error() if self.lost else None)

    async def _failed(self, error: BaseException, reraise: bool) -> bool:
        try:
            return await super()._failed(error, reraise)
        finally:
            self._end_work(self.lost_error() if self.lost else error)

    def _answer(self, error: BaseException, ending: Ending) -> Settlement:
        settlement = super()._answer(error, ending)
        with self._telemetry.settling(self, settlement.op, error):
            return settlement

    def _end_work(self, error: BaseException | None) -> None:
        work, self.work = self.work, None
        if work is not None:
            work.end(error)

    @property
    def _telemetry(self) -> Any:
        return self.run.delivery.shell.telemetry
