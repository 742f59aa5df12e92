"""The whole client as a value that is stepped: bytes, times and wishes go in, bytes and effects come out.

A shell has a socket, a clock, and waiters for its callers (objects as futures are). It calls, with the monotonic
time in ms:

    received          with what it read
    dialled, ended    when a connection is there, or is not any more
    due               when the clock has reached `timers.wake_ms`
    ask, open_group   and others: the wishes of its callers
    flush             to get what is to be written now: behind every step, or once for several
    take_effects      to learn what else is to be done: dial, hang up, tell of lost messages

Waiters get their answers inside these calls. What is to be repeated, when, and how often is decided here: logins,
frames without an answer, what was refused for now, consumers, signs of life. Randomness comes in as a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from minibroker.contract import wire
from minibroker.contract.errors import (
    Closed,
    ConnectionLost,
    LeaseLost,
    LoginRefused,
    MessageCancelled,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    Timeout,
)
from minibroker.session import recalled, revoked
from minibroker.session.calls import Call, Calls, Jitter
from minibroker.session.connecting import Connecting, Phase
from minibroker.session.declaring import Declarations
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import (
    Answered,
    Cancelled,
    Delivered,
    Effect,
    Event,
    HangUp,
    Leaving,
    Lost,
    Published,
    PublishFailed,
    Recalled,
    Renew,
    RouteDone,
    Settled,
    SettleRefused,
    StepDone,
    StepFailed,
    Welcomed,
)
from minibroker.session.heartbeat import Heartbeat
from minibroker.session.leaving import Departure
from minibroker.session.message import MessageData
from minibroker.session.outbox import Key, PublishGroup
from minibroker.session.publishes import Publishes
from minibroker.session.session import Session
from minibroker.session.settlements import ENDED, GOES_ON, Run, Settlements, SettlePart, named_by
from minibroker.session.step_calls import StepCalls
from minibroker.session.step_frame import StepFrame
from minibroker.session.subscription import Arming, Subscription
from minibroker.session.timers import Overdue, Timers

GOODBYE: Final = wire.pack_frame({"parts": [{"op": "goodbye"}]})
RETRY_MS: Final = 100  # before a settlement that was refused for now is tried again
SHORT_LEASE_MS: Final = 6_000  # a shorter one may end before whoever renews looks again by himself


class Shell(Protocol):
    """What stands around a machine; it is the `shell` of each delivery as well."""

    make_message: MakeMessage
    is_over: type[Exception]  # what `set_result` of a waiter raises when nobody waits any more

    def schedule(self) -> None:
        """See to it that `flush` is called soon."""

    def ripe(self, settlements: Settlements) -> Any:
        """See to it that settlements leave; return what the shell's messages wait for, if there is no room."""


