"""All crews of an application on one connection, from the first message to the end of the drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from minibroker.aio.broker import Broker, connect
from minibroker.aio.message import Message
from minibroker.contract.errors import ConnectionLost, MinibrokerError
from minibroker.shell.real_threads import Clock
from minibroker.worker.app import App
from minibroker.worker.calling import (
    Call,
    Threads,
    with_arguments,
    with_middleware,
    with_timeout,
)
from minibroker.worker.children import Children
from minibroker.worker.control import Control
from minibroker.worker.crew import Crew
from minibroker.worker.declared import Declared
from minibroker.worker.life import Life, LifespanLate
from minibroker.worker.recurring import Scheduled, declare_all, placed
from minibroker.worker.reporting import Report

RELEASE_S: Final = 2.0  # behind the deadline of a drain: for what cancelled handlers give back
IDLE_LOOK_S: Final = 0.5
BEAT_S: Final = 5.0
MAX_MESSAGES: Final = "max_messages"  # the reason of a stop


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How one worker process works. `queues`: only these; empty: all. Spans are seconds."""

    queues: Collection[str] = ()
    name: str | None = None
    url: str | None = None
    burst: bool = False
    drain_s: float = 30.0
    max_messages: int | None = None  # then it stops; those that run meanwhile are finished
    on_ready: Callable[[], object] | None = None  # it takes messages
    # The broker answered; whether a handler ended since.
    on_beat: Callable[[bool], object] | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended: `reason` it stopped for, what `error` ended it, how many handlers did not finish."""

    reason: str
    error: BaseException | None = None
    unfinished: int = 0


async def work(app: App, options: WorkOptions, report: Report, control: Control) -> Ending:
    """Work for `app` until `control` says stop; never raises what handlers or the lifespan do.

    Raises:
        ValueError: the options name a queue that has no handler, or the app has none; or a schedule has no queue.
        MinibrokerError: the server refused the login, a queue or its settings, or a schedule; ConnectionLost only
            with `burst`.
    """
    handlers = chosen(app, options.queues)
    schedules = placed(app.schedules, app.handlers)
    broker = await _connected(app, options, report, control)
    if broker is None:
        return Ending(control.reason)
    ending = Ending("")  # the lifespan swallowed what ended the work
    try:
        if schedules or app.owner:
            declaring = declare_all(broker, schedules, app.owner, options.queues)
            if await _unless_stopped(_tell_schedules(declaring, schedules, report), control):
                return Ending(control.reason)
        async with Life(app, control, options.drain_s):
            shift = _Shift(app, handlers, broker, options, report, control)
            ending = await shift.work()
    except MinibrokerError:
        raise
    except LifespanLate as error:
        report.event("not_finished", logging.WARNING, running=[f"the lifespan: {error}"])
        return Ending(control.reason, ending.error, ending.unfinished + 1)
    except Exception as error:  # noqa: BLE001 - the application's: it is told by the caller
        return Ending("the lifespan, or the start of a process for a handler, failed", error)
    finally:
        with suppress(TimeoutError, MinibrokerError):
            async with asyncio.timeout(_left_s(control, options)):
                await broker.close()
    return ending


async def _tell_schedules(
    declaring: Coroutine[Any, Any, list[str]], schedules: Sequence[Scheduled], report: Report
) -> None:
    deleted = await declaring
    report.event("schedules", schedules=[each.name for each in schedules], deleted=deleted)


async def _unless_stopped(work: Coroutine[Any, Any, None], control: Control) -> bool:
    """Wait for some work, or for a stop, which ends it; return whether there was one."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(control.stopped.wait())
    try:
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return False
        return True
    finally:
        for each in (task, stop):
            each.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def _left_s(control: Control, options: WorkOptions) -> float:
    """Return how long leaving the broker may take: what is left of the deadline of the drain, and a moment."""
    if not control.stopped.is_set():
        return options.drain_s
    used_s = asyncio.get_running_loop().time() - control.stopped_at
    return max(RELEASE_S, 0.0 if control.hurried.is_set() else options.drain_s - used_s)


