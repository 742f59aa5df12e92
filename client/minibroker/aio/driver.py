"""The asyncio shell around a session: it connects, feeds bytes in, acts on events, keeps the one timer.

Everything runs in the loop's thread, except for what `attached.py` reads under its own rules.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from minibroker.aio.attached import Attached
from minibroker.aio.calls import Calls
from minibroker.aio.in_process import InProcess, Renewal
from minibroker.aio.leaving import Departure
from minibroker.aio.link import Link
from minibroker.aio.losses import Losses, SettleErrorHook
from minibroker.aio.publishes import Publishes
from minibroker.aio.real_threads import Clock
from minibroker.aio.timer import Timer, now_ms
from minibroker.contract import wire
from minibroker.contract.errors import (
    Closed,
    LeaseLost,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
)
from minibroker.session.events import (
    Answered,
    Delivered,
    Event,
    Leaving,
    Published,
    PublishFailed,
    Settled,
    SettleRefused,
    Welcomed,
)
from minibroker.session.message import Message
from minibroker.session.outbox import Key, PublishGroup
from minibroker.session.session import Session
from minibroker.session.settlements import ENDED, Run, Settlements, SettlePart, named_by

if TYPE_CHECKING:
    from minibroker.aio.consumer import Consumer

logger = logging.getLogger("minibroker")

get_running_loop: Final = asyncio._get_running_loop  # None instead of an error where there is none
FOREIGN: Final = (
    "this connection belongs to another event loop, and nothing was sent: connect in each loop, "
    "or hand the call over with asyncio.run_coroutine_threadsafe(call, loop)"
)
PING: Final = wire.pack_frame({"parts": [{"op": "ping"}]})
GOODBYE: Final = wire.pack_frame({"parts": [{"op": "goodbye"}]})
RETRY_MS: Final = 100  # before a settlement that was refused for now is tried again

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


class Driver:
    """What the connections of one `connect()` share: the session, its waiters, its consumers."""

    def __init__(
        self,
        name: str,
        timeout_ms: int,
        max_run_ms: int,
        on_settle_error: SettleErrorHook | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        # The loop's thread. Asking which loop runs is a system call in Python 3.11, so what runs per message looks
        # at the thread, and at the loop only when no flush is scheduled: the first call of a turn schedules one.
        self.thread = get_ident()
        self.create_future = self.loop.create_future
        self.current_task: Callable[[], Any] = partial(asyncio.current_task, self.loop)
        self.session = Session(name, self, self.ripe)
        self.timeout_ms = timeout_ms
        self.max_run_ms = max_run_ms
        self.consumers: dict[int, Consumer[Any]] = {}
        self.clock = Clock.monotonic  # seconds
        self.last_write = 0.0  # monotonic seconds
        self.scheduled = False  # a flush runs at the end of this turn of the loop
        self.turn_due = False  # something was written that leaves when the loop turns
        self.address = ("", 0)
        self.in_process: InProcess | None = None  # instead of an address
        self.link: Link | None = None
        self.trouble = "it has not answered yet"  # why there is no connection
        self.attached: Attached | Renewal | None = None
        self._closed: str | None = None
        self.received_ms = 0
        self.timer = Timer(self.loop, self._due)
        self._calls = Calls(self.session, self.timer, self.loop, self.schedule)
        self._publishes = Publishes(self.session, self.timer, self.schedule, self.flush)
        losses = Losses(on_settle_error)
        self.lose, self.failed = losses.lose, losses.failed
        self.takes_cancellation = losses.takes_cancellation
        self.is_cancelled, self._say_losses = losses.is_cancelled, losses.say_the_rest
        self._room_waiters: list[asyncio.Future[None]] = []
        self.leaving = Departure(self)
        self.leave, self.drained = self.leaving.all, self.leaving.drained
        self.answers = 0  # that ever came; signs of life are none
        self._next_consumer = 1
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            Welcomed: self._welcomed,
            Published: self._publishes.published,
            PublishFailed: self._publishes.failed,
            Settled: self._settled,
            SettleRefused: self._settle_refused,
            Delivered: self._delivered,
            Answered: self._answered,
            Leaving: self._leaving,
        }
        _drivers.add(self)

    # ---- the connection ----

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or belongs to the parent of this process."""
        return self._closed is not None

    def check_loop(self) -> None:
        """Raise RuntimeError if another event loop than this connection's runs; `Closed` after a fork."""
        if get_running_loop() is not self.loop:
            if self._closed is not None:
                raise Closed(self._closed)  # no loop is the right one any more
            raise RuntimeError(FOREIGN)
        self.thread = get_ident()  # a loop may be run by one thread after another

    def check_open(self) -> None:
        """Raise `Closed` if nothing can be asked any more."""
        if self._closed is not None:
            raise Closed(self._closed)
        self.check_loop()

    def received(self, link: Link, data: bytes) -> None:
        """Take bytes from the current connection."""
        if link is not self.link:
            return
        self.received_ms = now_ms()
        try:
            events = self.session.receive(data)
        except MinibrokerError as error:
            link.fail(error)
            return
        self.answers += len(events)
        self.act(events)
        if self._room_waiters or self.leaving.is_awaited():
            self._wake_waiters()
        if not self.scheduled and self.session.has_work():
            self.schedule()

    def act(self, events: Sequence[Event]) -> None:
        """Act on events, in order."""
        for event in events:
            self._handlers[type(event)](event)

    def disconnected(self, why: str) -> None:
        """Note that the connection ended; what is begun goes on, what is held is gone."""
        self.link = None
        self.trouble = why
        self.act(self.session.disconnected())
        for consumer in list(self.consumers.values()):
            consumer.drop_buffer()

    def _welcomed(self, event: Welcomed) -> None:
        assert self.link is not None
        # A settlement that is unanswered is judged by the answer to its frame, which is sent again.
        lost = [message for message in event.lost if message.state != ENDED]
        self.lose(lost, LeaseLost("the server handed it out again, or it has ended"))
        at_ms = now_ms()
        self.act(self.session.expire(at_ms))
        frames = self.session.resend(lambda group: not group.waiters or group.deadline_ms <= at_ms)
        frames += self.session.retry_returned(now_ms())
        if frames:
            self.link.write(frames)
        for consumer in self.consumers.values():
            consumer.arm()
        if not self.link.welcomed.done():
            self.link.welcomed.set_result(None)
        self.flush()

    def _leaving(self, event: Leaving) -> None:
        logger.info("the server is stopping: %s", event.text)

    def beat(self) -> None:
        """Send a sign of life, and end a connection that gives none."""
        heartbeat_ms = self.session.heartbeat_ms
        self.session.prune()
        self.act(self.session.expire(now_ms()))
        if self.link is not None and self.session.is_open:
            if now_ms() - self.received_ms > 2 * heartbeat_ms:
                self.link.fail(ConnectionResetError("the server gave no sign of life"))
            else:
                self.link.write([PING])
        self.beat_later()

    def beat_later(self) -> None:
        """Let the next sign of life be due after half of the time that the server allows."""
        if self._closed is None:
            heartbeat_ms = self.session.heartbeat_ms
            at_ms = now_ms() + heartbeat_ms // 2
            # A peer that is gone is noticed when two intervals are over, not with the next sign of life.
            silent_ms = self.received_ms + 2 * heartbeat_ms + 1
            self.timer.at(min(at_ms, silent_ms) if self.link is not None else at_ms, self.beat)

    # ---- writing ----

    def schedule(self) -> None:
        """Flush at the end of this turn of the loop."""
        if self.scheduled:
            return
        self.scheduled = True
        self.loop.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self.scheduled = self.turn_due = False
        self.flush()

    def flush(self) -> None:
        """Write what waits, as far as the window has room, straight to the transport."""
        if self._closed is not None:
            self.session.let_go()  # settled after the end: nobody will be told
        frames = self.session.flush(now_ms())
        if frames and self.link is not None:
            self.link.write(frames)
            self.last_write = self.clock()

    def ripe(self, settlements: Settlements) -> Awaitable[None] | None:
        """See to it that settlements leave; return something to wait for if there is no room.

        When many wait, the next hand-over writes them before it takes its message: so the server refills
        the buffer while the handler works.
        """
        if len(settlements.acks) >= settlements.half > 1:
            self.turn_due = True
        if not self.scheduled:
            self.schedule()
        if self.session.window.is_full():
            return self._room()
        return None

    async def _room(self) -> None:
        while self.session.window.is_full():
            waiter = self.create_future()
            self._room_waiters.append(waiter)
            await waiter

    def _wake_waiters(self) -> None:
        if self._room_waiters and not self.session.window.is_full():
            for waiter in self._room_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._room_waiters.clear()
        self.leaving.wake()

    # ---- deadlines ----

    def _due(self, items: Sequence[Any]) -> None:
        for item in items:
            if isinstance(item, PublishGroup):
                self._publishes.due(item, self.trouble)
            elif isinstance(item, asyncio.Future):
                self._calls.due(item, "" if self.session.is_open else f"; {self.trouble}")
            else:
                item()

    # ---- publishing ----

    def open_group(self, key: Key) -> PublishGroup:
        """Return a new group for a queue and time-out; it leaves with the next flush."""
        self.check_open()
        return self._publishes.open_group(key)

    def group_is_full(self, key: Key) -> None:
        """Close the open group for `key`, and write it now: the server starts while others publish."""
        self.session.outbox.close(key)
        self.flush()

    # ---- requests ----

    async def request(
        self,
        op: str,
        fields: Mapping[str, object],
        timeout_ms: int | None,
        columns: bytes = b"",
    ) -> Any:
        """Ask, and return the answer.

        Raises:
            Timeout: no answer within `timeout_ms`.
            CommandError: the server refused.
            ConnectionLost: the connection ended meanwhile, and asking twice might do it twice.
        """
        self.check_open()
        return await self._calls.wait(op, fields, timeout_ms, columns)

    def _answered(self, event: Answered) -> None:
        if not self._calls.answered(event):
            self.session.take_back(event.value)  # its caller, cancelled in this turn, withdraws it

    def give_back(self, messages: Sequence[Message[Any]]) -> None:
        """Release messages that nobody will see."""
        for message in messages:
            message.release_unseen()
        self.schedule()

    # ---- consuming and settling ----

    def add_consumer(self, consumer: Consumer[Any]) -> int:
        """Register a consumer and return its number."""
        number = self._next_consumer
        self._next_consumer += 1
        self.consumers[number] = consumer
        self.session.consumers.add(number)
        self.keep_alive()
        return number

    def keep_alive(self) -> None:
        """Have leases renewed from now on, whatever the loop does."""
        if self.attached is None:
            near = self.in_process
            self.attached = Attached(self) if near is None else Renewal(self, near.broker)
            self.attached.start()

    def stop_soon(self, consumer: Consumer[Any]) -> None:
        """Stop a consumer whose iterator is gone."""
        if self._closed is None:
            task = self.loop.create_task(leave_quietly(consumer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _delivered(self, event: Delivered) -> None:
        self.consumers[event.consumer].deliver(event.delivery)
        self.renew_soon(event.delivery.lease_ms)

    def renew_soon(self, lease_ms: int) -> None:
        """Wake the thread that renews, if what came under a lease of this length cannot wait for it."""
        if self.attached is not None:
            self.attached.delivered(lease_ms)

    def extended(self, message: Message[Any], lease_ms: int) -> None:
        """Note that the application asked for a lease of its own length: it is renewed as that."""
        self.keep_alive()
        assert self.attached is not None
        self.attached.extended(message, lease_ms)

    async def confirmed(
        self, message: Message[Any], settlements: Settlements, extends: bool = False
    ) -> None:
        """Return when the settlement of `message` is safe, or that it `extends`; LeaseLost, Timeout."""
        future = self.create_future()
        waiters = settlements.extend_waiters if extends else settlements.waiters
        waiters.append((message, future))
        settlements.owe()
        slot = self.timer.at(now_ms() + self.timeout_ms, future)
        self.schedule()
        try:
            await future
        finally:
            self.timer.discard(future, slot)

    def _settled(self, event: Settled) -> None:
        part = event.part
        self.lose(event.lost, LeaseLost(f"{part.op}: the lease had ended"))
        self._answer_waiters(part, event.lost, None)

    def _settle_refused(self, event: SettleRefused) -> None:
        if event.error.retryable:
            self.timer.at(now_ms() + (event.error.retry_ms or RETRY_MS), self._retry)
            return
        for part in event.parts:
            if part.op not in ("begin", "extend"):
                self.lose(part.messages, event.error)
            self._answer_waiters(part, (), event.error)

    def _retry(self) -> None:
        if self.link is not None and self.session.is_open:
            frames = self.session.retry_returned(now_ms())
            if frames:
                self.link.write(frames)

    def _answer_waiters(
        self, part: SettlePart, lost: Sequence[Message[Any]], error: MinibrokerError | None
    ) -> None:
        for message, future in part.waiters:
            if future.done():
                continue
            if message in lost:
                future.set_exception(LeaseLost(f"the lease of message {message.id} had ended"))
            elif error is None:
                future.set_result(None)
            else:
                future.set_exception(type(error)(str(error), retry_ms=error.retry_ms))

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal: these messages are lost, if they are still begun."""
        begun = [message for message in self.session.begun_messages() if message.state != ENDED]
        self.lose(named_by(runs, begun), LeaseLost("the lease could not be renewed"))

    # ---- leaving ----

    def close(self, why: str) -> None:
        """Say goodbye, end the connection, and fail what is still waiting."""
        if self._closed is not None:
            return
        if self.session.is_open:
            self.flush()  # what is not confirmed may arrive all the same
        self._closed = why
        link, self.link = self.link, None
        if link is not None:
            if self.session.is_open:
                link.write([GOODBYE])
            link.close()
        if self.attached is not None:
            self.attached.stop()
        while self.session.outbox.groups:
            self._publishes.fail(self.session.outbox.pop(), NotSent(why))
        for sent in self.session.window:
            if isinstance(sent.content, PublishGroup):
                self._publishes.fail(sent.content, OutcomeUnknown(why))
            else:
                for part in sent.content:
                    self._answer_waiters(part, (), OutcomeUnknown(why))
        self._calls.fail_all(Closed(why))
        for consumer in list(self.consumers.values()):
            consumer.end(None)
            consumer.drop_buffer()
        self.session.let_go()
        self.session.is_open = False
        self._say_losses()
        self.timer.stop()

    def forget_after_fork(self) -> None:
        """In a forked child: the socket, the session, its messages and their renewal stay the parent's."""
        self._closed = "this connection belongs to the parent process; call connect() in this one"
        self.session.is_open = False
        self.session.session_id = None
        self.session.outbox.clear()  # nothing is added to what the parent will write
        for message in list(self.session.begun_messages()):
            message.lose()  # else a settlement would succeed here, and nobody be told
        self.session.let_go()
        for consumer in list(self.consumers.values()):
            consumer.end(Closed(self._closed))
            consumer.drop_buffer()
        self.link = self.attached = None


async def leave_quietly(consumer: Consumer[Any]) -> None:
    """Stop `consumer`; nobody is there to be told of trouble."""
    try:
        await consumer.stop()
    except MinibrokerError as error:
        logger.debug("a consumer was stopped without an answer: %s", error)


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
