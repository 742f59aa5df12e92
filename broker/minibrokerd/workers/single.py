"""One process that works: loads the app, connects, works until a signal, and ends with a code of exits.py."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import uvloop

import minibroker
from minibroker.contract.errors import LoginRefused, MinibrokerError, ProtocolError
from minibroker.worker import App, Control, Ending, WorkOptions, chosen, work
from minibroker.worker.work import MAX_MESSAGES
from minibrokerd.process import exits, logs
from minibrokerd.process.logs import OwnText, events
from minibrokerd.process.memory import resident_bytes
from minibrokerd.process.notify import Notifier
from minibrokerd.process.stopping import StopSignals
from minibrokerd.workers.backstop import Backstop
from minibrokerd.workers.greeting import introduce
from minibrokerd.workers.health import Health
from minibrokerd.workers.lines import Lines, listen_to_client
from minibrokerd.workers.loading import CannotLoad, load
from minibrokerd.workers.place import Place

MAX_MEMORY: Final = "max_memory"  # the reason of a stop
MEMORY_LOOK_S: Final = 1.0
# Behind the deadline of the drain: for all that is cancelled, and for the lifespan.
OVERTIME_S: Final = 10.0
LAST_S: Final = 5.0  # behind the work: for threads of the application, and for the interpreter


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `minibroker worker` was asked for. Spans are seconds, sizes bytes."""

    app: str
    url: str | None = None
    queues: tuple[str, ...] = ()
    burst: bool = False
    drain_timeout: float = 30.0
    max_messages: int | None = None
    max_memory: int | None = None
    health_file: str | None = None
    health_port: int | None = None
    loop: str = "uvloop"
    log_format: str = "text"
    log_level: str = "info"


def run(options: WorkerOptions, signals: StopSignals, place: Place | None = None) -> int:
    """Work until a signal, or until there is nothing to do; return the exit code of the process.

    `place`: what a supervisor gave to this process.
    """
    logs.configure(options.log_format, options.log_level)
    listen_to_client()
    signals.on_other = lambda name: events.info("signal_ignored", signal=name)
    signals.on_continued = lambda: events.info("continued")
    try:
        app = load(options.app)
    except CannotLoad as error:
        return _refused(str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the application's module
        return _refused(f"importing {options.app} raised {_raised(error)}")
    try:
        chosen(app, options.queues)  # before a line says that a worker has started
    except ValueError as error:
        return _refused(f"--queues: {error}" if options.queues else str(error))
    factory = uvloop.new_event_loop if options.loop == "uvloop" else None
    process = _Process(options, place)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            try:
                code = runner.run(process.work(app, signals))
            finally:
                signals.end()
            process.backstop.start(LAST_S, code)
    finally:
        logs.flush()
    if _threads_left():
        os._exit(code)  # the interpreter would wait for them, perhaps for ever
    return code


class _Process:
    """What surrounds the work of one process: who is told that it is alive, and what bounds it."""

    def __init__(self, options: WorkerOptions, place: Place | None) -> None:
        self._options = options
        self._place = place
        self._control = Control()
        self.backstop = Backstop()
        self._health = Health(1)
        # With a supervisor, that one speaks to the service manager.
        self._notifier = Notifier(os.environ if place is None else {})
        self._work_unix = 0.0

    async def work(self, app: App, signals: StopSignals) -> int:
        """Work; return the exit code."""
        options, control, loop = self._options, self._control, asyncio.get_running_loop()
        late_s = options.drain_timeout + OVERTIME_S
        control.on_stop = lambda: self.backstop.start(late_s, exits.DRAIN)

        def first() -> None:
            self.backstop.start(late_s, exits.DRAIN)  # here: the loop may be stuck
            loop.call_soon_threadsafe(control.stop, signals.asked)

        def second() -> None:
            self.backstop.start(OVERTIME_S, exits.DRAIN)
            loop.call_soon_threadsafe(control.hurry)

        signals.on_second = second
        signals.call(first)
        if self._place is not None:
            self._place.listen(loop, second, lambda: control.stop("the supervisor is gone"))
        report = Lines(options.log_format, options.log_level)
        asked = WorkOptions(
            queues=options.queues,
            url=options.url,
            burst=options.burst,
            drain_s=options.drain_timeout,
            max_messages=options.max_messages,
            on_ready=self._ready,
            on_beat=self._beat,
        )
        helpers = [asyncio.ensure_future(each) for each in self._helpers()]
        try:
            introduce(app, options, report, self._place)
            ending = await work(app, asked, report, control)
        except ValueError as error:
            return _refused(str(error))
        except MinibrokerError as error:
            unreachable = isinstance(
                error, minibroker.ConnectionLost | LoginRefused | ProtocolError
            )
            code = exits.UNREACHABLE if unreachable else exits.REFUSED
            events.error("worker_stopped", code=code, text=OwnText(error), error=error.code)
            return code
        finally:
            for helper in helpers:
                helper.cancel()
        return _ended(ending, self._place is not None)

    def _helpers(self) -> list[Coroutine[Any, Any, None]]:
        options = self._options
        work = [self._notifier.keep_pinging()]
        if self._place is None:
            work.append(self._health.serve(options.health_file, options.health_port))
        if options.max_memory is not None:
            work.append(self._watch_memory(options.max_memory))
        return work

    def _ready(self) -> None:
        self._notifier.ready("taking messages")
        if self._place is not None:
            self._place.ready()

    def _beat(self, worked: bool) -> None:
        if worked:
            self._work_unix = time.time()
        self._health.beat(1, self._work_unix)
        if self._place is not None:
            self._place.beat(self._work_unix)

    async def _watch_memory(self, most_bytes: int) -> None:
        looks_s = asyncio.get_running_loop().time()
        while resident_bytes() <= most_bytes:
            looks_s += MEMORY_LOOK_S
            await asyncio.sleep(looks_s - asyncio.get_running_loop().time())
        self._control.stop(MAX_MEMORY)


def _ended(ending: Ending, is_supervised: bool) -> int:
    code = exits.DONE
    if is_supervised and ending.reason in (MAX_MESSAGES, MAX_MEMORY):
        code = exits.AGAIN
    if ending.error is not None:
        code = exits.FAULT
        events.error("worker_failed", text=ending.reason, exc_info=ending.error)
    elif ending.unfinished:
        code = exits.DRAIN
    events.info("worker_stopped", code=code, reason=ending.reason)
    return code


def _refused(text: str) -> int:
    print(f"minibroker: {text}", file=sys.stderr)
    return exits.USAGE


def _raised(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({last[0].filename}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {error}{place}"


def _threads_left() -> bool:
    return any(
        each.name.startswith("minibroker-") and each.is_alive() and not each.daemon
        for each in threading.enumerate()
    )
