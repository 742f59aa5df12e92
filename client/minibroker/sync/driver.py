"""The blocking shell around a machine: callers' own threads do the work, one at a time.

Each call takes the mutex, makes its wish, writes what is due, and waits. Of the threads that wait, one leads: it
polls the socket, gives the machine what came, and so answers the others; when it has its own answer, the next one
leads. No thread of its own is needed for a publish, so there is no hop to one.

What may block, or run code of the application, happens without the mutex: polling, asking for addresses, logging.
"""

from __future__ import annotations

import os
import select
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from minibroker.contract.errors import Closed, OutcomeUnknown, Timeout
from minibroker.contract.settings import Settings
from minibroker.session.arguments import Options
from minibroker.session.calls import deadline
from minibroker.session.declaring import Declaration
from minibroker.session.message import MessageData
from minibroker.session.outbox import Key, PublishGroup
from minibroker.session.session import Session
from minibroker.session.settlements import Run, Settlements
from minibroker.shell.attached import Attached
from minibroker.shell.in_process import Renewal
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Bell
from minibroker.shell.telling import logger
from minibroker.sync.keeper import Keeper
from minibroker.sync.link import READABLE
from minibroker.sync.steps import TORN, Steps, new_mutex
from minibroker.sync.waiter import Waiter

# Publishes wait for the answer to one of so many frames, and share the next one.
UNDER_WAY: Final = 2
FORKED: Final = "this belongs to the parent process; in a child, ask its broker or queue anew"

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()


