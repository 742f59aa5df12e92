"""The asyncio shell around a machine: sockets, futures and the loop; what is said, and when, is the machine's.

Everything runs in the loop's thread, except for what `shell/attached.py` reads under its own rules.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from threading import get_ident
from typing import Any, Final

from minibroker.aio.dialling import Dialling
from minibroker.aio.in_loop import NO_LOOP, InLoop, get_running_loop
from minibroker.aio.link import Link
from minibroker.aio.losses import Losses
from minibroker.aio.message import Message
from minibroker.contract.errors import MinibrokerError, Timeout
from minibroker.contract.settings import Settings
from minibroker.session.address import Memory
from minibroker.session.arguments import Options
from minibroker.session.calls import deadline
from minibroker.session.declaring import Declaration, Declarations
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import (
    Again,
    Away,
    Dial,
    Differs,
    HangUp,
    Leaving,
    Lost,
    MadeAnew,
    NotDeclared,
    Opened,
    Renew,
)
from minibroker.session.machine import Machine
from minibroker.session.message import MessageData
from minibroker.session.outbox import Key, PublishGroup
from minibroker.session.settlements import Run, Settlements
from minibroker.session.subscription import Subscription
from minibroker.session.timers import NEVER_MS
from minibroker.shell.attached import Attached
from minibroker.shell.credentials import token_of, trust_of
from minibroker.shell.in_process import InProcess, Renewal
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Clock
from minibroker.shell.telling import Telling
from minibroker.shell.tracing import telemetry_for

logger = logging.getLogger("minibroker")

FOREIGN: Final = (
    "this connection belongs to another event loop, and nothing was sent: connect in each loop, "
    "or hand the call over with asyncio.run_coroutine_threadsafe(call, loop)"
)
FORKED: Final = "this connection belongs to the parent process; call connect() in this one"

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


class Driver(InLoop):
    """What runs one machine in one loop.

    It may be made where none runs. A lazy one belongs to the loop of the first call that waits, any other one to
    the loop that it was connected in.
    """

    make_message: MakeMessage = Message
    is_over: type[Exception] = asyncio.InvalidStateError
    telemetry: Any = None

    def __init__(self, options: Options) -> None:
        self.options = options
        if (telemetry := telemetry_for(options)) is not None:
            self.telemetry = telemetry
        near = options.address
        self.in_process = InProcess(near.name) if isinstance(near, Memory) else None
        self.places = () if isinstance(near, Memory) else near.places
        self.address = self.places[0] if self.places else ("", 0)  # that was dialled last
        self.trust = trust_of(options.encryption)
        self.timeout_ms = options.timeout_ms
        self.max_run_ms = options.max_run_ms
        self.clock = Clock.monotonic  # seconds
        self._begin(None)
        self._telling = telling = Telling(options.where, options.on_settle_error, self._later)
        self._losses = losses = Losses(telling)
        self.failed, self.takes_cancellation = telling.failed, losses.takes_cancellation
        self.not_kept = telling.not_kept
        self.is_cancelled = losses.is_cancelled
        self._tasks: set[asyncio.Task[None]] = set()
        self._effects: Mapping[type, Callable[[Any], None]] = {
            Dial: self._dial,
            HangUp: self._hang_up,
            Opened: telling.opened,
            Away: telling.away,
            Again: telling.again,
            Lost: self._lost,
            Renew: lambda effect: self.renew_soon(effect.lease_ms),
            Leaving: telling.leaving,
            Differs: telling.differs,
            NotDeclared: telling.not_declared,
            MadeAnew: telling.made_anew,
        }
        _drivers.add(self)

    def _begin(self, declared: Declarations | None) -> None:
        """Have a machine, and nothing of an earlier one but what was declared of queues; belong to no loop."""
        options = self.options
        self.unbind()
        self.machine = Machine(
            options.name, options.timeout_ms, options.connect_ms, random.uniform, self
        )
        self.machine.connecting.among(self.places)
        self.machine.heartbeat.is_hurried = len(self.places) > 1
        self.machine.session.version = options.version
        if declared is not None:
            self.machine.declarations.adopt(declared)
        self.session, self.consumers = self.machine.session, self.machine.consumers
        self.leaving = self.machine.leaving
        self.last_write = 0.0  # monotonic seconds
        self.scheduled = False  # a flush runs at the end of this turn of the loop
        self.turn_due = False  # something was written that leaves when the loop turns
        self.link: Link | None = None
        self.attached: Attached | Renewal | None = None
        self.runs: dict[Subscription, Collection[asyncio.Task[Any]]] = {}  # with their workers
        self._dialling = Dialling(
            self.trust,
            self.received,
            self._dialled,
            self._ended,
        )
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ms = NEVER_MS

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self.loop.call_later(seconds, function)

    # ---- the loop ----

    def open_here(self) -> None:
        """Be open, lazily, in the loop that runs; also if it was closed, or its loop is over.

        Raises:
            RuntimeError: it is open in another loop.
        """
        if self.machine.closed is not None:
            self._begin(self.machine.declarations)
        self.check_loop()

    def _moves(self) -> bool:
        """Begin in the loop that runs, if that is for a lazy one to do; return whether it did."""
        if not self.options.lazy or (self.is_bound and not self.loop.is_closed()):
            return False
        if self.is_bound:  # a loop that is over has taken its sockets with it
            if self.attached is not None:
                self.attached.stop()
            self.machine.abandon(FOREIGN)
            self._begin(self.machine.declarations)
        self.bind()
        self.connect(None)
        return True

    # ---- the connection ----

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or belongs to the parent of this process."""
        return self.machine.closed is not None

    def check_loop(self) -> None:
        """Raise RuntimeError if another event loop than this connection's runs; `Closed` after a fork."""
        if get_running_loop() is not self.loop:
            self.machine.check_open()  # no loop is the right one any more
            if self._moves():
                return
            raise RuntimeError(FOREIGN)
        self.thread = get_ident()  # a loop may be run by one thread after another

    def check_open(self) -> None:
        """Raise `Closed` if nothing can be asked any more."""
        self.machine.check_open()
        self.check_loop()

    def connect(self, waiter: asyncio.Future[None] | None) -> None:
        """Be connected from now on; the waiter hears of the first welcome."""
        self.machine.connect(now_ms(), waiter)
        self._after()

    def received(self, link: Link, data: bytes) -> None:
        """Take bytes from the current connection."""
        if link is not self.link:
            return
        machine = self.machine
        machine.received(data, now_ms())
        if machine.frames:
            self.flush()
        else:
            self._after()
            if not self.scheduled and self.session.has_work():
                self.schedule()

    def _dialled(self, link: Link) -> None:
        if self.machine.dialled(now_ms()):
            self.link = link
            link.on_end = self._link_ended
            self.flush()
        else:
            link.close()

    def _link_ended(self, link: Link, error: Exception) -> None:
        if link is self.link:  # an older one may be late to say so
            self.link = None
            self._ended(error)

    def _ended(self, error: Exception) -> None:
        self.machine.ended(error, now_ms())
        self._after()

    # ---- what the machine asks for ----

    def _after(self) -> None:
        """Do what the last step asks for."""
        machine = self.machine
        while machine.effects:
            for effect in machine.take_effects():
                self._effects[type(effect)](effect)
        if machine.timers.wake_ms < self._armed_ms:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ms = self.machine.timers.wake_ms
        if self._armed_ms < NEVER_MS and not self.is_closed:
            delay_s = max(0, self._armed_ms - now_ms()) / 1000
            self._timer = self.loop.call_later(delay_s, self._due)

    def _due(self) -> None:
        # Loops can fire a little early: the armed time counts then.
        at_ms, self._armed_ms = max(self._armed_ms, now_ms()), NEVER_MS
        self._timer = None
        try:
            self.machine.due(at_ms)
        finally:
            self.flush()

    def _dial(self, effect: Dial) -> None:
        self.address = effect.place or self.address
        try:
            self.session.token = token_of(self.options)
        except OSError as error:
            self.loop.call_soon(self._ended, error)
        else:
            self._dialling.start(self.in_process or self.address)

    def _hang_up(self, effect: HangUp) -> None:
        self._dialling.stop()
        link, self.link = self.link, None
        if link is not None:
            if effect.last:
                link.write([effect.last])
                link.close()
            else:
                link.abort()

    def _lost(self, effect: Lost) -> None:
        self._losses.lost(effect.messages, effect.error)

    def lose(self, messages: Sequence[MessageData[Any]], error: MinibrokerError) -> None:
        """Note that these messages are not this client's any more."""
        self.machine.lose(messages, error)
        self._after()

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal."""
        self.machine.lost_runs(runs)
        self._after()

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
        machine = self.machine
        frames = machine.flush(now_ms())
        if frames and self.link is not None:
            self.link.write(frames)
            self.last_write = self.clock()
        if machine.effects or machine.timers.wake_ms < self._armed_ms:
            self._after()

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
            self.machine.await_room(waiter)
            await waiter

    # ---- wishes ----

    def declare(
        self, queue: str, settings: Settings, *, overwrite: bool, exclusive: bool = False
    ) -> Declaration:
        """Have a queue with these settings; Closed, RuntimeError, BadValue. Opens no connection."""
        if self.is_bound:
            self.check_open()
        return self.machine.declarations.declare(
            queue, settings, overwrite=overwrite, exclusive=exclusive
        )

    def open_group(self, key: Key) -> PublishGroup:
        """Return a new group for a queue and time-out; it leaves with the next flush."""
        self.check_open()
        return self.machine.open_group(key, now_ms())

    def group_is_full(self, key: Key) -> None:
        """Close the open group for `key`, and write it now: the server starts while others publish."""
        self.session.outbox.close(key)
        self.flush()

    async def request(
        self,
        op: str,
        fields: Mapping[str, object],
        timeout_ms: int | None,
        columns: bytes = b"",
    ) -> Any:
        """Ask, and return the answer.

        Raises:
            Timeout: no answer within `timeout_ms`, or nothing was asked, since that is 0.
            CommandError: the server refused.
            ConnectionLost: the connection ended meanwhile, and asking twice might do it twice.
        """
        self.check_open()
        waiter = self.create_future()
        by_ms = deadline(op, now_ms(), timeout_ms)
        call = self.machine.calls.ask(waiter, op, fields, by_ms, columns)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.machine.calls.gave_up(call)
            raise

    def give_back(self, messages: Sequence[Message[Any]]) -> None:
        """Release messages that nobody will see."""
        self.machine.give_back(messages)

    async def confirmed(
        self, message: Message[Any], settlements: Settlements, extends: bool = False
    ) -> None:
        """Return when the settlement of `message` is safe, or that it `extends`; LeaseLost, Timeout."""
        waiter = self.create_future()
        by_ms = now_ms() + self.timeout_ms
        done = self.machine.await_settled(waiter, message, settlements, by_ms, extends)
        try:
            await waiter
        finally:
            done()

    async def drained(self, publishes: bool = False) -> bool:
        """Wait until no settlement (and no publish) is unconfirmed; False if that took too long."""
        self.flush()
        leaving = self.leaving
        if self.is_closed or leaving.is_drained(publishes):
            return True
        by_ms = leaving.by_ms(now_ms())
        if by_ms <= now_ms():
            return False
        waiter = self.create_future()
        leaving.add(waiter, publishes, by_ms)
        self._after()
        try:
            await waiter
        except Timeout:
            logger.warning("not everything was confirmed within %d ms", self.timeout_ms)
            return False
        return True

    # ---- leases ----

    def keep_alive(self) -> None:
        """Have leases renewed from now on, whatever the loop does."""
        if self.attached is None:
            near = self.in_process
            self.attached = Attached(self) if near is None else Renewal(self, near.broker)
            self.attached.start()

    def renew_soon(self, lease_ms: int) -> None:
        """Wake the thread that renews, if what came under a lease of this length cannot wait for it."""
        if self.attached is not None:
            self.attached.delivered(lease_ms)

    def extended(self, message: Message[Any], lease_ms: int) -> None:
        """Note that the application asked for a lease of its own length: it is renewed as that."""
        self.keep_alive()
        assert self.attached is not None
        self.attached.extended(message, lease_ms)

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the loop, from another thread; RuntimeError if it is closed, or there is none."""
        if not self.is_bound:
            raise RuntimeError(NO_LOOP)
        self.loop.call_soon_threadsafe(function, *args)

    # ---- the end ----

    def spawn(self, work: Any) -> None:
        """Run a coroutine that nobody waits for."""
        if not self.is_closed:
            task = self.loop.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self, why: str) -> None:
        """Say goodbye, end the connection, and fail what is still waiting."""
        if self.is_closed:
            return
        self.machine.close(why, now_ms())
        self._after()
        if self.attached is not None:
            self.attached.stop()
        self._telling.say_the_rest()
        self._arm()

    def forget_after_fork(self) -> None:
        """In a forked child: the socket, the session, its messages and their renewal stay the parent's.

        A lazy one begins anew, at its first call in the child.
        """
        closed = self.machine.closed
        self.machine.abandon(closed or FORKED)
        self.link = self.attached = None
        if self.options.lazy and closed is None:
            self._begin(self.machine.declarations)


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
