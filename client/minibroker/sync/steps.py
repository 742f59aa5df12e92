"""One step of a blocking client: the mutex, what is written, what the machine asks for, and the connection.

What may block, or run code of the application, happens without the mutex: polling, asking for addresses, logging.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol

from minibroker.contract.errors import LoginRefused, MinibrokerError, OutcomeUnknown
from minibroker.session.address import Memory
from minibroker.session.arguments import Options
from minibroker.session.declaring import Declarations
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
from minibroker.session.settlements import Settlements
from minibroker.session.timers import NEVER_MS
from minibroker.shell.attached import Attached
from minibroker.shell.credentials import token_of, trust_of
from minibroker.shell.in_process import InProcess, Renewal
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Bell, Clock, original
from minibroker.shell.telling import Telling, tell_goes_on
from minibroker.shell.tracing import telemetry_for
from minibroker.sync.keeper import Keeper
from minibroker.sync.link import WRITABLE, Link
from minibroker.sync.message import Message
from minibroker.sync.pipe_link import PipeLink
from minibroker.sync.sealed_link import SealedLink
from minibroker.sync.waiter import Over, Waiter

# A connection that nobody looked at for so long is looked at before it is used.
STALE_MS: Final = 1_000
TORN: Final = "an interrupt struck while this client changed its state; it has begun a new session"


def new_mutex() -> Any:
    """Return a lock of the interpreter, under gevent too: nothing that is done under it waits for anything.

    It knows its owner: an interrupt can strike anywhere, and a thread finds out by it whether it has the mutex.
    It is never taken twice.
    """
    return original("_thread", "RLock")()


class Running(Protocol):
    """A `run` that goes on."""

    def wait(self, timeout_s: float) -> None:
        """Wait until it is over, if it is not this thread's own."""