class Driver(Steps):
    """What runs one machine in whatever threads call."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        _drivers.add(self)

    # ---- waiting ----

    def answered(self, waiter: Waiter) -> None:
        """Return when `waiter` has its answer, whatever it is."""
        while not waiter.done():
            self._wait_or_lead(waiter)

    def wait(self, waiter: Waiter, gave_up: Callable[[], object] | None = None) -> Any:
        """Return the answer that `waiter` gets, or raise it. Interrupted, nothing of the call is left behind."""
        try:
            self.answered(waiter)
        except BaseException:
            self.give_up(waiter, gave_up)
            raise
        return waiter.result()

    def give_up(self, waiter: Waiter, gave_up: Callable[[], object] | None = None) -> None:
        """The thread of `waiter` goes without its answer; `gave_up` takes back what it asked for."""
        with self:
            waiter.cancel()
            if gave_up is not None:
                gave_up()
            if self._leader is waiter:
                self._leader = None
            self._promote()

    def _wait_or_lead(self, waiter: Waiter) -> None:
        lock = None
        try:
            self.mutex.acquire()
            leads = False
            if waiter.owner is not self.machine and not waiter.done():
                waiter.set_exception(OutcomeUnknown(TORN))
            if not waiter.done():
                leads = self._leader is None
                if leads:
                    self._leader = waiter
                    self._until_ms = self.machine.timers.wake_ms
                else:
                    lock = waiter.lie_down()
                    self._followers[waiter] = None
            self.mutex.release()
            if lock is not None:
                lock.acquire()
            elif leads:
                self._lead(waiter)
        finally:
            self.recover()
            if lock is not None:
                self._followers.pop(waiter, None)
            if self._leader is waiter or self.machine.closed is not None:
                self._step_down(waiter)

    def _step_down(self, waiter: Waiter) -> None:
        with self:
            if self._leader is waiter:
                self._leader = None
            self._promote()
            if self.machine.closed is not None:
                self._close_bell()

    def _close_bell(self) -> None:
        """Give its descriptors back, or ring it: who polls does so when he has seen that this is the end."""
        if self._leader is None:
            self._bell.close()
        else:
            self._bell.ring()

    def _promote(self) -> None:
        """Let another thread lead, if one waits."""
        if self._leader is None:
            for waiter in list(self._followers):
                if not waiter.done():
                    waiter.wake()
                    return

    def _lead(self, waiter: Waiter) -> None:
        while True:
            if self._must_resolve:
                self._resolve(socket.getaddrinfo)
            self._sleep()
            try:
                now = self.__enter__()
                if self._leader is not waiter:  # torn meanwhile
                    self.leave(flush=True)
                    return
                self._look(now)
                self._until_ms = self.machine.timers.wake_ms
                is_done = waiter.done()
                if is_done:
                    self._leader = None
                    self._promote()
            except BaseException:
                self.recover()
                raise
            self.leave(
                flush=bool(self._flush_due or self.machine.frames or self.session.has_work())
            )
            if is_done:
                return

    def _sleep(self) -> None:
        """Poll until something comes, somebody rings, or something is due."""
        poll, bell = select.poll(), self._bell.fileno()
        poll.register(bell, READABLE)
        link = self.link
        if link is not None and (descriptor := link.fileno()) >= 0:
            poll.register(descriptor, link.awaits())
        left_ms = max(0, min(self._until_ms - now_ms(), 3_600_000))
        if self.todo or self._must_resolve:
            left_ms = 0
        for descriptor, _ in poll.poll(left_ms):
            if descriptor == bell:
                self._bell.hear()

    # ---- wishes ----

    def declare(
        self, queue: str, settings: Settings, *, overwrite: bool, exclusive: bool = False
    ) -> Declaration:
        """Have a queue with these settings; Closed, BadValue. Opens no connection: what forks may have none."""
        declarations = self.machine.declarations
        said = partial(
            declarations.declare, queue, settings, overwrite=overwrite, exclusive=exclusive
        )
        self.mutex.acquire()
        if not self._started:
            try:
                self.machine.check_open()
                return said()
            finally:
                self.mutex.release()
        self.mutex.release()
        with self:
            self.machine.check_open()
            return said()

    def group(self, where: Key, count: int, cost: int, now: int) -> PublishGroup:
        """Return a group that takes `count` messages of together `cost` bytes; within a step."""
        self.machine.check_open()
        outbox = self.session.outbox
        group = outbox.open.get(where)
        if group is not None:
            if group.takes(count, cost, outbox.group_bytes):
                return group
            outbox.close(where)
        return self.machine.open_group(where, now)

    def is_busy(self) -> bool:
        """Return whether publishes may wait for the next answer, to share a frame; within a step."""
        return self._leader is not None and len(self.session.window) >= UNDER_WAY

    def request(
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
        waiter = Waiter()
        asked: list[Callable[[], None]] = []
        try:
            with self as now:
                waiter.owner = self.machine
                calls = self.machine.calls
                self.machine.check_open()
                by_ms = deadline(op, now, timeout_ms)
                call = calls.ask(waiter, op, fields, by_ms, columns)
                asked.append(partial(calls.gave_up, call))
            self.answered(waiter)
            if waiter.exception() is None:
                return waiter.result()
        except BaseException:
            self.give_up(waiter, asked[0] if asked else None)
            raise
        return waiter.result()

    def confirmed(
        self, message: MessageData[Any], settlements: Settlements, extends: bool = False
    ) -> tuple[Waiter, Callable[[], None]]:
        """Note that a thread wants to know when a settlement is safe; within a step. Returns what to wait for."""
        waiter = Waiter(self.machine)
        by_ms = now_ms() + self.timeout_ms
        return waiter, self.machine.await_settled(waiter, message, settlements, by_ms, extends)

    def drained(self, publishes: bool = False) -> bool:
        """Wait until no settlement (and no publish) is unconfirmed; False if that took too long."""
        with self:
            pass  # what waits is written first
        waiter = Waiter()
        with self as now:
            waiter.owner = self.machine
            leaving = self.machine.leaving
            if self.machine.closed is not None or leaving.is_drained(publishes):
                return True
            by_ms = leaving.by_ms(now)
            if by_ms <= now:
                return False
            leaving.add(waiter, publishes, by_ms)
        try:
            self.wait(waiter)
        except Timeout:
            logger.warning("not everything was confirmed within %d ms", self.timeout_ms)
            return False
        return True

    # ---- leases ----

    def keep_alive(self) -> None:
        """Have leases renewed from now on, and the connection looked after; within a step."""
        if self.attached is None:
            near = self.in_process
            self.attached = Attached(self) if near is None else Renewal(Asked(self), near.broker)
            self.attached.start()
            self.keeper = Keeper(self)
            self.keeper.start()

    def extended(self, message: MessageData[Any], lease_ms: int) -> None:
        """Note that the application asked for a lease of its own length: it is renewed as that."""
        self.keep_alive()
        assert self.attached is not None
        self.attached.extended(message, lease_ms)

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal."""
        self.machine.lost_runs(runs)

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in a step of its own; RuntimeError if this client was closed."""
        if self.machine.closed is not None:
            raise RuntimeError("closed")
        with self:
            function(*args)

    def wants_flush(self) -> bool:
        """Return whether something was noted in this step that should leave with it."""
        return self._flush_due

    # ---- the end ----

    def open(self) -> None:
        """Return when the server has welcomed this session.

        Raises:
            Timeout, LoginRefused: it has not.
        """
        waiter = Waiter()
        with self as now:
            waiter.owner = self.machine
            self.machine.await_open(waiter, now + self.options.connect_ms)
        self.wait(waiter)

    def leave_all(self) -> None:
        """End all consumers and runs, and wait for what they and others owe."""
        with self as now:
            by_ms = self.machine.leaving.by_ms(now)
            for consumer in list(self.consumers.values()):
                self.machine.retire(consumer)
        for run in list(self.runs):
            run.wait((by_ms - now_ms()) / 1000)
        self.drained(publishes=True)

    def close(self, why: str) -> None:
        """Say goodbye, end the connection, and fail what is still waiting."""
        with self as now:
            self.machine.close(why, now)
            for waiter in [*self._followers, *([self._leader] if self._leader else [])]:
                if not waiter.done():
                    waiter.set_exception(Closed(why))
            self._stop_threads()
            self._close_bell()
        self._telling.say_the_rest()

    def forget_after_fork(self) -> None:
        """In a forked child: the session, its messages and their renewal stay the parent's; begin anew."""
        if self.attached is not None:
            self.attached.close_copy()
        if self.keeper is not None:
            self.keeper.close_copy()
        if self.link is not None:
            self.link.close()
        self._bell.close()
        closed = self.machine.closed
        self.machine.abandon(closed or FORKED)
        self.mutex = new_mutex()
        self._bell = Bell()
        self._begin(self.machine.declarations)
        self.machine.closed = closed


class Asked:
    """A driver as a broker in process asks it to renew: with the broker locked, in the thread of any client.

    So nothing here takes the mutex, which is taken before the broker's lock everywhere else.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.max_run_ms = driver.max_run_ms

    @property
    def session(self) -> Session:
        """The session of the present machine."""
        return self._driver.session

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal; called by way of `hand_over`."""
        self._driver.lost_runs(runs)

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called in the next step."""
        if self._driver.machine.closed is not None:
            raise RuntimeError("closed")
        self._driver.todo.append(partial(function, *args))
        self._driver.ring()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
