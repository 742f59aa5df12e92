"""`--processes N`: starts workers, starts again those that end, and hands signals on.

It never imports the app: what the app breaks ends a worker, which is started again, later each time. Workers are
processes of the same command line; each has a socket to here (`place.py`), whose end tells them to drain.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from minibroker.worker import signalling
from minibrokerd.process import exits, logs
from minibrokerd.process.logs import events
from minibrokerd.process.notify import Notifier
from minibrokerd.process.stopping import StopSignals
from minibrokerd.workers.health import Health
from minibrokerd.workers.place import Seat

FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 30.0
STEADY_S: Final = 30.0  # who lived for this long is started again after the first delay
# Behind the deadline of the drain, and a worker's own; then what is left is killed.
OVERTIME_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """What the supervisor does with the flags of `minibroker worker`. Spans are seconds."""

    processes: int
    burst: bool
    drain_timeout: float
    reload: bool
    health_file: str | None
    health_port: int | None
    log_format: str
    log_level: str


def supervise(options: SupervisorOptions, signals: StopSignals) -> int:
    """Run workers until a signal, or until all are done; return the exit code of the process."""
    logs.configure(options.log_format, options.log_level)
    with asyncio.Runner() as runner:
        try:
            return runner.run(Supervisor(options, signals).run())
        finally:
            signals.end()
            logs.flush()


class Supervisor:
    """All workers of one command."""

    def __init__(self, options: SupervisorOptions, signals: StopSignals) -> None:
        self._options = options
        self._signals = signals
        self.is_hurried = False  # a stop was asked for again
        self._stopping = asyncio.Event()
        self._codes: list[int] = []
        self._notifier = Notifier()
        self._health = Health(options.processes)
        self._places = [
            _Place(number, self, options.processes) for number in range(1, options.processes + 1)
        ]
        self._rolling: asyncio.Task[None] | None = None

    @property
    def options(self) -> SupervisorOptions:
        """What was asked for."""
        return self._options

    @property
    def is_stopping(self) -> bool:
        """Whether no worker is started any more."""
        return self._stopping.is_set()

    async def run(self) -> int:
        """Keep the workers running; return the exit code."""
        loop = asyncio.get_running_loop()
        signals = self._signals
        signals.on_second = lambda: loop.call_soon_threadsafe(self._hurry)
        signals.on_other = lambda name: loop.call_soon_threadsafe(self._other, name)
        signals.call(lambda: loop.call_soon_threadsafe(self.stop, signals.asked))
        tasks = [asyncio.create_task(place.keep()) for place in self._places]
        helpers = [asyncio.create_task(work) for work in self._helpers()]
        try:
            await asyncio.wait(tasks)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        code = max(self._codes, default=exits.DONE, key=_rank)
        events.info("workers_stopped", code=code)
        return code

    def _helpers(self) -> list[Any]:
        options = self._options
        work: list[Any] = [self._health.serve(options.health_file, options.health_port)]
        work.append(self._notifier.keep_pinging())
        if options.reload:
            from minibrokerd.workers.reloading import changes

            work.append(changes(self._changed))
        return work

    # ---- what happens ----

    def ready(self) -> None:
        """Note that a worker takes messages."""
        if all(place.is_ready for place in self._places):
            self._notifier.ready(f"{len(self._places)} workers take messages")

    def beat(self, number: int, work_unix: float) -> None:
        """Note that a worker has an answer of the broker."""
        self._health.beat(number, work_unix)

    def ended(self, code: int) -> None:
        """Note the exit code of a worker that is not started again."""
        self._codes.append(code)

    def stop(self, reason: str) -> None:
        """Let all workers drain, and start none."""
        if self.is_stopping:
            return
        self._stopping.set()
        events.info("workers_stopping", reason=reason, deadline_s=self._options.drain_timeout)
        self._notifier.stopping(f"draining, {self._options.drain_timeout:g} s at most")
        self._forward(signal.SIGTERM)
        late_s = self._options.drain_timeout + OVERTIME_S
        asyncio.get_running_loop().call_later(late_s, self._forward, signal.SIGKILL)

    async def pause(self, seconds: float) -> None:
        """Return after so many seconds, or when the end has come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _forward(self, number: signal.Signals) -> None:
        for place in self._places:
            place.signal(number)

    def _hurry(self) -> None:
        self.is_hurried = True
        for place in self._places:
            place.hurry()

    def _other(self, name: str) -> None:
        if name == "SIGHUP":
            self._roll(self._one_by_one)
        else:
            events.info("signal_ignored", signal=name)

    def _changed(self, paths: list[str]) -> None:
        events.info("reloading", changed=", ".join(paths[:3]))
        self._roll(self._all_at_once)

    def _roll(self, how: Callable[[], Awaitable[None]]) -> None:
        if not self.is_stopping and (self._rolling is None or self._rolling.done()):
            self._rolling = asyncio.create_task(self._rolled(how))

    async def _rolled(self, how: Callable[[], Awaitable[None]]) -> None:
        self._notifier.reloading()
        await how()
        self._notifier.ready(f"{len(self._places)} workers take messages")

    async def _one_by_one(self) -> None:
        """Restart the workers in turn: the others go on meanwhile, with the code that they have."""
        events.info("restarting", workers=len(self._places))
        for place in self._places:
            await place.restart()

    async def _all_at_once(self) -> None:
        await asyncio.gather(*(place.restart() for place in self._places))