class Steps:
    """What runs one machine in whatever threads call. `with driver as now` is one step, under the mutex."""

    make_message: MakeMessage = Message
    is_over: type[Exception] = Over
    # Of the class: as the 30th attribute of the object it would make reading each of them dearer by a sixth.
    telemetry: Any = None

    def __init__(self, options: Options) -> None:
        self.options = options
        if (telemetry := telemetry_for(options)) is not None:
            self.telemetry = telemetry
        near = options.address
        self.in_process = InProcess(near.name) if isinstance(near, Memory) else None
        self.address = self.places[0] if self.places else ("", 0)  # that was dialled last
        self.trust = trust_of(options.encryption)
        self.timeout_ms = options.timeout_ms
        self.max_run_ms = options.max_run_ms
        self.clock = Clock.monotonic  # seconds
        self._telling = Telling(options.where, options.on_settle_error, self._later)
        self.failed = self._telling.failed
        self.mutex = new_mutex()
        self._bell = Bell()  # wakes the thread that polls
        self._begin(None)

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports that may be dialled; none in process."""
        near = self.options.address
        return () if isinstance(near, Memory) else near.places

    def not_kept(self, message: MessageData[Any]) -> None:
        """A message came to a result, and nobody keeps it."""
        self._telling.not_kept(message)

    def _begin(self, declared: Declarations | None) -> None:
        """Have a machine, and nothing of an earlier one but what was declared of queues."""
        options = self.options
        self.machine = Machine(
            options.name, options.timeout_ms, options.connect_ms, random.uniform, self
        )
        self.machine.connecting.among(self.places)
        self.machine.heartbeat.is_hurried = len(self.places) > 1
        self.machine.session.version = options.version
        if declared is not None:
            self.machine.declarations.adopt(declared)
        self.session, self.consumers = self.machine.session, self.machine.consumers
        self.link: Link | PipeLink | None = None
        self.last_write = 0.0  # monotonic seconds
        self.attached: Attached | Renewal | None = None
        self.keeper: Keeper | None = None
        self.turn_due = False  # acks wait that should leave before the next message is begun
        self._flush_due = False
        self._started = False
        self._leader: Waiter | None = None  # of the thread that polls
        self._followers: dict[Waiter, None] = {}  # of those that sleep, or are about to look again
        self.runs: set[Running] = set()
        self._until_ms = NEVER_MS  # the leader polls no longer than that
        self._must_resolve = False
        self._looked_ms = 0  # when the link was last read
        self._said: deque[Callable[[], object]] = deque()  # to be called without the mutex
        self.todo: deque[Callable[[], object]] = deque()  # to be called with it, by the next step

    # ---- one step ----

    def __enter__(self) -> int:
        """Take the mutex; return the time."""
        if self.mutex._is_owned():
            self._tear()
        try:
            self.mutex.acquire()
            now = now_ms()
            if not self._started:
                self._started = True
                if self.machine.closed is None:
                    self.machine.connect(now)
            elif self._leader is None and now - self._looked_ms > STALE_MS:
                self._catch_up(now)
            elif now >= self.machine.timers.wake_ms:
                self.machine.due(now)
            while self.todo:
                self.todo.popleft()()
        except BaseException:
            self.recover()
            raise
        return now

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what waits, release the mutex, and do what may not be done under it."""
        if error is not None and not isinstance(error, MinibrokerError):
            self.recover()
        elif error is None or self.mutex._is_owned():
            self.leave(flush=True)

    def recover(self) -> None:
        """End a step of this thread that was interrupted, if there is one."""
        if self.mutex._is_owned():
            self._tear()

    def leave(self, flush: bool) -> None:
        """End a step that succeeded; `flush`: write what waits."""
        try:
            if flush:
                self.flush()
            if self.machine.effects:
                self._do_effects()
            if self._leader is not None and (
                self._must_resolve or self.machine.timers.wake_ms < self._until_ms
            ):
                self.ring()
            self.mutex.release()
        except BaseException:
            self.recover()
            raise
        if self._said:
            self._say()

    def flush(self) -> None:
        """Write what waits, as far as there is room; within a step."""
        self._flush_due = self.turn_due = False
        frames = self.machine.flush(now_ms())
        link = self.link
        if frames and link is not None:
            try:
                link.write(b"".join(frames) if len(frames) > 1 else frames[0])
            except OSError as error:
                self._end_link(error)
                return
            self.last_write = self.clock()
            if link.awaits() & WRITABLE:
                self.ring()

    def _say(self) -> None:
        try:
            while True:
                self._said.popleft()()
        except IndexError:
            return

    def _tear(self) -> None:
        """An interrupt, or a mistake of ours, has struck in the middle of a step: what it left cannot be trusted.

        The mutex is held, and released. The connection ends, so that the server takes back what was held; whoever
        waits hears that the outcome is unknown; the next call begins a new session.
        """
        waiters = [*self._followers, *([self._leader] if self._leader else [])]
        self._close_all()
        try:
            self.machine.abandon(TORN)
        finally:
            self._begin(self.machine.declarations)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(OutcomeUnknown(TORN))
                waiter.wake()
            self._bell.ring()
            self.mutex.release()

    def _stop_threads(self) -> None:
        if self.attached is not None:
            self.attached.stop()
        if self.keeper is not None:
            self.keeper.stop()

    def _close_all(self) -> None:
        """Close what this process has of sockets, without a word to the server."""
        self._stop_threads()
        if self.link is not None:
            self.link.close()

    # ---- what the machine asks for ----

    def _do_effects(self) -> None:
        machine, telling = self.machine, self._telling
        while machine.effects:
            for effect in machine.take_effects():
                if isinstance(effect, Dial):
                    self._must_resolve = True
                    self.address = effect.place or self.address
                elif isinstance(effect, HangUp):
                    self._hang_up(effect)
                elif isinstance(effect, Renew):
                    if self.attached is not None:
                        self.attached.delivered(effect.lease_ms)
                else:
                    self._said.append(_saying(telling, effect))

    def _hang_up(self, effect: HangUp) -> None:
        link, self.link = self.link, None
        self._must_resolve = False
        if link is not None:
            if effect.last and link.is_open:
                self._last_words(link, effect.last)
            link.close()
            self.ring()

    def _last_words(self, link: Link | PipeLink, data: bytes) -> None:
        """Send what a connection ends with; a peer that takes nothing for a moment does not get it."""
        try:
            link.write(data)
            for _ in range(10):
                if not link.awaits() & WRITABLE:
                    return
                poll = original("select", "poll")()
                poll.register(link.fileno(), WRITABLE)
                poll.poll(100)
                link.proceed()
        except OSError:
            return  # it had ended already

    def _end_link(self, error: Exception) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()
            self.machine.ended(error, now_ms())
            self._do_effects()
            self.ring()

    def schedule(self) -> None:
        """See to it that what waits is written: by the end of this step."""
        self._flush_due = True

    def ripe(self, settlements: Settlements) -> Waiter | None:
        """See to it that settlements leave: soon, or at once when many wait; a waiter if there is no room."""
        if settlements.others or len(settlements.acks) >= settlements.half:
            self._flush_due = True
        elif self.keeper is not None:
            self.keeper.soon()
        if self.session.window.is_full():
            self._flush_due = True
            waiter = Waiter(self.machine)
            self.machine.await_room(waiter)
            return waiter
        return None

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function some time after; the next step that finds it due does."""
        with self as now:
            self.machine.timers.at(now + int(seconds * 1000), lambda _: self._said.append(function))

    # ---- reading ----

    def _look(self, now: int) -> None:
        """Take what has come, go on with what was begun, do what is due."""
        link = self.link
        if link is not None:
            try:
                if not link.is_open or link.awaits() & WRITABLE:
                    self._proceed(link, now)
                if link.is_open and link is self.link:
                    self._looked_ms = now
                    data = link.read()
                    if data:
                        self.machine.received(data, now)
            except (OSError, LoginRefused) as error:
                if link is self.link:
                    self._end_link(error)
        if now >= self.machine.timers.wake_ms:
            self.machine.due(now)

    def look(self, now: int) -> None:
        """Do, without waiting, what a leader would: for who polls the connection by himself; within a step."""
        self._look(now)
        if self._leader is not None and self._leader.done():
            self._bell.ring()  # its answer was read here
        keeper = self.keeper
        if keeper is None:
            return
        keeper.is_watched = True
        if self._must_resolve or self.machine.timers.wake_ms < keeper.until_ms:
            keeper.soon()

    def look_after(self) -> None:
        """Nobody polls by himself any more: the keeper looks after the connection, as ever."""
        if self.keeper is not None:
            self.keeper.is_watched = False
            self.keeper.soon()

    def _proceed(self, link: Link | PipeLink, now: int) -> None:
        poll = original("select", "poll")()  # the leader may have been woken by something else
        poll.register(link.fileno(), WRITABLE)
        if poll.poll(0) and link.proceed():
            if self.machine.dialled(now):
                self.flush()
            else:
                self._hang_up(HangUp())

    def _catch_up(self, now: int) -> None:
        """Nobody has looked for a while: a connection that has ended meanwhile is replaced without ado."""
        machine, link = self.machine, self.link
        self._looked_ms = now
        if link is not None and link.is_open and self.session.is_open:
            is_over = now - machine.received_ms > 2 * self.session.heartbeat_ms
            came = []
            try:
                while data := link.read():
                    came.append(data)
                    is_over = False
            except OSError:
                is_over = True
            if is_over:  # what came before the end says why: that nothing was heard of this session
                machine.refresh(now)
            else:
                for data in came:
                    machine.received(data, now)
        if now >= machine.timers.wake_ms:
            machine.due(now)

    def round(self) -> None:
        """Do, without waiting, what a leader would; nothing if there is one. For a keeper."""
        if self._leader is None:
            with self as now:
                if self._leader is None and not self._must_resolve:
                    self._look(now)
            if self._must_resolve and self._leader is None:
                self._resolve(original("_socket", "getaddrinfo"))

    def _resolve(self, getaddrinfo: Callable[..., Any]) -> None:
        self._must_resolve = False
        try:
            dial = self._dial_to(getaddrinfo)
        except OSError as error:
            with self as now:
                self.machine.ended(error, now)
            return
        except BaseException:
            self._must_resolve = True  # an interrupt of this thread: another one does it
            raise
        with self as now:
            if self.link is None and self.machine.closed is None:
                try:
                    self.link = dial()
                except OSError as error:
                    self.machine.ended(error, now)
            self.ring()

    def _dial_to(self, getaddrinfo: Callable[..., Any]) -> Callable[[], Link | PipeLink]:
        """Find out where the server is, which may take a while; return what begins to dial it."""
        if self.in_process is not None:
            broker = self.in_process.broker
            return lambda: PipeLink(broker, self.machine.timers)
        self.session.token = token_of(self.options)
        address, trust = self.address, self.trust
        found = getaddrinfo(*address, 0, socket.SOCK_STREAM)
        if trust is None:
            return lambda: Link(found)
        return lambda: SealedLink(found, trust, address)

    def ring(self) -> None:
        """Let the leader look: something changed that it does not know."""
        if self._leader is not None:
            self._bell.ring()


def _saying(telling: Telling, effect: Any) -> Callable[[], object]:
    """Return the call that tells of an effect."""
    if isinstance(effect, Lost):
        return lambda: _tell_lost(telling, effect)
    say: Mapping[type, Callable[[Any], object]] = {
        Opened: telling.opened,
        Away: telling.away,
        Again: telling.again,
        Leaving: telling.leaving,
        Differs: telling.differs,
        NotDeclared: telling.not_declared,
        MadeAnew: telling.made_anew,
    }
    return lambda: say[type(effect)](effect)


def _tell_lost(telling: Telling, effect: Lost) -> None:
    telling.lost(effect.messages, effect.error)
    for message in effect.messages:
        tell_goes_on(message)
        telling.to_hook(message, effect.error)
