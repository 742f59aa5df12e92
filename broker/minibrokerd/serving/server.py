"""The process: opens the data directory, recovers, listens, sweeps its connections, and stops well."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from secrets import token_bytes
from typing import Any, Final, NoReturn

import uvloop

from minibroker.contract.settings import not_default
from minibrokerd import __version__
from minibrokerd.access.tokens import BadTokens
from minibrokerd.core.core import Core
from minibrokerd.core.durable.paging import WrongRecord
from minibrokerd.core.model.absent import MOST_NAMED
from minibrokerd.core.model.records import UnknownRecord
from minibrokerd.engine.archivist import InThread
from minibrokerd.engine.engine import Engine
from minibrokerd.engine.scrub import Scrub
from minibrokerd.http import options as http_options
from minibrokerd.http.options import MOST_VISITORS, HttpOptions
from minibrokerd.http.port import HttpPort, is_of_http
from minibrokerd.http.subject import Subject
from minibrokerd.log.failures import LogError, LogFailed, NotWritable
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Log
from minibrokerd.monitoring.alarm import Alarm
from minibrokerd.monitoring.view import Phase
from minibrokerd.monitoring.watch import Watch
from minibrokerd.net import listening
from minibrokerd.net.connections import SWEEP_S, Connections
from minibrokerd.net.referring import referring
from minibrokerd.net.tls import Tls, TlsRefused
from minibrokerd.process import exits, logs, memory, memory_limit
from minibrokerd.process.logs import OwnText, events
from minibrokerd.process.notify import Notifier
from minibrokerd.process.outlet import STDOUT, write_once
from minibrokerd.process.stopping import StopSignals
from minibrokerd.retained.shelf import Retained
from minibrokerd.schedules.on_demand import calendar_of
from minibrokerd.serving.asked import answer_operators
from minibrokerd.serving.banner import Recovered, banner, look
from minibrokerd.serving.configuration import ServeOptions, reloaded
from minibrokerd.serving.entry import Entry
from minibrokerd.serving.recovering import Recovering, StoppedEarly
from minibrokerd.serving.which_log import (
    bodies_of,
    log_of,
    no_retained_logs,
    replication_of,
    stand_by,
    told_of,
)

WEBHOOK_S: Final = 2.0  # that a stop waits for a webhook, of what its deadline has left
BACKSTOP_S: Final = 1.0  # after the deadline, when the loop itself is stuck
# Of the memory that may be used, for what was read of retained logs of late.
CACHE_SHARE: Final = 16
LIMIT_LOOK_S: Final = 30.0
# How long the loop may keep the interpreter from the thread that syncs, which asks for it three times a batch:
# with Python's 5 ms a publish waits for many times its sync while the loop has much to do.
SWITCH_S: Final = 0.0005
FAULT: Final = OwnText(
    "stopping in the middle of a step, as after a crash: what was confirmed is kept; please report this"
)
LEFT: Final = OwnText(
    "leaving at once, as after a crash: what was confirmed is kept, the rest is sent again"
)


def serve(options: ServeOptions, signals: StopSignals) -> int:
    """Run a broker until a signal stops it; return the exit code of the process."""
    sys.setswitchinterval(SWITCH_S)
    os.umask(0o077)  # its files are for its user alone, and for him they are
    logs.configure(options.log_format, options.log_level)
    logs.catch_stray_errors()
    if options.warning:
        events.warning("environment_ignored", text=OwnText(options.warning))
    signals.on_second = lambda: leave("asked to stop twice")
    signals.on_other = lambda name: events.info("signal_ignored", signal=name)
    signals.on_continued = lambda: events.info("continued")
    try:
        return _run(options, signals)
    finally:
        signals.end()
        logs.flush()


def _run(options: ServeOptions, signals: StopSignals) -> int:
    factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(_serve(options, signals))
        except LogError as error:
            name = "log_failed" if isinstance(error, LogFailed) else "start_refused"
            events.error(name, code=error.exit_code, text=OwnText(error))
            return error.exit_code
        except UnknownRecord as error:
            text = (
                f"{options.data_dir}: {error}; nothing was changed: use the version that wrote it"
            )
            events.error("start_refused", code=exits.NEWER, text=OwnText(text))
            return exits.NEWER
        except (TlsRefused, BadTokens) as error:
            events.error("start_refused", code=exits.USAGE, text=OwnText(error))
            return exits.USAGE
        except listening.CannotListen as error:
            events.error("start_refused", code=exits.UNREACHABLE, text=OwnText(error))
            return exits.UNREACHABLE
        except Exception as error:  # noqa: BLE001 - the process ends of it, and its log must say so
            events.error("crashed", code=exits.REFUSED, exc_info=error)
            return exits.REFUSED


async def _serve(options: ServeOptions, signals: StopSignals) -> int:
    tls = None if options.tls is None else Tls(options.tls)
    sockets = listening.bind(options.host, options.port)
    pages = http_options.bind(options.http) if options.http is not None else []
    address = options.advertise or listening.reached(sockets)
    loop = asyncio.get_running_loop()
    server = Server(options, loop, tls=tls, pages=pages, address=address)
    answers = answer_operators(options, server.subject, address, server.step_down)
    try:
        if options.standby:
            async with referring(sockets, loop, tls, lambda: server.subject.active):
                await server.stand_by(signals)
        if signals.asked:
            raise StoppedEarly  # before it claims a log that somebody leads
        await server.start(sockets, signals)
    except StoppedEarly:
        events.info("stopped", code=exits.DONE, signal=signals.asked, before="listening")
        return exits.DONE
    else:
        return await server.run()
    finally:
        if answers is not None:
            answers.cancel()


def leave(reason: str) -> NoReturn:
    """End the process there and then: nothing that was confirmed needs more."""
    events.error("left_at_once", code=exits.DRAIN, reason=reason, text=LEFT)
    logs.flush()
    os._exit(exits.DRAIN)


class Server:
    """A listening broker: its engine and its connections."""

    def __init__(
        self,
        options: ServeOptions,
        loop: asyncio.AbstractEventLoop,
        log: Log | None = None,
        tls: Tls | None = None,
        pages: list[socket.socket] | None = None,
        address: str = "",
    ) -> None:
        """`pages` are the bound sockets of the HTTP port; clients are sent to `address`."""
        self._options = options
        self.loop = loop
        memory.share_heap()
        self._trimmer = memory.Trimmer()
        self._memory_limit = memory_limit.of_option(options.memory_limit)
        if log is None:
            log = log_of(options, address)
        self._log = log
        self._core = Core(
            bodies_of(log),
            auto_create=options.auto_create,
            max_queues=options.max_queues,
            sizes=log.sizes,
            calendar_of=calendar_of,
            secret=token_bytes(32),
            told=told_of(options),
        )
        self._core.store.retained.refused = no_retained_logs(options)
        self._retained = Retained(FileOps(), os.path.join(options.data_dir, "retained"))
        self._retained.cache.limit(self._memory_limit.bytes // CACHE_SHARE)
        self.engine = Engine(
            self._core,
            log,
            loop,
            self._failed,
            self._memory_limit.bytes,
            retained=self._retained,
            hand=InThread(loop),
        )
        shares = listening.connection_limits(MOST_VISITORS if pages else 0)
        self.connections = Connections(self.engine, loop, shares.clients)
        self._entry = Entry(self.connections, loop, tls, options.data_dir)
        self.subject = Subject(
            core=self._core,
            engine=self.engine,
            log=log,
            connections=self.connections,
            loop=loop,
            memory_limit_bytes=self._memory_limit.bytes,
            started_unix=time.time(),
            data_dir=str(options.data_dir),
            replication=replication_of(log),
        )
        self._watch = self.subject.watch = Watch(self.subject)
        self._alarm = Alarm(self._watch, loop, self.engine.clock.unix_ms, options.webhook)
        self.subject.caller = self._alarm.caller
        self._http = HttpPort(
            options.http or HttpOptions(), pages or [], self.subject, shares.visitors, tls
        )
        self._sweep_due_s = loop.time()
        self._scrub: Scrub | None = None
        self._signals = StopSignals()
        self._notifier = Notifier()
        self._pings: asyncio.TimerHandle | None = None
        self._listeners: list[asyncio.Server] = []
        self._stop_asked: asyncio.Future[None] = loop.create_future()
        self._code = exits.DONE  # at the end

    async def stand_by(self, signals: StopSignals) -> None:
        """Follow the log while another broker leads it, before `start`; a stop leaves it as it is.

        Raises:
            LogError, BadTokens: it cannot be read.
        """
        self.loop.set_exception_handler(self._loop_error)
        self._entry.read_tokens()
        self.subject.phase = Phase.STANDBY
        self._http.start()
        self._notifier.ready(
            "standing by"
        )  # as far as the service manager is concerned: it may be for weeks
        self._ping()
        memory.collect_little()
        await stand_by(self._options, signals, self.subject)
        self.subject.phase = Phase.RECOVERING

    async def start(self, sockets: list[socket.socket], signals: StopSignals) -> None:
        """Recover, then listen, and print the banner.

        Raises:
            StoppedEarly: a signal came before; the log is as it was, or closed.
            LogError: the data directory cannot be used; nothing was listened on.
            CannotListen: another program was faster.
        """
        self._signals = signals
        self.loop.set_exception_handler(self._loop_error)
        # Reading back and scrubbing, one at a time: each thread more would have a heap of its own.
        self.loop.set_default_executor(ThreadPoolExecutor(1, "minibroker-read"))
        try:
            if self._options.standby:  # the log is claimed already: nobody else would lead instead
                self._entry.look_at_tokens()
            else:
                self._entry.read_tokens()
            recovering = Recovering(
                self._log, self.engine, self._notifier, self._http.start, lambda: signals.asked
            )
            await recovering.run()
            self.connections.session_key = self._log.session_key
            recovered = look(self._core.store, self._log, recovering.ms)
        except OSError as error:
            path, advice = str(self._options.data_dir), "check the disk, and the owner of the files"
            raise NotWritable(path, "read what is in", str(error), advice) from error
        if signals.asked:
            self.engine.close()
            raise StoppedEarly
        # What recovered leases have left, and the wait for resumes, count from when clients can come: rewriting a
        # segment and making the state of millions of messages can take longer than either.
        self.engine.clock.start()
        try:
            self._listeners = await listening.listen(sockets, self._entry.protocol, self.loop)
        except OSError as error:
            self.engine.close()
            host, port = self._options.host, self._options.port
            raise listening.cannot_listen(host, port, error) from error
        self._sweep_at(self.loop.time() + SWEEP_S)
        self._entry.start(is_local=listening.is_local(sockets))
        self.loop.call_later(LIMIT_LOOK_S, self._look_at_limit)
        if self._log.segments is not None:
            self._scrub = Scrub(self._log.segments, self.loop)
            self._scrub.start()
        self.subject.phase, self.subject.recovered_ms = Phase.READY, recovered.ms
        self.subject.ready_unix = time.time()
        self._watch.start()
        self._http.start()
        self._say_started(sockets, recovered)
        # Last, so that a stop finds all of this done; what was asked for meanwhile happens now.
        signals.on_hangup = lambda: self.loop.call_soon_threadsafe(self._hang_up)
        signals.call(lambda: self.loop.call_soon_threadsafe(self._stop))

    def _say_started(self, sockets: list[socket.socket], recovered: Recovered) -> None:
        address = listening.show(*sockets[0].getsockname()[:2])
        data_dir = self._options.data_dir.absolute()
        events.info("recovered", **recovered.fields())
        self._say_who_is_awaited()
        if isinstance(self._log, FileLog) and self._log.report.copied_from:
            events.warning("directory_copied", original=self._log.report.copied_from)
        events.info(
            "started",
            version=__version__,
            address=", ".join(listening.show(*sock.getsockname()[:2]) for sock in sockets),
            data_dir=OwnText(data_dir),
            log=OwnText(self._options.log or "files"),
            pid=os.getpid(),
            most_connections=self.connections.most,
            segment_bytes=self._options.segment_bytes,
            **self._memory_limit.fields(),
            drain_timeout_s=self._options.drain_timeout,
            auto_create=self._options.auto_create,
            loop=self._options.loop,
            tls=self._options.tls is not None,
            tokens=self._entry.asks_for_tokens,
        )
        shown = f"{address}, with TLS" if self._options.tls else address
        text = banner(shown, data_dir, recovered, self._http.address, self._options.log)
        write_once(STDOUT, os.fsencode(f"{text}\n"))
        self._notifier.ready(f"listening on {address}")
        self._ping()

    def _say_who_is_awaited(self) -> None:
        store = self._core.store
        if store.absent:
            events.info(
                "sessions_awaited",
                sessions=len(store.absent),
                clients=", ".join(store.absent.names(None, MOST_NAMED)),
                until_ms=store.hold_until_ms - store.now_ms,
            )

    async def run(self) -> int:
        """Serve until a signal; return the exit code."""
        await self._stop_asked
        began_s = time.monotonic()
        deadline_s = self._options.drain_timeout
        events.info(
            "stopping",
            signal=self._signals.asked,
            connections=len(self.connections),
            deadline_s=deadline_s,
        )
        self._notifier.stopping("finishing what was taken")
        if self._scrub is not None:
            self._scrub.stop()
        self._watch.stop()
        backstop = threading.Timer(deadline_s + BACKSTOP_S, leave, ("the event loop is stuck",))
        backstop.daemon = True
        backstop.start()
        try:
            async with asyncio.timeout(deadline_s):
                await self._drain()
                events.info("drained", ms=_ms_since(began_s))
                # In a thread: the loop must be there for the deadline while the disk takes the footer.
                await asyncio.gather(asyncio.to_thread(self.engine.close), self._http.stop())
        except TimeoutError:
            leave(f"the disk did not take what is left within {deadline_s:g} s")
        left_s = deadline_s - (time.monotonic() - began_s)
        await self._alarm.end(min(WEBHOOK_S, left_s))
        backstop.cancel()
        self.connections.report_rest()
        self._signals.on_second = lambda: None  # the log is closed: there is nothing left to leave
        events.info("stopped", code=self._code, ms=_ms_since(began_s))
        return self._code

    def _sweep(self) -> None:
        """Once a second, or when the silence of a peer has lasted long enough."""
        self.engine.pulse.late(self.loop.time() - self._sweep_due_s)
        next_s = self.connections.sweep()
        if self._log.segments is not None:
            self._log.segments.look()
        self._report()
        self._trimmer.look(self._core.memory_bytes())
        self.engine.look_at_memory()
        self._sweep_at(next_s)

    def _sweep_at(self, due_s: float) -> None:
        self._sweep_due_s = due_s
        self.loop.call_at(due_s, self._sweep)

    def _report(self) -> None:
        """Log what is only looked at once a second, because it happens where every message passes."""
        for is_new, queue in self._core.news():
            passes = queue.settings[
                "delete_unused_ms"
            ]  # made to end, as for one reply or one chord
            if is_new:
                say = events.debug if passes else events.info
                say("queue_created", queue=queue.name, **not_default(queue.settings))
            else:
                say = events.debug if passes else events.warning
                say("queue_deleted", queue=queue.name)
        self.connections.report()

    def _look_at_limit(self) -> None:
        """A control group's limit can be changed while its processes run."""
        self._limit_memory()
        self.loop.call_later(LIMIT_LOOK_S, self._look_at_limit)

    def _limit_memory(self) -> None:
        limit = memory_limit.of_option(self._options.memory_limit)
        if limit != self._memory_limit:
            self._memory_limit = limit
            self.engine.limit_memory(limit.bytes)
            self._retained.cache.limit(limit.bytes // CACHE_SHARE)
            self.subject.memory_limit_bytes = limit.bytes
            events.warning("memory_limit_changed", **limit.fields())

    def _hang_up(self) -> None:
        """Read everything again that may change while the server runs: SIGHUP."""
        self._entry.hang_up()
        self._options = reloaded(self._options)
        logs.set_level(self._options.log_level)
        self._core.store.auto_create = self._options.auto_create
        self._core.store.max_queues = self._options.max_queues
        self._limit_memory()
        self._alarm.set(self._options.webhook)

    def _ping(self) -> None:
        """Tell the service manager that the loop turns, twice in the time that it waits."""
        if self._notifier.ping_s is not None:
            self._notifier.ping()
            if self._pings is not None:
                self._pings.cancel()
            self._pings = self.loop.call_later(self._notifier.ping_s, self._ping)

    def step_down(self) -> None:
        """Stop as after a signal, for another broker to lead, with a code at which supervisors start it again."""
        events.info("steps_down", epoch=self._log.epoch)
        self._code = exits.DEPOSED
        self._stop()

    def _stop(self) -> None:
        self.connections.stopping = True
        self.subject.phase = Phase.DRAINING
        if not self._stop_asked.done():
            self._stop_asked.set_result(None)

    async def _drain(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._core.hold()
        self._http.part()
        await self.engine.drain()
        self._report()
        await self.connections.part()
        await self.engine.drain()

    def _loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            self.connections.turned_away += (
                1  # asyncio's loop says it again and again, and tries later
            )
            return
        events.error("loop_error", text=context.get("message", ""), exc_info=error)
        # Of a socket the loop ends the connection, and nobody waits for a task. A callback of the server's own
        # that broke off is another matter: what it should have done, and set going again, is missing for good.
        if "handle" in context and not (isinstance(error, OSError | None) or is_of_http(error)):
            self.engine.stop_at(error)

    def _failed(self, error: BaseException) -> None:
        # Nothing more may leave the broker: what rests on the failed batch, or step, was never safe.
        if isinstance(error, LogError | WrongRecord):
            code = error.exit_code if isinstance(error, LogError) else exits.LOG_FAILED
            events.error("log_failed", code=code, text=OwnText(error))
        else:
            code = exits.FAULT
            events.error("fault", code=code, text=FAULT, exc_info=error)
        logs.flush()
        os._exit(code)


def _ms_since(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1_000)
