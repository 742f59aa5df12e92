"""A queue as a blocking application sees it: publish, consume, receive, and what is done by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from minibroker.contract import limits
from minibroker.contract.confirms import Confirm, ConfirmRun, Confirms, MessageId
from minibroker.contract.errors import NotSent
from minibroker.contract.outcomes import Failures, PartialConfirms
from minibroker.contract.settings import Settings
from minibroker.session import explanation, rescheduling, wishes
from minibroker.session.cancel_wish import cancel_wish
from minibroker.session.declaring import NOTHING, Declaration, Differences
from minibroker.session.explanation import Explanation
from minibroker.session.message import Delivery
from minibroker.session.outbox import GROUP_MESSAGES, PublishGroup
from minibroker.session.pacing import Prefetch, prefetch_of
from minibroker.session.peek import Peeks
from minibroker.session.publishes import none_of, outcomes_of
from minibroker.session.settlements import BEGUN
from minibroker.session.spans import Span, whole
from minibroker.session.typed import Convert
from minibroker.sync.consumer import Consumption
from minibroker.sync.driver import Driver
from minibroker.sync.joining import join
from minibroker.sync.message import Message
from minibroker.sync.running import Handler, run_threads
from minibroker.sync.waiter import Waiter

Body = TypeVar("Body")


class Queue(Generic[Body]):
    """One queue of a broker; made by `Broker.queue`. Publishing and consuming create it.

    Times are seconds (or timedelta). Every call has one deadline: `timeout`, or that of the connection. All that
    it waits for counts, also a server that is away; 0 has passed already, so nothing is sent. Publishes then raise
    NotSent or OutcomeUnknown, all else Timeout. The dead-letter queue of `emails` is a queue, too:
    `broker.queue("emails.dlq")` can be peeked, consumed, redriven.
    """

    def __init__(self, driver: Driver, name: str, declaration: Declaration | None = None) -> None:
        self.name = wishes.check_name(name)
        self._driver = driver
        self._convert: Convert | None = None
        self._declaration = declaration

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
            max_attempts: for this message, instead of the setting of the queue.
            lease: for this message, instead of that of the consumer and of the queue.
            timeout: deadline of this call.

        Raises:
            TypeError, BadValue, TooLarge: it cannot be sent; nothing was. The text says what to do.
            NotSent: the deadline passed before it was written: it is not stored.
            OutcomeUnknown: it was written, but no confirm came in time.
            Busy, DiskFull: the server had no room until the deadline; nothing was stored.
            UnknownQueue, ...: the server refused it; nothing was stored.
        """
        driver = self._driver
        some = wishes.ready(body, headers, key, delay, driver.session.max_message_bytes)
        where = wishes.place(self.name, timeout, driver.timeout_ms, max_attempts, lease)
        waiter = Waiter()
        try:
            now = driver.__enter__()
            waiter.owner = driver.machine
            group = driver.group(where, 1, some.cost, now)
            group.add(waiter, *some[:-1])
            flush = not driver.is_busy()
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush)
        confirm: Confirm = driver.wait(waiter)
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
        timeout: Span | None = None,
    ) -> Confirms:
        """Store many messages with the same headers, key, delay and terms; return their confirms in order.

        They leave in frames of at most 500, each stored as a whole or not at all. If one fails, its error is
        raised after all were answered; it says what became of each body: `error.confirms[index]` is None for those
        that are not stored, or of which nothing is known, and `error.failed[index]` says why. So do
        other errors that end the call, like a KeyboardInterrupt. Raises what `publish` raises.
        """
        driver = self._driver
        many = wishes.ready_many(bodies, headers, key, delay, driver.session.max_message_bytes)
        where = wishes.place(self.name, timeout, driver.timeout_ms, max_attempts, lease)
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
                if group.count >= GROUP_MESSAGES or group.cost >= most:
                    driver.session.outbox.close(where)
        return Confirms(_runs(driver, calls))

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
        now = driver.clock()
        delivery.convert = self._convert
        for message in delivery.messages:
            message.begun_at = now
            message.state = BEGUN
        if driver.attached is not None:
            driver.attached.delivered(delivery.lease_ms)
        return list(delivery.messages)

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

    # ---- by hand ----

    def peek(
        self,
        count: int = 100,
        skip: int = 0,
        *,
        ids: Iterable[MessageId] | None = None,
        state: str = "",
        after: bytes = b"",
        order: str = "",
        timeout: Span | None = None,
    ) -> Peeks:
        """Return messages as they lie in the queue, in every state or in one; nothing is changed.

        A long answer is cut at about 1 MiB: while its `next` is not empty, ask again with that as `after`. `skip`
        is at most 10,000. `ids`: only these; those that are not in the queue are missing in the answer.
        `order="due"`: the delayed ones, by when they are due.
        """
        wish = wishes.peek(self.name, count, skip, ids, state, after, order)
        if wish is None:
            return Peeks()
        peeked: Peeks = self._ask(timeout, *wish)
        return peeked

    def explain(self, id: MessageId, *, timeout: Span | None = None) -> Explanation:
        """Return why a message is not running, since when, and what would let it go on.

        It is looked for here, in the dead-letter queue, then everywhere; `str()` of the answer is a sentence.
        """
        value = self._ask(timeout, *explanation.explain(self.name, id))
        return explanation.read(id, value)

    def reschedule(
        self,
        id: MessageId,
        *,
        delay: Span | None = None,
        at: datetime | None = None,
        timeout: Span | None = None,
    ) -> None:
        """Let a message that waits, ready or delayed, be ready after `delay` from now, or at `at`; 0: at once.

        `peek(order="due")` lists what is delayed. The attempts stay as they are, and a start finds the new time.

        Raises:
            NotWaiting: a worker has it, or it is not there; nothing was changed.
            TypeError: neither or both are given, or `at` has no time zone.
        """
        value = self._ask(timeout, *rescheduling.reschedule(self.name, id, delay, at))
        rescheduling.check(self.name, id, value)

    def cancel(
        self,
        ids: Iterable[MessageId] | None = None,
        *,
        key: str | None = None,
        state: str = "",
        client: str = "",
        timeout: Span | None = None,
    ) -> int:
        """Cancel messages, whether they wait or are worked on; return how many. They end, and come to nobody.

        Those with these `ids`; or all that have this `key`, are in this `state`, are with a `client` of this name,
        as far as that is given. A worker that has one is told, and stops (docs/guide/cancel.md). ConnectionLost if
        it is not known how many.
        """
        wish = cancel_wish(self.name, ids, key, state, client)
        if wish is None:
            return 0
        value = self._ask(timeout, *wish)
        return int(value["cancelled"])

    def redrive(
        self,
        ids: Iterable[MessageId] | None = None,
        count: int = 0,
        *,
        timeout: Span | None = None,
    ) -> int:
        """Send dead messages of this DLQ (`broker.queue("NAME.dlq")`) back to their origin; return how many.

        Those with these `ids`, else the `count` oldest (0: all). ConnectionLost if it is not known how many.
        """
        value = self._ask(timeout, *wishes.redrive(self.name, ids, count))
        return int(value["redriven"])

    def purge(self, ids: Iterable[MessageId] | None = None, *, timeout: Span | None = None) -> int:
        """End every message of the queue, begun ones too; return how many. With `ids`: those of them that wait."""
        wish = wishes.purge(self.name, ids)
        if wish is None:
            return 0
        value = self._ask(timeout, *wish)
        return int(value["purged"])

    def move(
        self,
        target: str,
        ids: Iterable[MessageId] | None = None,
        count: int = 0,
        *,
        timeout: Span | None = None,
    ) -> int:
        """Move messages that wait to the queue `target`; return how many.

        Those with these `ids`, else the `count` oldest (0: all). ConnectionLost if it is not known how many.
        """
        wish = wishes.move(self.name, target, ids, count)
        if wish is None:
            return 0
        value = self._ask(timeout, *wish)
        return int(value["moved"])

    def delete(self, *, force: bool = False, timeout: Span | None = None) -> int:
        """Delete the queue and its DLQ, with their settings; return how many messages ended.

        Raises:
            QueueInUse: it has consumers, or (without `force`) messages; nothing was deleted.
            UnknownQueue: there is none.
        """
        fields = {"queue": self.name, "force": int(bool(force))}
        value = self._ask(timeout, "queue_delete", fields)
        return int(value["purged"])

    def set(self, **settings: int | str) -> Settings:
        """Create the queue or change its settings, those that are named; return all of them.

            queue.set(max_attempts=3, retry_delay_ms=100)

        Times are in milliseconds here; the deadline is that of the connection. The settings, explained in
        protocol.md, section 7: durability, lease_ms, max_attempts, retry_delay_ms, retry_factor_percent,
        retry_cap_ms, retry_jitter_percent, max_messages.

        Raises:
            BadValue: an unknown setting, or a value outside its range; nothing was changed.
        """
        value = self._ask(None, *wishes.change(self.name, settings))
        return dict(value["settings"])

    @property
    def differs(self) -> Differences:
        """Which declared settings the queue has otherwise: {name: (declared, has)}, as the server said last.

        Empty while it has not answered; `declared` asks it.
        """
        return NOTHING if self._declaration is None else self._declaration.differs

    def declared(self, *, timeout: Span | None = None) -> Settings:
        """Return all settings of the queue, which is made if it is not there.

        Raises:
            SettingsDiffer: it was there, with others than `Broker.queue` was given; `error.differs` has both.
        """
        declaration = self._declaration or Declaration(self.name, lambda effect: None)
        return declaration.agreed(self._ask(timeout, *declaration.wish()))

    def settings(self, *, timeout: Span | None = None) -> Settings:
        """Return the settings of the queue; UnknownQueue if there is none."""
        value = self._ask(timeout, "queue_show", {"queue": self.name})
        return dict(value["settings"])

    def stats(self, *, timeout: Span | None = None) -> dict[str, Any]:
        """Return the counters of the queue: {"queues": {name: counters}}; UnknownQueue if there is none."""
        value: dict[str, Any] = self._ask(timeout, "stats", {"queue": self.name})
        return value

    def join(self, *, timeout: Span | None = None, delayed: bool = False) -> None:
        """Return when all work of the queue is done: no message of it is ready, held or begun.

        It looks at the counters, more rarely while nothing changes; what is published meanwhile counts.

        Args:
            timeout: how long to wait, in seconds; None: for as long as it takes, while the server answers.
            delayed: wait for delayed messages too, those that wait for a retry among them.

        Raises:
            Timeout: it is not done by then; the text says what is left.
        """
        join(self.name, lambda within_s: self.stats(timeout=within_s), timeout, delayed)

    def _ask(
        self, timeout: Span | None, op: str, fields: Mapping[str, object], columns: bytes = b""
    ) -> Any:
        within_ms = wishes.timeout_ms(timeout, self._driver.timeout_ms)
        return self._driver.request(op, fields, within_ms, columns)

    def __repr__(self) -> str:
        return f"<Queue {self.name}>"


def _runs(driver: Driver, calls: Sequence[tuple[Waiter, int, PublishGroup]]) -> list[ConfirmRun]:
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
