"""One process that works: loads the app, connects, works until a signal, and ends with a code of exits.py."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from typing import Final

import uvloop

import minibroker
from minibroker.contract.errors import LoginRefused, MinibrokerError, ProtocolError
from minibroker.session.address import default_url
from minibroker.worker import App, Control, Ending, WorkOptions, work
from minibrokerd import __version__, exits, logs
from minibrokerd.logs import OwnText, events
from minibrokerd.outlet import STDOUT, write_once
from minibrokerd.stopping import StopSignals
from minibrokerd.workers.lines import Lines
from minibrokerd.workers.loading import CannotLoad, load

TWICE_S: Final = (
    0.25  # `timeout`, and whoever signals a whole group, send one signal twice in a moment
)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `minibroker worker` was asked for. Spans are seconds, sizes bytes."""

    app: str
    url: str | None = None
    queues: tuple[str, ...] = ()
    burst: bool = False
    drain_timeout: float = 30.0
    max_messages: int | None = None
    loop: str = "uvloop"
    log_format: str = "text"
    log_level: str = "info"


def run(options: WorkerOptions, signals: StopSignals) -> int:
    """Work until a signal, or until there is nothing to do; return the exit code of the process."""
    logs.configure(options.log_format, options.log_level)
    signals.on_other = lambda name: events.info("signal_ignored", signal=name)
    signals.on_continued = lambda: events.info("continued")
    try:
        app = load(options.app)
    except CannotLoad as error:
        return _refused(str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the application's module
        return _refused(f"importing {options.app} raised {_raised(error)}")
    factory = uvloop.new_event_loop if options.loop == "uvloop" else None
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            code = runner.run(_work(app, options, signals))
    finally:
        # The interpreter gives signals their defaults back while it ends: one more would be the exit code.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        logs.flush()
    if _threads_left():
        os._exit(code)  # the interpreter would wait for them, perhaps for ever
    return code


async def _work(app: App, options: WorkerOptions, signals: StopSignals) -> int:
    control, loop = Control(), asyncio.get_running_loop()
    _Stops(control, loop).listen(signals)
    report = Lines(options.log_format, options.log_level)
    asked = WorkOptions(
        queues=options.queues,
        url=options.url,
        burst=options.burst,
        drain_s=options.drain_timeout,
        max_messages=options.max_messages,
    )
    try:
        _introduce(app, options, report)
        ending = await work(app, asked, report, control)
    except ValueError as error:
        return _refused(str(error))
    except MinibrokerError as error:
        unreachable = isinstance(error, minibroker.ConnectionLost | LoginRefused | ProtocolError)
        code = exits.UNREACHABLE if unreachable else exits.REFUSED
        events.error("worker_stopped", code=code, text=OwnText(error), error=error.code)
        return code
    return _ended(ending)


class _Stops:
    """Turns signals into a drain, and into its end. They come at any time, in the main thread."""

    def __init__(self, control: Control, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._first_s = 0.0

    def listen(self, signals: StopSignals) -> None:
        """Take what is asked from now on, and what was asked before."""
        signals.on_second = self._second
        signals.call(lambda: self._first(signals.asked))

    def _first(self, name: str) -> None:
        self._first_s = time.monotonic()
        self._loop.call_soon_threadsafe(self._control.stop, name)

    def _second(self) -> None:
        if time.monotonic() - self._first_s >= TWICE_S:
            self._loop.call_soon_threadsafe(self._control.hurry)


def _ended(ending: Ending) -> int:
    code = exits.DONE
    if ending.error is not None:
        code = exits.FAULT
        events.error("worker_failed", text=ending.reason, exc_info=ending.error)
    elif ending.unfinished:
        code = exits.DRAIN
    events.info("worker_stopped", code=code, reason=ending.reason)
    return code


def _introduce(app: App, options: WorkerOptions, report: Lines) -> None:
    """Print the banner, and the same as an event."""
    url = options.url or app.url or default_url(os.environ)
    rows = [each for each in app.handlers if not options.queues or each.queue in options.queues]
    handlers = [f"{each.queue}={each.name} x{each.concurrency} ({each.executor})" for each in rows]
    report.event(
        "worker_started",
        version=__version__,
        app=options.app,
        broker=url,
        handlers=handlers,
        pid=os.getpid(),
    )
    if options.log_format == "json":
        return
    wide = max((len(each.queue) for each in rows), default=0)
    lines = [f"minibroker {__version__} worker of {options.app} for {url}"]
    for each in rows:
        bound = f", {each.timeout_s:g} s at most" if each.timeout_s else ""
        body = f" of {each.takes.body_type}" if each.takes.body_type else ""
        where = {"loop": "in the loop", "thread": "in threads", "process": "in processes"}
        lines.append(
            f"  {each.queue:<{wide}}  {each.name}{body}, {each.concurrency} at a time "
            f"{where[each.executor]}{bound}"
        )
    write_once(STDOUT, ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))


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