def chosen(app: App, queues: Collection[str]) -> list[Declared]:
    """Return the handlers of these queues; empty: of all.

    Raises:
        ValueError: the app has none, or none for one of the queues; says which there are.
    """
    known = [each.queue for each in app.handlers]
    if not known:
        raise ValueError("the app has no handlers: declare one with @app.handler(queue)")
    if unknown := ", ".join(repr(name) for name in queues if name not in known):
        raise ValueError(
            f"no handler for the queue {unknown}; the app has some for {', '.join(known)}"
        )
    return [each for each in app.handlers if not queues or each.queue in queues]


async def _connected(
    app: App, options: WorkOptions, report: Report, control: Control
) -> Broker | None:
    """Connect, for as long as it takes; None if a stop was asked for before."""
    connection = {**app.connection, **({"name": options.name} if options.name else {})}
    said = False
    while not control.stopped.is_set():
        opening = asyncio.ensure_future(_open(options.url or app.url, connection))
        stop = asyncio.ensure_future(control.stopped.wait())
        await asyncio.wait([opening, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
            return None
        try:
            broker = opening.result()
        except ConnectionLost as error:
            if options.burst:
                raise
            if not said:
                report.event("broker_away", logging.WARNING, error=str(error))
            said = True
        else:
            if said:
                report.event("broker_back")
            return broker
    return None


async def _open(url: str | None, connection: dict[str, Any]) -> Broker:
    broker: Broker = await connect(url, **connection)
    return broker


class _Shift:
    """The work of one process on an open connection."""

    def __init__(
        self,
        app: App,
        chosen: Sequence[Declared],
        broker: Broker,
        options: WorkOptions,
        report: Report,
        control: Control,
    ) -> None:
        self._broker = broker
        self._options = options
        self._report = report
        self._control = control
        self._left = options.max_messages or 0
        self._threads: list[Threads] = []
        self._children: list[Children] = []
        self._crews = [Crew(each, self._call_of(each, app), broker, report) for each in chosen]

    def _call_of(self, declared: Declared, app: App) -> Call:
        plain = with_arguments(declared.function, declared.takes)
        if declared.executor == "loop":
            call: Call = plain
            if declared.timeout_s is not None:
                call = with_timeout(call, declared.timeout_s)
        elif declared.executor == "process":
            children = Children(declared)
            self._children.append(children)
            call = children.call
        else:
            threads = Threads(declared, plain)
            self._threads.append(threads)
            call = threads.call
        call = with_middleware(call, app.middlewares)
        return call if self._options.max_messages is None else self._counted(call)

    def _counted(self, call: Call) -> Call:
        async def counted(message: Message[Any]) -> object:
            try:
                return await call(message)
            finally:
                self._left -= 1
                if self._left <= 0:
                    self._control.stop(MAX_MESSAGES)
                    for crew in self._crews:
                        crew.stop()

        return counted

    async def work(self) -> Ending:
        """Work until a stop is asked for, or something ends the worker; then drain."""
        control = self._control
        if not await self._has_started():
            return Ending(control.reason)
        tasks = [asyncio.ensure_future(crew.run()) for crew in self._crews]
        helpers: list[asyncio.Future[Any]] = [asyncio.ensure_future(control.stopped.wait())]
        beats = asyncio.ensure_future(self._beat())
        if self._options.burst:
            helpers.append(asyncio.ensure_future(self._until_empty()))
        try:
            await asyncio.wait([*tasks, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for helper in helpers:
                helper.cancel()
            control.stop("a handler ended the worker")
            unfinished = await self._drain(tasks)
        finally:
            beats.cancel()
            for threads in self._threads:
                threads.close()
            await self._close_children()
        error = await _first_error(tasks)
        if isinstance(error, MinibrokerError):
            raise error
        return Ending(control.reason, error, unfinished)

    async def _has_started(self) -> bool:
        """Start a process for each handler that has some; return whether, since a stop does not wait for that."""
        starting: asyncio.Future[Any] = asyncio.gather(
            *(children.start() for children in self._children)
        )
        stopped: asyncio.Future[Any] = asyncio.ensure_future(self._control.stopped.wait())
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not self._control.stopped.is_set():
                await starting
                return True
        except BaseException:
            await self._close_children()
            raise
        finally:
            stopped.cancel()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await self._close_children()
        return False

    async def _close_children(self) -> None:
        await asyncio.gather(*(children.close() for children in self._children))

    async def _drain(self, tasks: Sequence[asyncio.Task[Any]]) -> int:
        """Begin nothing new, wait for what runs until the deadline, cancel the rest; return how much that was."""
        running = self._named()
        self._report.event(
            "draining",
            reason=self._control.reason,
            deadline_s=self._options.drain_s,
            running=running,
        )
        for crew in self._crews:
            crew.stop()
        hurried = asyncio.ensure_future(self._control.hurried.wait())
        ended = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait(
            [hurried, ended], timeout=self._options.drain_s, return_when=asyncio.FIRST_COMPLETED
        )
        hurried.cancel()
        unfinished = 0
        if not ended.done():
            left = self._named()
            unfinished = len(left)
            self._report.event("not_finished", logging.WARNING, running=left)
            for crew in self._crews:
                crew.cancel()
            await asyncio.wait([ended], timeout=RELEASE_S)
            for task in tasks:
                task.cancel()
        await asyncio.wait([ended], timeout=RELEASE_S)
        return unfinished

    def _named(self) -> list[str]:
        """Return what runs, as `emails 1-5 for 2.1 s`."""
        now = Clock.monotonic()
        return [
            f"{message.queue} {message.id} for {now - message.begun_at:.1f} s"
            for crew in self._crews
            for message in crew.running
        ]

    async def _beat(self) -> None:
        """Say that work has begun, then now and again that the broker answers."""
        await asyncio.gather(*(crew.opened.wait() for crew in self._crews))
        if self._options.on_ready is not None:
            self._options.on_ready()
        before = 0
        while (on_beat := self._options.on_beat) is not None:
            with suppress(TimeoutError, MinibrokerError):  # no answer, no beat
                async with asyncio.timeout(BEAT_S):
                    await self._broker.ping()
                count = sum(crew.count for crew in self._crews)
                on_beat(count != before)
                before = count
            await asyncio.sleep(BEAT_S)

    async def _until_empty(self) -> None:
        """Return when nothing is ready in the queues, and nothing runs; what is delayed is left."""
        while True:
            before = sum(crew.count for crew in self._crews)
            stats = await self._broker.stats()
            counters = [stats["queues"].get(crew.declared.queue, {}) for crew in self._crews]
            # A delivery on its way came before the answer, so it runs now or has been counted.
            await asyncio.sleep(0)
            after = sum(crew.count for crew in self._crews)
            idle = not any(crew.running for crew in self._crews) and before == after
            if idle and not any(map(_waiting, counters)):
                self._control.stop("burst")
                return
            await asyncio.sleep(IDLE_LOOK_S)


def _waiting(counters: Mapping[str, Any]) -> int:
    """Return how many messages may still come: those of a queue, and of a group those that it has not been fed."""
    behind: int = counters.get("group_of", {}).get("lag", 0)
    return behind + int(counters.get("ready", 0)) + int(counters.get("held", 0))


async def _first_error(tasks: Sequence[asyncio.Task[Any]]) -> BaseException | None:
    """Return what ended the crews, if anything but a stop did."""
    for task in tasks:
        if not task.done() or task.cancelled():
            continue
        error = task.exception() or task.result()
        if error is not None:
            return error
    return None
