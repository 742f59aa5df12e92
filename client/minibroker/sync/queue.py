"""A queue as a blocking application sees it: publish, consume, receive, and what is done by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from minibroker.contract import limits
from minibroker.contract.confirms import Confirm, Confirms, MessageId
from minibroker.contract.errors import NotSent
from minibroker.contract.outcomes import Failures, PartialConfirms
from minibroker.session import requeueing, wishes
from minibroker.session.after import DEAD_LETTER
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
from minibroker.sync.atomic_step import publish_after
from minibroker.sync.consumer import Consumption
from minibroker.sync.driver import Driver
from minibroker.sync.message import Message
from minibroker.sync.queue_by_hand import QueueByHand
from minibroker.sync.running import Handler, run_threads
from minibroker.sync.waiter import Waiter

Body = TypeVar("Body")
# By a publish: headers, key, delay, timeout, names and terms.
NOTHING_ASKED: Final = (None,) * 6 + (None, None, 0, wishes.DROP, None, None)


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

    # ---- publishing ----

    def publish(
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
            unique: while one is there, "drop": not stored. "replace": in the place of one that waits, with its own
                delay. "keep-latest": the same, ready when that would have been.
            dedupe_id: not stored if one with this id was, within `dedupe_window` (None: as the queue says).
            ttl: if it has not begun so long after the publish, it is dropped, or dies (`on_expired` of the queue).
            after, if_dead: it waits until all messages of these ids have ended; as `step.publish` has them.
            timeout: deadline of this call.

        Raises:
            TypeError, BadValue, TooLarge: it cannot be sent; nothing was. The text says what to do.
            NotSent: the deadline passed before it was written: it is not stored.
            OutcomeUnknown: it was written, but no confirm came in time.
            Busy, DiskFull: the server had no room until the deadline; nothing was stored.
            UnknownQueue, UnknownMessage, ...: the server refused it; nothing was stored.
        """
        driver = self._driver
        terms = max_attempts, lease, priority, unique, dedupe_window, ttl
        if after is not None or if_dead != DEAD_LETTER:
            said = self.name, body, headers, key, delay, terms
            comes = after, if_dead, unique_key, dedupe_id
            return publish_after(driver, timeout, said, comes)
        plain: Any = body
        most, names = driver.session.max_message_bytes, (unique_key, dedupe_id)
        asked = headers, key, delay, timeout, *names, *terms
        if type(plain) is bytes and asked == NOTHING_ASKED and len(plain) <= most:
            where: Key = (self.name, driver.timeout_ms)
            some = wishes.plain(plain)
        else:
            some = wishes.ready(body, headers, key, delay, most, *names)
            where = wishes.place(self.name, timeout, driver.timeout_ms, *terms, names=names)
        confirm: Confirm = driver.wait(_put(driver, where, some))
        return confirm

    def publish_many(
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
        that are not stored, or of which nothing is known, and `error.failed[index]` says why. So do
        other errors that end the call, like a KeyboardInterrupt. Raises what `publish` raises.
        """
        driver = self._driver
        most = driver.session.max_message_bytes
        many = wishes.ready_many(bodies, headers, key, delay, most, unique_keys, dedupe_ids)
        terms = max_attempts, lease, priority, unique, dedupe_window, ttl
        names = unique_keys, dedupe_ids
        where = wishes.place(self.name, timeout, driver.timeout_ms, *terms, names=names)
        calls = []
        with driver as now:
            most = driver.session.outbox.group_bytes
            for first, stop in wishes.chunks(many.bodies, many.each, most):
                some, count = many.bodies[first:stop], stop - first
                size = sum(map(len, some)) + count * many.each
                try:
                    group = driver.group(where, count, size, now)
                except NotSent as error:
                    raise none_of(error, len(many.bodies)) from None
                waiter = Waiter(driver.machine)
                calls.append((waiter, count, group))
                encodings = many.encodings[first:stop]
                group.add_many(waiter, many.headers, some, encodings, many.key, many.delay_ms)
                group.name_last(many.names[first:stop])
                if group.count >= GROUP_MESSAGES or group.cost >= most:
                    driver.session.outbox.close(where)
        return Confirms(runs_of(driver, calls))

    def requeue(
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
        found = self.peek(1, ids=[id], timeout=timeout)
        again = requeueing.requeued(self.name, id, found, body, headers, key)
        target: Queue[Any] = Queue(self._driver, queue or requeueing.source_of(self.name))
        return target.publish(**again._asdict(), timeout=timeout)

    def call(
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
        confirm = self.publish(body, timeout=timeout, **options)
        left_s = max(0, by_ms - now_ms()) / 1_000
        return self.result(
            confirm.id, result_type=result_type, on_progress=on_progress, timeout=left_s
        )

    # ---- consuming ----

    def consume(self, prefetch: Prefetch = 1, lease: Span | None = None) -> Consumption[Body]:
        """Return the messages of the queue, as they come. `run` does this for a handler.

            with queue.consume(prefetch=32) as messages:
                for message in messages:
                    with message.process():
                        ...

        `prefetch` bounds what is delivered and not settled; "auto": what is worked off in about 10 ms, and
        in the time of the way to the server and back. `lease`: as the queue says, if None.

        Raises:
            TypeError, BadValue: `prefetch` or `lease` is none.
        """
        in_hand = prefetch_of(prefetch)
        return Consumption(self._driver, self.name, in_hand, wishes.lease_ms(lease), self._convert)

    def receive(
        self,
        count: int = 1,
        wait: Span = 0,
        lease: Span | None = None,
        *,
        timeout: Span | None = None,
    ) -> list[Message[Body]]:
        """Return up to `count` messages, begun: what is ready, else what comes within `wait` seconds.

        An empty list if nothing came. `wait` passes at the server, and comes on top of the deadline. Each message
        must be settled: in `with message.process()`, or by one of its `ack`, `nack`, `reject` and `release`.
        """
        driver = self._driver
        (op, fields, _), within_ms = wishes.receive(
            self.name, count, wait, lease, timeout, driver.timeout_ms
        )
        with driver:
            driver.machine.check_open()
            driver.keep_alive()
        delivery: Delivery = driver.request(op, fields, within_ms)
        try:
            now = driver.clock()
            delivery.convert = self._convert
            for message in delivery.messages:
                message.begun_at = now
                message.state = BEGUN
            if driver.attached is not None:
                driver.attached.delivered(delivery.lease_ms)
            return list(delivery.messages)
        except BaseException:
            with driver:  # an interrupt: nobody will see them, and their leases would be renewed
                driver.machine.give_back(delivery.messages)
            raise

    def run(
        self,
        handler: Handler,
        concurrency: int = 1,
        lease: Span | None = None,
        *,
        prefetch: Prefetch | None = None,
    ) -> None:
        """Call `handler` for each message, `concurrency` at a time, each inside `message.process()`.

        One at a time runs in this thread, more in threads of their own; leases are renewed meanwhile. A return of
        the handler acks, an exception nacks, and so on as `Message.process` says; it may also call
        `message.reject(error)` or another settlement itself. `async def` handlers need asyncio's client.

        `prefetch` is as `consume` has it; None: as many as run at once.

        Runs until it is interrupted, which Ctrl-C does and SIGTERM does not, or until the broker is closed by
        another thread. Then no new message begins, the handlers that run are waited for, and their settlements
        confirmed. A thread cannot be cancelled.

        Raises:
            TypeError: the handler can never handle a message; none was taken.
            BadValue: `concurrency` or `prefetch` is out of range.
            SystemExit, KeyboardInterrupt, ...: what a handler raised that is no `Exception`; that message is
                settled.
        """
        whole("concurrency", concurrency, 1, limits.MAX_PREFETCH)
        in_hand = prefetch_of(concurrency if prefetch is None else prefetch, concurrency)
        lease_ms = wishes.lease_ms(lease)
        run_threads(self._driver, self.name, handler, concurrency, in_hand, lease_ms, self._convert)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


def runs_of(driver: Driver, calls: Sequence[tuple[Waiter, int, PublishGroup]]) -> list[Any]:
    """Return the confirms of all calls; the error, if one failed, says what is known of each."""
    try:
        for waiter, *_ in calls:
            driver.answered(waiter)
        return [waiter.result() for waiter, *_ in calls]
    except BaseException as error:
        parts = outcomes_of(calls)
        error.confirms = PartialConfirms(parts)  # type: ignore[attr-defined]
        error.failed = Failures(parts)  # type: ignore[attr-defined]
        for waiter, *_ in calls:
            driver.give_up(waiter)
        raise


def _put(driver: Driver, where: Key, some: wishes.Ready) -> Waiter:
    """Put one message into its group; return what its publisher waits for."""
    waiter = Waiter()
    try:
        now = driver.__enter__()
        waiter.owner = driver.machine
        group = driver.group(where, 1, some.cost, now)
        group.add(waiter, *some[:-2])
        if some.names is not wishes.NO_NAMES:
            group.name_last([some.names])
        flush = not driver.is_busy()
    except BaseException as error:
        driver.__exit__(type(error), error, None)
        raise
    driver.leave(flush)
    return waiter