class Machine:
    """What the connections of one `connect()` share: the session, its waiters, its consumers, its timers."""

    def __init__(
        self, name: str, timeout_ms: int, connect_ms: int, jitter: Jitter, shell: Shell
    ) -> None:
        self.session = Session(name, shell, shell.ripe, shell.make_message)
        self.timers = Timers()
        self.calls = Calls(self.session, self.timers, jitter, shell.schedule)
        self.publishes = Publishes(self.session, self.timers, jitter, shell.schedule, shell.is_over)
        self.steps = StepCalls(self.session, self.timers, jitter, shell.schedule, self.lose)
        self.declarations = Declarations(self.session, self.calls, self._tell)
        self.heartbeat = Heartbeat(self)
        self.leaving = Departure(self.session, self.timers, timeout_ms)
        self.connecting = Connecting(self.timers, jitter, connect_ms, self._tell, self._ended)
        self.consumers: dict[int, Subscription] = {}
        self.effects: list[Effect] = []
        self.frames: list[bytes] = []  # written before anything else
        self.closed: str | None = None  # why, once it is
        self.trouble = "it has not answered yet"  # why there is no connection
        self.received_ms = 0
        self.schedule = shell.schedule
        self._opening: list[Any] = []  # who waits for the first welcome
        self._room_waiters: list[Any] = []
        self._next_consumer = 1
        self._handlers: Mapping[type, Callable[[Any, int], None]] = {
            Welcomed: self._welcomed,
            Published: self._published,
            PublishFailed: self.publishes.failed,
            RouteDone: self.publishes.routed,
            Settled: self._settled,
            SettleRefused: self._settle_refused,
            StepDone: self.steps.done,
            StepFailed: self.steps.failed,
            Delivered: self._delivered,
            Answered: self.calls.answered,
            Cancelled: self._cancelled,
            Recalled: self._recalled,
            Leaving: self._leaving,
        }

    # ---- steps ----

    def received(self, data: bytes, now_ms: int) -> None:
        """Take bytes from the connection."""
        self.received_ms = now_ms
        try:
            events = self.session.receive(data)
        except MinibrokerError as error:
            self.fail(error, now_ms)
            return
        self.leaving.answers += len(events)
        handlers = self._handlers
        for event in events:
            handlers[type(event)](event, now_ms)
        if self._room_waiters or self.leaving.is_awaited():
            self._wake_waiters()

    def due(self, now_ms: int) -> None:
        """Do what is due; to be called when the clock has reached `timers.wake_ms`."""
        for item in self.timers.pop_due(now_ms):
            if isinstance(item, PublishGroup):
                self.publishes.due(item, self.trouble)
            elif isinstance(item, Call):
                self.calls.due(item, "" if self.session.is_open else f"; {self.trouble}")
            elif isinstance(item, StepFrame):
                self.steps.due(item, self.trouble)
            else:
                item(now_ms)

    def flush(self, now_ms: int) -> list[bytes]:
        """Return the frames that are to be written now, in order."""
        if self.closed is not None:
            self.session.let_go()  # settled after the end: nobody will be told
        frames = self.session.flush(now_ms)
        if self.leaving.retired and not self.session.owed.is_any():
            frames += self._cancel_retired(now_ms)
        if self.frames:
            frames = self.frames + frames
            self.frames = []
        return frames

    def _cancel_retired(self, now_ms: int) -> list[bytes]:
        """Return the cancels of consumers that have gone: what they settled is written, and not overtaken."""
        for number in self.leaving.retired:
            self.session.request("cancel", {"consumer": number}, None)
        self.leaving.retired.clear()
        return self.session.flush(now_ms)

    def take_effects(self) -> list[Effect]:
        """Return what the shell is to do, in order."""
        effects, self.effects = self.effects, []
        return effects

    def _tell(self, effect: Effect) -> None:
        self.effects.append(effect)

    def act(self, events: Sequence[Event], now_ms: int) -> None:
        """Do what is to be done about what happened."""
        for event in events:
            self._handlers[type(event)](event, now_ms)

    # ---- the connection ----

    def connect(self, now_ms: int, waiter: Any = None) -> None:
        """Be connected from now on; `waiter` gets None at the first welcome, or what the server refused it for."""
        if waiter is not None:
            self._opening.append(waiter)
        self.connecting.start(now_ms)

    def await_open(self, waiter: Any, by_ms: int) -> None:
        """Let `waiter` have None when the session is open, a Timeout at `by_ms`, or what the server refuses."""
        if self.session.is_open:
            waiter.set_result(None)
            return
        self._opening.append(waiter)
        self.timers.at(by_ms, Overdue(waiter, lambda: Timeout(self.trouble)))

    def dialled(self, now_ms: int) -> bool:
        """There is a connection: log in. False: nobody wants it any more, close it."""
        if not self.connecting.dialled():
            return False
        self.received_ms = now_ms
        self.frames = [self.session.login()]
        return True

    def ended(self, error: Exception, now_ms: int) -> None:
        """The connection ended, or could not be made, because of `error`."""
        self.connecting.ended(error, now_ms)

    def fail(self, error: Exception, now_ms: int) -> None:
        """End the connection because of `error`."""
        is_new = self.connecting.phase is Phase.LOGGING_IN and self.session.session_id is None
        self._tell(HangUp(GOODBYE if is_new else b""))
        self.ended(error, now_ms)

    def refresh(self, now_ms: int) -> None:
        """Replace the connection, which ended while nobody used it: dial at once, and say nothing."""
        self._tell(HangUp())
        self._ended(ConnectionResetError("the connection ended while it was not used"), now_ms)
        self.connecting.restart(now_ms)

    def _ended(self, error: Exception, now_ms: int) -> bool:
        """Note that there is no connection; what is begun goes on, what is held is gone."""
        is_refused = isinstance(error, LoginRefused) and not (
            error.ends_session and self._forget_session(now_ms)
        )
        if is_refused and self._opening:
            for waiter in self._opening:
                if not waiter.done():
                    waiter.set_exception(error)
            return False
        self.trouble = str(error) or type(error).__name__
        self.frames = []
        self.leaving.retired.clear()  # the server forgets consumers with their connection
        self.act(self.session.disconnected(), now_ms)
        for consumer in list(self.consumers.values()):
            consumer.drop_buffer()
        self.leaving.wake()
        return self.closed is None

    def _forget_session(self, now_ms: int) -> bool:
        """Drop a session that the server refuses to resume; False if there was none."""
        session = self.session
        if session.session_id is None:
            return False
        begun = [message for message in session.begun_messages() if message.state != ENDED]
        self.act(session.forget(), now_ms)
        self.lose(begun, LeaseLost("the server does not know this session any more"))
        return True

    def _welcomed(self, event: Welcomed, now_ms: int) -> None:
        for lost, error in revoked.told(event):
            self.lose(lost, error)
        self.act(self.session.expire(now_ms), now_ms)
        self.frames += [self.session.accept] if self.session.accept else []
        self.frames += self.declarations.welcomed()
        self.frames += self.session.resend(lambda content: self._gives_up(content, now_ms))
        self.frames += self.session.retry_returned(now_ms)
        self.connecting.welcomed(now_ms)
        self.heartbeat.begin(now_ms)
        for consumer in self.consumers.values():
            self._arm(consumer)
        opening, self._opening = self._opening, []
        for waiter in opening:
            if not waiter.done():
                waiter.set_result(None)
        self.schedule()

    def _gives_up(self, content: PublishGroup | StepFrame, now_ms: int) -> bool:
        if isinstance(content, StepFrame):
            return self.steps.gives_up(content, now_ms)
        return self.publishes.gives_up(content, now_ms)

    def _leaving(self, event: Leaving, now_ms: int) -> None:
        self._tell(event)

    # ---- wishes ----

    def check_open(self) -> None:
        """Raise `Closed` if nothing can be asked any more."""
        if self.closed is not None:
            raise Closed(self.closed)

    def open_group(self, key: Key, now_ms: int) -> PublishGroup:
        """Return a new group for a queue and time-out; it leaves with the next flush."""
        return self.publishes.open_group(key, now_ms)

    def _published(self, event: Published, now_ms: int) -> None:
        self.publishes.published(event)

    def await_settled(
        self,
        waiter: Any,
        message: MessageData[Any],
        settlements: Settlements,
        by_ms: int,
        extends: bool,
    ) -> Callable[[], None]:
        """Let `waiter` have None when what was noted of `message` is safe; LeaseLost, Timeout at `by_ms`.

        Returns what is to be called when nobody waits any more.
        """
        waiters = settlements.extend_waiters if extends else settlements.waiters
        waiters.append((message, waiter))
        settlements.owe()
        overdue = Overdue(waiter, self._late_settlement)
        slot = self.timers.at(by_ms, overdue)
        self.schedule()
        return lambda: self.timers.discard(overdue, slot)

    def _late_settlement(self) -> Timeout:
        trouble = "" if self.session.is_open else f"; {self.trouble}"
        return Timeout(f"the settlement was not answered in time{trouble}")

    def give_back(self, messages: Sequence[MessageData[Any]]) -> None:
        """Release messages that nobody will see."""
        for message in messages:
            message.release_unseen()
        self.schedule()

    def lose(self, messages: Sequence[MessageData[Any]], error: MinibrokerError) -> None:
        """Note that these messages are not this client's any more."""
        lost = [message for message in messages if not message.lost]
        for message in lost:
            message.lose(cancelled=isinstance(error, MessageCancelled))
        if lost:
            self._tell(Lost(lost, error))

    def _cancelled(self, event: Cancelled, now_ms: int) -> None:
        self.lose(revoked.seen(event, self.consumers.values()), revoked.error_of(event))

    def _recalled(self, event: Recalled, now_ms: int) -> None:
        if recalled.give_back(event, self.consumers.values()):
            self.schedule()

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal: these messages are lost, if they are still begun."""
        begun = [message for message in self.session.begun_messages() if message.state != ENDED]
        self.lose(named_by(runs, begun), LeaseLost("the lease could not be renewed"))

    # ---- consumers ----

    def subscribe(self, subscription: Subscription) -> None:
        """Know a consumer: it gets a number, and what comes for it."""
        subscription.number = self._next_consumer
        self._next_consumer += 1
        self.consumers[subscription.number] = subscription
        self.session.consumers.add(subscription.number)
        subscription.owed = self.session.owed if subscription.takes_begun else None
        subscription.set_half(self.consumers.values())

    def _arm(self, consumer: Subscription) -> None:
        """Ask again, on a new connection; the server forgets consumers with the connection.

        Not while it opens: the session asks again what has no answer, and its caller may still withdraw that one.
        """
        if consumer.is_agreed and not consumer.is_asked_again:
            arming = Arming(consumer, lambda: self.received_ms)
            consumer.arming = self.calls.ask(arming, "consume", consumer.fields(), None)

    def forget(self, consumer: Subscription) -> None:
        """Know a consumer no more; nothing that comes for it is taken."""
        if consumer.is_asked_again:
            self.calls.gave_up(consumer.arming)  # it must not follow the cancel
        self.consumers.pop(consumer.number, None)
        self.session.consumers.discard(consumer.number)
        consumer.set_half(self.consumers.values())
        consumer.end(consumer.error)
        consumer.give_back_handed()
        consumer.drop_buffer()

    def retire(self, consumer: Subscription) -> None:
        """Deliver no more, and give back what has not begun, without waiting for the answer."""
        self.forget(consumer)
        if self.session.is_open:
            self.leaving.retired.append(consumer.number)
            self.schedule()

    def _delivered(self, event: Delivered, now_ms: int) -> None:
        delivery, consumer = event.delivery, self.consumers[event.consumer]
        if consumer.deliver(delivery, now_ms):
            consumer.set_half(self.consumers.values())
            self._arm(consumer)
        if delivery.lease_ms < SHORT_LEASE_MS:
            self._tell(Renew(delivery.lease_ms))

    # ---- what became of settlements ----

    def _settled(self, event: Settled, now_ms: int) -> None:
        part = event.part
        self.lose(event.lost, LeaseLost(f"{part.op}: the lease had ended"))
        self._answer_waiters(part, event.lost, None)

    def _settle_refused(self, event: SettleRefused, now_ms: int) -> None:
        if event.error.retryable:
            self.timers.at(now_ms + (event.error.retry_ms or RETRY_MS), self._retry)
            return
        for part in event.parts:
            if part.op not in GOES_ON:
                self.lose(part.messages, event.error)
            self._answer_waiters(part, (), event.error)

    def _retry(self, now_ms: int) -> None:
        if self.session.is_open:
            self.frames += self.session.retry_returned(now_ms)

    def _answer_waiters(
        self, part: SettlePart, lost: Sequence[MessageData[Any]], error: MinibrokerError | None
    ) -> None:
        for message, waiter in part.waiters:
            if waiter.done():
                continue
            if message in lost:
                waiter.set_exception(message.lost_error())
            elif error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(type(error)(str(error), retry_ms=error.retry_ms))

    def await_room(self, waiter: Any) -> None:
        """Let `waiter` have None when the window has room for what is settled."""
        self._room_waiters.append(waiter)

    def _wake_waiters(self) -> None:
        if self._room_waiters and not self.session.window.is_full():
            waiters, self._room_waiters = self._room_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self.leaving.wake()

    # ---- the end ----

    def close(self, why: str, now_ms: int) -> None:
        """Say goodbye, end the connection, and fail what is still waiting."""
        if self.closed is not None:
            return
        last = b""
        if self.session.is_open:
            self.calls.withdraw_all()
            recalled.give_back_handed(self.consumers.values())
            # What is not confirmed may arrive all the same.
            last = b"".join(self.flush(now_ms)) + GOODBYE
        elif self.connecting.phase is Phase.LOGGING_IN and self.session.session_id is None:
            last = GOODBYE  # the session that it may have opened is nobody's
        self.closed = why
        self.connecting.stop()
        self._tell(HangUp(last))
        while self.session.outbox.groups:
            self.publishes.fail(self.session.outbox.pop(), NotSent(why))
        for sent in self.session.window:
            if isinstance(sent.content, PublishGroup):
                self.publishes.fail(sent.content, OutcomeUnknown(why))
            elif not isinstance(sent.content, StepFrame):
                for part in sent.content:
                    self._answer_waiters(part, (), OutcomeUnknown(why))
        self.steps.close(why)
        self.calls.fail_all(Closed(why))
        self._end_all(None)
        for waiter in self._room_waiters:
            if not waiter.done():
                waiter.set_result(None)
        for waiter in self._opening:
            if not waiter.done():
                waiter.set_exception(ConnectionLost(why))
        self.leaving.close()
        for item in self.timers.take_all():  # whoever waits has a deadline
            if isinstance(item, Overdue):
                item.end(OutcomeUnknown(why))

    def abandon(self, why: str) -> None:
        """Drop everything without a word to the server: it belongs to another process now.

        Nothing is added to what that one will write, and a settlement made here is refused, or it would succeed
        and nobody be told.
        """
        self.closed = why
        self.connecting.stop()
        self.session.session_id = None
        self.session.outbox.clear()
        for message in list(self.session.begun_messages()):
            message.lose()
        self._end_all(Closed(why))

    def _end_all(self, error: MinibrokerError | None) -> None:
        self.session.let_go()
        for consumer in list(self.consumers.values()):
            consumer.end(error)
            consumer.drop_buffer()
        self.session.is_open = False
        self.frames = []