class _Place:
    """One worker after the other."""

    def __init__(self, number: int, supervisor: Supervisor, count: int) -> None:
        self.is_ready = False
        self._number = number
        self._count = count
        self._supervisor = supervisor
        self._process: asyncio.subprocess.Process | None = None
        self._seat: Seat | None = None  # of the process
        self._asked = False  # to end, to be started again
        self._turn = asyncio.Event()  # somebody waits for the next worker to be ready, or to fail
        self._delay_s = FIRST_DELAY_S

    async def keep(self) -> None:
        """Start a worker, and another one when it has ended, until the end has come."""
        supervisor = self._supervisor
        while not supervisor.is_stopping:
            started_s = time.monotonic()
            code = await self._live()
            if supervisor.is_stopping or (code == exits.DONE and supervisor.options.burst):
                self._tell_last(code)
                supervisor.ended(_told(code))
                return
            if code == exits.USAGE and not supervisor.options.reload and not self._asked:
                supervisor.ended(code)  # the others would meet the same
                supervisor.stop("the app cannot work")
                return
            if self._asked or code == exits.AGAIN:
                self._asked = False
                continue
            if time.monotonic() - started_s >= STEADY_S:
                self._delay_s = FIRST_DELAY_S
            delay_s = self._delay_s * random.uniform(0.8, 1.2)
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            events.warning(
                "worker_ended", worker=self._number, how=_how(code), again_in_s=round(delay_s, 1)
            )
            await supervisor.pause(delay_s)

    def _tell_last(self, code: int) -> None:
        """Say how the last worker of this place has ended, if it did not do what it was asked to."""
        if _told(code) != exits.DONE:
            events.warning("worker_ended", worker=self._number, how=_how(code))

    async def _live(self) -> int:
        """Start a worker and return its exit code, negative for a signal."""
        seat = Seat(self._number, self._count, self._process is None)
        environment, descriptor = seat.environment()
        with seat:
            self._seat = seat
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "minibrokerd", *sys.argv[1:],
                pass_fds=[descriptor], env={**_environment(), **environment},
            )  # fmt: skip
            seat.started()
            if self._supervisor.is_stopping:
                self.signal(signal.SIGTERM)
            if self._supervisor.is_hurried:
                self.hurry()
            heard = asyncio.create_task(seat.listen(self._ready, self._beat))
            code = await process.wait()
            heard.cancel()
        self.is_ready = False
        self._turn.set()
        return code

    def _ready(self) -> None:
        self.is_ready = True
        self._turn.set()
        self._supervisor.ready()

    def _beat(self, work_unix: float) -> None:
        self._supervisor.beat(self._number, work_unix)

    async def restart(self) -> None:
        """Let the worker drain; return when the next one is ready, or has failed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._asked = True
        self._turn.clear()
        self.signal(signal.SIGTERM)
        await self._turn.wait()  # the old one has ended
        self._turn.clear()
        await self._turn.wait()

    def hurry(self) -> None:
        """Let the worker know that a stop was asked for again, whatever its loop is doing."""
        if self._seat is not None:
            self._seat.hurry()
            self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker, if it runs."""
        if self._process is not None:
            signalling.send(self._process, number)


def _environment() -> dict[str, str]:
    """Return the environment without what a service manager meant for this process."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _told(code: int) -> int:
    """Return the exit code of a worker as the command's: one that was killed did not finish.

    SIGTERM kills only what has not come to catch it, and has begun nothing.
    """
    if code in (exits.AGAIN, -signal.SIGTERM):
        return exits.DONE
    return exits.DRAIN if code < 0 else code


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _rank(code: int) -> int:
    """Return how much an exit code says: the gravest of the workers is that of the command."""
    order = (exits.DONE, exits.AGAIN, exits.DRAIN, exits.UNREACHABLE, exits.REFUSED, exits.FAULT)
    return order.index(code) if code in order else len(order)
