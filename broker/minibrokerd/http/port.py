"""uvicorn in the broker's own loop. Whatever happens to it is a line in the log, and never the broker's end.

It takes no signals (it would raise them again when it ends, and the process would be gone before its log is
closed), no logging set-up, and sockets that are bound already: a taken port would come out of it as SystemExit in
this loop.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from minibrokerd.http.options import HttpOptions, unavailable
from minibrokerd.http.subject import Subject
from minibrokerd.net import listening
from minibrokerd.net.tls import Tls
from minibrokerd.process.logs import OwnText, events

if TYPE_CHECKING:
    import uvicorn

BACKLOG: Final = 128
KEEP_ALIVE_S: Final = 75
MAX_HEAD_BYTES: Final = 64 * 1024
FOREIGN: Final = ("uvicorn", "starlette", "h11", "anyio", "jinja2", "minibrokerd.http")


class HttpPort:
    """The port of one broker; without sockets it does nothing."""

    def __init__(
        self,
        options: HttpOptions,
        sockets: list[socket.socket],
        subject: Subject,
        most: int,
        tls: Tls | None = None,
    ) -> None:
        """At most `most` connections are taken; `tls` has the certificate for options that ask for one."""
        self._options = options
        self._tls = tls if options.tls else None
        self._sockets = sockets
        self._most = most
        self._subject = subject
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL; empty: nowhere."""
        if not self._sockets:
            return ""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://" + listening.show(*self._sockets[0].getsockname()[:2])

    def start(self) -> None:
        """Have the port opened, if that was not done yet; returns at once."""
        if self._sockets and self._task is None:
            self._task = self._subject.loop.create_task(self._run())

    async def stop(self) -> None:
        """Close the port at once, and cut off whoever is being answered; uvicorn's own way would take 0.2 s."""
        if self._task is None:
            return
        server = self._server
        if server is not None and server.started:
            for listener in server.servers:
                listener.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            for task in list(server.server_state.tasks):
                task.cancel()
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._subject.recent is not None:
            self._subject.recent.stop()

    def part(self) -> None:
        """End what was asked of the broker through this port: it is draining."""
        if self._subject.clients is not None:
            self._subject.clients.close()

    async def _run(self) -> None:
        try:
            # In a thread, as it takes 0.2 s: clients that come back after a crash are not to wait for it.
            server = self._server = await _in_thread(self._make)
            for sock in self._sockets:
                sock.listen(BACKLOG)
            survey = self._subject.survey
            can_change = survey is not None and survey.can_change
            events.info("http_started", address=self.address, can_change=can_change)
            await server.serve(sockets=self._sockets)
        except OSError as error:
            host, port = self._options.host, self._options.port
            unavailable(str(listening.cannot_listen(host, port, error, listening.HTTP_FLAGS)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the broker goes on without a page
            events.error("http_failed", text=OwnText("there is no page any more"), exc_info=error)
        finally:
            sockets, self._sockets = self._sockets, []
            for sock in sockets:
                sock.close()

    def _make(self) -> uvicorn.Server:
        import uvicorn

        from minibrokerd.http.application import application
        from minibrokerd.http.gate import Gate
        from minibrokerd.http.near import Clients
        from minibrokerd.http.recent import Recent
        from minibrokerd.http.survey import Survey
        from minibrokerd.http.talkers import Talkers
        from minibrokerd.http.visitors import FEWER, Visitor, sealed

        class Server(uvicorn.Server):
            """One that leaves the signals of the process alone."""

            @contextmanager
            def capture_signals(self) -> Generator[None, None, None]:
                """Capture none."""
                yield

        subject = self._subject
        gate = Gate(self._options, door=subject.connections.door)
        subject.clients = Clients(subject)
        subject.survey = Survey(subject, can_change=lambda: gate.can_change)
        subject.talkers = Talkers(subject)
        subject.recent = Recent(subject.loop)
        subject.recent.start()
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        logging.getLogger("uvicorn.error").addFilter(FEWER)
        config = uvicorn.Config(
            application(subject, gate),
            loop="none",
            http=Visitor if self._tls is None else sealed(self._tls, subject.loop),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=self._most,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
        config.load()
        return Server(config)


async def _in_thread(make: Callable[[], uvicorn.Server]) -> uvicorn.Server:
    """Call `make` in a thread of its own: that of the loop is for reading back, and may be busy for long."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[uvicorn.Server] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(future.set_result, make())
        except BaseException as error:  # noqa: BLE001 - it is raised in the loop
            tell = partial(future.set_exception, error)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(lambda: future.done() or tell())

    threading.Thread(target=run, name="minibroker-http", daemon=True).start()
    return await future


def is_of_http(error: BaseException | None) -> bool:
    """Whether an error came up in a callback of the HTTP port: then the broker goes on."""
    trace = error.__traceback__ if error is not None else None
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        if module.startswith(FOREIGN):
            return True
        trace = trace.tb_next
    return False
