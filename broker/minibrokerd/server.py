"""The process: opens the data directory, recovers, listens, sweeps its connections, and stops well."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from minibroker import limits
from minibroker.commands import Phase
from minibrokerd import __version__, exits
from minibrokerd.connection import ServerConnection
from minibrokerd.core.core import Core
from minibrokerd.engine import Engine
from minibrokerd.log.failures import LogError
from minibrokerd.log.filelog import DEFAULT_SEGMENT_BYTES, FileLog
from minibrokerd.log.seam import Log

logger = logging.getLogger("minibrokerd")

BACKLOG: Final = 4_096  # a storm of reconnects must not overflow it; asyncio's default is 100
SWEEP_S: Final = 1.0
STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `minibroker serve` was asked for."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = limits.DEFAULT_PORT
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    auto_create: bool = True
    loop: str = "uvloop"


def serve(options: ServeOptions) -> int:
    """Run a broker until a signal stops it; return the exit code of the process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    factory = uvloop.new_event_loop if options.loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(_serve(options))
        except LogError as error:
            print(f"minibroker: {error}", file=sys.stderr)
            return error.exit_code


async def _serve(options: ServeOptions) -> int:
    server = Server(options, asyncio.get_running_loop())
    try:
        await server.start()
    except OSError as error:
        print(
            f"minibroker: cannot listen on {options.host}:{options.port}: {error.strerror}; "
            "is another server running there? Choose another --port or stop it.",
            file=sys.stderr,
        )
        server.abandon()
        return exits.UNREACHABLE
    return await server.run()


class Server:
    """A listening broker: its engine and its connections."""

    def __init__(
        self, options: ServeOptions, loop: asyncio.AbstractEventLoop, log: Log | None = None
    ) -> None:
        self._options = options
        self.loop = loop
        self.stopping = False
        self._connections: dict[int, ServerConnection] = {}
        self._next_number = 1
        self._core = Core(auto_create=options.auto_create)
        self._log: Log = log or FileLog(options.data_dir, segment_bytes=options.segment_bytes)
        self.engine = Engine(self._core, self._log, loop, self._failed)
        self.session_key = b""
        self._listener: asyncio.Server | None = None
        self._stopped: asyncio.Future[int] = loop.create_future()

    async def start(self) -> None:
        """Recover, then listen, and print the banner.

        Raises:
            LogError: the data directory cannot be used; nothing was listened on.
            OSError: the address cannot be listened on.
        """
        began_s = time.monotonic()
        base_ms = 0
        # Recovery makes millions of objects that stay: collecting in between would only walk them again.
        gc.disable()
        for batch in self._log.recover():
            self._core.replay(batch)
            base_ms = max(base_ms, batch.now_ms)
        self.session_key = self._log.session_key
        self.engine.start(base_ms)
        gc.collect()
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 50, 100)
        # What recovered leases have left, and the wait for resumes, count from when clients can come: rewriting a
        # segment and making the state of millions of messages can take longer than either.
        self.engine.clock.start()
        self._listener = await self.loop.create_server(
            self._connect, self._options.host, self._options.port, backlog=BACKLOG
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stop)
        self.loop.call_later(SWEEP_S, self._sweep)
        self._banner(time.monotonic() - began_s)

    async def run(self) -> int:
        """Serve until a signal or a failure; return the exit code."""
        code = await self._stopped
        if code:
            return code
        try:
            async with asyncio.timeout(STOP_S - 1):
                await self._drain()
        except TimeoutError:
            logger.error(
                "the disk did not take what is left within %d s; leaving, as after a crash", STOP_S
            )
            return exits.DRAIN
        return 0

    def abandon(self) -> None:
        """Give the log up cleanly after `start` failed to listen."""
        self.engine.close()

    def gone(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection.number, None)

    def refused(self, connection: ServerConnection, code: str, text: str) -> None:
        """Note that a peer broke the protocol; client strings are escaped and cut."""
        logger.warning("connection %d refused: %s: %.200s", connection.number, code, ascii(text))

    def _connect(self) -> ServerConnection:
        connection = ServerConnection(self, self._next_number)
        self._connections[connection.number] = connection
        self._next_number += 1
        return connection

    def _banner(self, took_s: float) -> None:
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        messages = sum(queue.count() for queue in self._core.store.queues.values())
        print(
            f"minibroker {__version__} listening on {host}:{port}, data in {self._options.data_dir}, "
            f"recovered {messages} messages in {took_s * 1_000:.0f} ms",
            flush=True,
        )

    def _sweep(self) -> None:
        """Once a second: deadlines of logins and frames, heartbeats, silent and stuck peers."""
        now_s = self.loop.time()
        heard: dict[int, float] = {}
        for connection in self._connections.values():
            if connection.session:
                heard[connection.session] = max(
                    heard.get(connection.session, 0.0), connection.received_s
                )
        for connection in list(self._connections.values()):
            why = self._complaint(connection, heard.get(connection.session, 0.0), now_s)
            if why:
                connection.end(why)
            elif connection.session and now_s - connection.sent_s > limits.HEARTBEAT_MS / 1_000:
                connection.heartbeat()
        self.loop.call_later(SWEEP_S, self._sweep)

    @staticmethod
    def _complaint(connection: ServerConnection, heard_s: float, now_s: float) -> str:
        if connection.phase is Phase.NEW:
            late = now_s - connection.opened_s > limits.LOGIN_DEADLINE_MS / 1_000
            return "it did not log in within 5 s" if late else ""
        since_s = connection.frame_since_s
        if since_s is not None and now_s - since_s > limits.FRAME_DEADLINE_MS / 1_000:
            return "a frame was not complete after 30 s"
        if now_s - heard_s > 2 * limits.HEARTBEAT_MS / 1_000:
            return "nothing was heard of its session for two heartbeats"
        if connection.stalled_s(now_s) > limits.OUTPUT_STALL_MS / 1_000:
            return "it has not read anything for 10 s"
        return ""

    def _stop(self) -> None:
        if self.stopping:
            logger.warning("stopped again: leaving at once, as after a crash")
            os._exit(1)
        self.stopping = True
        logger.info("stopping: finishing what was taken")
        if not self._stopped.done():
            self._stopped.set_result(0)

    async def _drain(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._core.hold()
        await self.engine.drain()
        for connection in list(self._connections.values()):
            connection.farewell("the server is stopping")
        await asyncio.sleep(0)
        await self.engine.drain()
        self.engine.close()

    def _failed(self, error: BaseException) -> None:
        # Nothing more may leave the broker: what rests on the failed batch was never safe.
        print(f"minibroker: {error}", file=sys.stderr, flush=True)
        os._exit(exits.LOG_FAILED)
