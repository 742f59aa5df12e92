"""A queue as the application sees it: publish, consume, receive, and what is done by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import get_ident
from typing import Any, Final, Generic, TypeVar

from minibroker.aio.atomic_step import publish_after
from minibroker.aio.callables import Handler
from minibroker.aio.consumer import Consumption
from minibroker.aio.driver import Driver
from minibroker.aio.message import Message
from minibroker.aio.queue_by_hand import QueueByHand
from minibroker.aio.running import run_slots
from minibroker.contract import limits
from minibroker.contract.confirms import Confirm, ConfirmRun, Confirms, MessageId, RoutedRun
from minibroker.contract.errors import MinibrokerError, NotSent
from minibroker.contract.outcomes import Failures, PartialConfirms
from minibroker.session import requeueing, wishes
from minibroker.session.after import DEAD_LETTER, Comes
from minibroker.session.declaring import Declaration
from minibroker.session.message import Delivery
from minibroker.session.outbox import GROUP_MESSAGES, Key, PublishGroup
from minibroker.session.pacing import Prefetch, prefetch_of
from minibroker.session.publishes import none_of, outcomes_of
from minibroker.session.result_wish import Progress
from minibroker.session.settlements import BEGUN
from minibroker.session.spans import Span, whole
from minibroker.session.typed import Convert
from minibroker.shell.monotonic import now_ms

Body = TypeVar("Body")
Run = TypeVar("Run", ConfirmRun, RoutedRun)
DROP: Final = wishes.DROP  # looked at for each message
NOTHING_ASKED: Final = (None, None, None, 0, DROP, None, None)
NO_GROUP: Final = PublishGroup(("", 0), 0)  # that takes nothing


class Queue(QueueByHand, Generic[Body]):
    """One queue of a broker; made by `Broker.queue`. Publishing and consuming create it.

    Times are seconds (or timedelta). Every call has one deadline: `timeout`, or that of the connection. All that
    it waits for counts, also a server that is away; 0 has passed already, so nothing is sent. Publishes then raise
    NotSent or OutcomeUnknown, all else Timeout. The dead-letter queue of `emails` is a queue, too:
    `broker.queue("emails.dlq")` can be peeked, consumed, redriven.
    """

    _bound_as = "queue"  # in a binding that leads here

    def __init__(self, driver: Driver, name: str, declaration: Declaration | None = None) -> None:
        super().__init__(driver, name, declaration)
        self._convert: Convert | None = None
        self._latest = NO_GROUP  # that `publish` added to: looking there is cheaper than in `_open`
        self._key: Key = (name, driver.timeout_ms)

    # ---- publishing ----

    async def publish(
        self,
        body: Body,
        *,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        unique: str = wishes.DROP,
        dedupe_id: str | None = None,
        dedupe_window: Span | None = None,
        ttl: Span | None = None,
        after: Iterable[MessageId] | None = None,
        if_dead: str = DEAD_LETTER,
        timeout: Span | None = None,
    ) -> Confirm:
        """Store one message; return when it is as safe as the queue's durability says.

        Args:
            body: bytes, or None, bool, int, float, str, list, tuple and dict of such; the consumer gets the same
                (a tuple as a list). Or a dataclass, msgspec.Struct or pydantic model, with datetime, UUID,
                Decimal, Enum and more in it, also in lists and dicts: the handler's annotation makes it again.
            headers: for the application, any such values under str keys; the server does not read them.
            key: messages of one key keep their order; keys take turns.
            delay: hand it out this much later.
            max_attempts, lease: for this message, instead of those of the queue and of the consumer.
            priority: 0 to 9; a higher one is handed out before all lower ones of the queue.
            unique_key: one message of this key at a time, from its publish to its end (docs/guide/unique.md).
            unique: what becomes of it while one is there: "drop", "replace" or "keep-latest" (the same page).
            dedupe_id: not stored if one with this id was, within `dedupe_window` (None: as the queue says).
            ttl: if it has not begun so long after the publish, it is dropped, or dies (`on_expired` of the queue).
            after, if_dead: it waits until all messages of these ids have ended; as `step.publish` has them.
            timeout: deadline of this call.

        Raises:
            TypeError, BadValue, TooLarge: it cannot be sent; nothing was. The text says what to do.
            NotSent, OutcomeUnknown: the deadline passed before it was written; or before its confirm came.
            Busy, DiskFull, UnknownQueue, ...: the server had no room, or refused it; nothing was stored.
        """
        # Runs per message: a plain one appends twice to a group, which is packed, written and confirmed by loops
        # of the interpreter's own (measured: 0.9 us a message for 1,000 tasks, where bare futures take 0.74).
        plain: Any = body
        driver = self._driver
        if (
            type(plain) is bytes and headers is None and key is None and delay is None and priority == 0
            and max_attempts is None and lease is None and ttl is None and after is None and timeout is None
            and unique_key is None and dedupe_id is None and unique is DROP and dedupe_window is None
            and if_dead is DEAD_LETTER and get_ident() == driver.thread
        ):  # fmt: skip
            group = self._latest
            if (
                len(plain) <= group.plain_bytes
                or (group := self._group_for_plain(len(plain))) is not NO_GROUP
            ):
                future: asyncio.Future[Confirm] = driver.create_future()
                waiters = group.waiters
                waiters.append(future)
                group.blob.append(plain)
                if len(waiters) >= GROUP_MESSAGES:
                    driver.group_is_full(group.where)
                elif not driver.scheduled:
                    driver.schedule()
                return await future
        terms = timeout, max_attempts, lease, priority, unique, dedupe_window, ttl
        comes = after, if_dead, unique_key, dedupe_id
        return await self._publish(terms, body, headers, key, delay, comes)

    async def _publish(
        self,
        asked: tuple[Any, ...],
        body: Body,
        headers: Mapping[str, object] | None,
        key: str | None,
        delay: Span | None,
        comes: Comes,
    ) -> Confirm:
        after, if_dead, *names = comes
        if after is not None or if_dead != DEAD_LETTER:
            said = self.name, body, headers, key, delay, asked[1:]
            return await publish_after(self._driver, asked[0], said, comes)
        where = self._key
        if asked != NOTHING_ASKED:
            where = wishes.place(
                self.name, asked[0], self._driver.timeout_ms, *asked[1:], names=names
            )
        most = self._driver.session.max_message_bytes
        some = wishes.ready(body, headers, key, delay, most, *names)
        group = self._group(where, 1, some.cost)
        future = self._driver.create_future()
        group.add(future, *some[:-2])
        if some.names is not wishes.NO_NAMES:
            group.name_last([some.names])
        self._filled(group)
        confirm: Confirm = await future
        return confirm

    async def publish_many(
        self,
        bodies: Iterable[Body],
        *,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        unique_keys: Iterable[str] | None = None,
        unique: str = wishes.DROP,
        dedupe_ids: Iterable[str] | None = None,
        dedupe_window: Span | None = None,
        ttl: Span | None = None,
        timeout: Span | None = None,
    ) -> Confirms:
        """Store many messages with the same headers, key, delay and terms; return their confirms in order.

        `unique_keys` and `dedupe_ids` have one for each body.

        They leave in frames of at most 500, each stored as a whole or not at all. If one fails, its error is
        raised after all were answered; it says what became of each body: `error.confirms[index]` is None for those
        that are not stored, or of which nothing is known, and `error.failed[index]` says why. A `CancelledError`
        has both attributes, too. Raises what `publish` raises.
        """
        driver = self._driver
        most = driver.session.max_message_bytes
        many = wishes.ready_many(bodies, headers, key, delay, most, unique_keys, dedupe_ids)
        terms = max_attempts, lease, priority, unique, dedupe_window, ttl
        names = unique_keys, dedupe_ids
        where = wishes.place(self.name, timeout, driver.timeout_ms, *terms, names=names)
        driver.check_open()
        calls = []
        most = driver.session.outbox.group_bytes
        for first, stop in wishes.chunks(many.bodies, many.each, most):
            some, count = many.bodies[first:stop], stop - first
            try:
                group = self._group(where, count, sum(map(len, some)) + count * many.each)
            except NotSent as error:
                raise none_of(error, len(many.bodies)) from None
            future: asyncio.Future[ConfirmRun] = driver.create_future()
            calls.append((future, count, group))
            encodings = many.encodings[first:stop]
            group.add_many(future, many.headers, some, encodings, many.key, many.delay_ms)
            group.name_last(many.names[first:stop])
            self._filled(group)
        return Confirms(await runs_of(calls))

    def _group_for_plain(self, size: int) -> PublishGroup:
        """Return the open group if a plain message of this size may be appended to it, else `NO_GROUP`; keep it.

        While there is no connection none may, unseen: a group may then be open for longer than its event loop.
        """
        self._latest = NO_GROUP
        session = self._driver.session
        outbox = session.outbox
        if size <= outbox.plain_bytes and session.is_open:
            group = outbox.open.get(self._key) or self._driver.open_group(self._key)
            if size <= group.plain_bytes:
                self._latest = group
        return self._latest

    def _group(self, where: Key, count: int, cost: int) -> PublishGroup:
        """Return the open group, or another if it has no room for `count` messages of `cost` bytes."""
        self._driver.check_open()
        outbox = self._driver.session.outbox
        group = outbox.open.get(where)
        if group is not None:
            if group.takes(count, cost, outbox.group_bytes):
                return group
            self._driver.group_is_full(where)
        return self._driver.open_group(where)

    def _filled(self, group: PublishGroup) -> None:
        driver = self._driver
        if group.count >= GROUP_MESSAGES or group.cost >= driver.session.outbox.group_bytes:
            driver.group_is_full(group.where)
        else:
            driver.schedule()

    async def requeue(
        self,
        id: MessageId,
        body: Any = requeueing.SAME,
        *,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        queue: str | None = None,
        timeout: Span | None = None,
    ) -> Confirm:
        """Publish a message of this queue again, as it is or changed; the original stays where it is.

        What is not given is as in the original, which the new one names in its header `minibroker-original`. It
        goes to `queue`, else to this one, from a DLQ to where it died. Raises what `publish` raises, and:

        Raises:
            BadValue: there is no such message here.
            BodyError: what is kept of it cannot be read.
        """
        found = await self.peek(1, ids=[id], timeout=timeout)
        again = requeueing.requeued(self.name, id, found, body, headers, key)
        target: Queue[Any] = Queue(self._driver, queue or requeueing.source_of(self.name))
        return await target.publish(**again._asdict(), timeout=timeout)

    async def call(
        self,
        body: Body,
        *,
        result_type: Any = None,
        on_progress: Callable[[Progress], object] | None = None,
        timeout: Span | None = None,
        **options: Any,
    ) -> Any:
        """Publish a message and return what it came to; `options` are those of `publish`, the rest of `result`.

        The queue must keep results (its setting `result_ms`). At the deadline the message stays where it is.

        Raises:
            NotSent, OutcomeUnknown, Busy, ...: as `publish`.
            MessageFailed, Timeout, BodyError: as `result`.
        """
        by_ms = now_ms() + wishes.timeout_ms(timeout, self._driver.timeout_ms)
        confirm = await self.publish(body, timeout=timeout, **options)
        left_s = max(0, by_ms - now_ms()) / 1_000
        return await self.result(
            confirm.id, result_type=result_type, on_progress=on_progress, timeout=left_s
        )

    # ---- consuming ----

    def consume(self, prefetch: Prefetch = 1, lease: Span | None = None) -> Consumption[Body]:
        """Return the messages of the queue, as they come. `run` does this for a handler.

            async with queue.consume(prefetch=32) as messages:
                async for message in messages:
                    async with message.process():
                        ...

        `prefetch` bounds what is delivered and not settled; "auto": what is worked off in about 10 ms, and
        in the time of the way to the server and back. `lease`: as the queue says, if None.

        Raises:
            TypeError, BadValue: `prefetch` or `lease` is none.
        """
        in_hand = prefetch_of(prefetch)
        return Consumption(self._driver, self.name, in_hand, wishes.lease_ms(lease), self._convert)

    async def receive(
        self,
        count: int = 1,
        wait: Span = 0,
        lease: Span | None = None,
        *,
        timeout: Span | None = None,
    ) -> list[Message[Body]]:
        """Return up to `count` messages, begun: what is ready, else what comes within `wait` seconds.

        An empty list if nothing came. `wait` passes at the server, and comes on top of the deadline. Each message
        must be settled: in `async with message.process()`, or by one of its `ack`, `nack`, `reject` and `release`.
        """
        driver = self._driver
        (op, fields, _), within_ms = wishes.receive(
            self.name, count, wait, lease, timeout, driver.timeout_ms
        )
        driver.check_open()
        driver.keep_alive()
        delivery: Delivery = await driver.request(op, fields, within_ms)
        now = driver.clock()
        delivery.convert = self._convert
        for message in delivery.messages:
            message.begun_at = now
            message.state = BEGUN
        driver.renew_soon(delivery.lease_ms)
        return list(delivery.messages)

    async def run(
        self,
        handler: Handler,
        concurrency: int = 1,
        lease: Span | None = None,
        *,
        prefetch: Prefetch | None = None,
    ) -> None:
        """Call `handler` for each message, `concurrency` at a time, each inside `message.process()`.

        An `async def` handler runs in the loop, a plain one in a thread (at most `concurrency` of them) while its
        lease is renewed; what a plain one returns is awaited if it can be. The handler's return acks, an exception
        nacks, and so on as `Message.process` says; it may also await `message.reject(error)` or another settlement
        itself.

        `prefetch` is as `consume` has it; None: as many as run at once.

        Runs until it is cancelled, which Ctrl-C does and SIGTERM does not (docs/operating.md shows how). Then no
        new message begins, the handlers that run are waited for, and their settlements confirmed; cancelling it
        once more cancels the handlers, which releases theirs. A thread cannot be cancelled: it is waited for
        within the connection's `timeout`, and its message released if it goes on.

        Raises:
            TypeError: the handler can never handle a message; none was taken.
            BadValue: `concurrency` or `prefetch` is out of range.
            SystemExit, KeyboardInterrupt, ...: what a handler raised that is no `Exception`; that message is
                settled.
        """
        whole("concurrency", concurrency, 1, limits.MAX_PREFETCH)
        in_hand = prefetch_of(concurrency if prefetch is None else prefetch, concurrency)
        lease_ms = wishes.lease_ms(lease)
        await run_slots(
            self._driver, self.name, handler, concurrency, in_hand, lease_ms, self._convert
        )

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


async def runs_of(calls: Sequence[tuple[asyncio.Future[Run], int, PublishGroup]]) -> list[Run]:
    """Return the confirms of all calls; the error, if one failed, says what is known of each."""
    try:
        if len(calls) > 1:
            await asyncio.wait([future for future, *_ in calls])
        return [await future for future, *_ in calls]
    except (MinibrokerError, asyncio.CancelledError) as error:
        parts = outcomes_of(calls)
        error.confirms = PartialConfirms(parts)  # type: ignore[union-attr]
        error.failed = Failures(parts)  # type: ignore[union-attr]
        for future, *_ in calls:
            future.cancel()
        raise
