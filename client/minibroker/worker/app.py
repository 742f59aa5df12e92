"""What an application writes: one `App`, a handler for each queue, what lives as long as the worker."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast

from minibroker.aio.message import Message
from minibroker.session.log_wishes import Start
from minibroker.session.spans import Span, of_type
from minibroker.worker.declared import Declared, declare
from minibroker.worker.recurring import Scheduled, check_schedule

Function = TypeVar("Function", bound=Callable[..., Any])
Middleware = Callable[[Message[Any]], AbstractAsyncContextManager[Any, Any]]
Lifespan = Callable[["App"], AbstractAsyncContextManager[Any, Any]]


class App:
    """Handlers of queues, for `minibroker worker module:app`.

        app = minibroker.App("minibroker://localhost:7272")

        @app.handler("emails", concurrency=8, timeout=60)
        async def send(email: Email) -> None:
            await app.state.mailer.send(email)

    `url` and `connection` are those of `minibroker.connect`. `state` is what the lifespan yielded. `owner` names
    the application: schedules of the same owner that its code has no more are deleted at the start of a worker.
    """

    def __init__(self, url: str | None = None, *, owner: str = "", **connection: Any) -> None:
        of_type("owner", owner, str, "a str")
        self.url = url
        self.owner = owner
        self.connection = connection
        self.state: Any = None
        self.handlers: list[Declared] = []
        self.schedules: list[Scheduled] = []
        self.middlewares: list[Middleware] = []
        self.life: Lifespan | None = None

    def handler(
        self,
        queue: str,
        *,
        concurrency: int = 1,
        timeout: Span | None = None,
        lease: Span | None = None,
        executor: str | None = None,
        overwrite: bool = False,
        start: Start | None = None,
        **settings: int | str,
    ) -> Callable[[Function], Function]:
        """Declare a function as the handler of a queue; the function itself stays what it is.

        Args:
            queue: its name; one handler each.
            concurrency: messages at a time, in each worker process.
            timeout: seconds that a message may take; then it has failed. An async handler is cancelled, a
                process killed, a thread gets the error at its next step in Python.
            lease: as for `Queue.consume`; it is renewed while the handler runs.
            executor: for `def`: "thread" (the default) or "process", which imports its module again; there
                the message has its values, `progress`, `extend` and `step`, and what the lifespan yields stays in
                the worker. In a thread the verbs are those of `minibroker.sync.Message`. A `def` that wraps an
                `async def` counts as that one, unless told otherwise here.
            overwrite: change the settings of a queue that is there, as `Broker.queue` does.
            start: of a group of a retained log ("events@audit"): the worker makes the group at its start, as
                `RetainedLog.declare_group` does; one that is there stays where it is.
            settings: of the queue, as for `Queue.set`: max_attempts, retry_delay_ms, ...

        Raises:
            TypeError, ValueError, BadValue: it can never work; says why.
        """

        def add(function: Function) -> Function:
            declared = declare(
                function, queue, concurrency, timeout, lease, executor, settings, overwrite, start
            )
            if any(each.queue == queue for each in self.handlers):
                raise ValueError(f"the queue {queue!r} has a handler already")
            self.handlers.append(declared)
            return function

        return add

    def schedule(
        self,
        cron: str,
        body: Any = None,
        *,
        name: str = "",
        queue: str = "",
        zone: str = "UTC",
        misfire: str = "once",
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        ttl: Span | None = None,
        unique_key: str | None = None,
        unique: str = "drop",
    ) -> Callable[[Function], Function]:
        """Declare a schedule: the server publishes a message for a handler whenever a calendar is due.

            @app.schedule("0 3 * * *", zone="Europe/Berlin")
            @app.handler("reports")
            async def report(message): ...

        The worker sets it at its start, as `broker.schedules.set` does: one that is so already is not touched, and
        a pause stays. It needs the right to publish to the queue. One that is taken out of the code stays in the
        server, until `minibroker schedule delete NAME`; with `App(owner="shop")` the next worker that starts
        without --queues deletes it.

        Args:
            cron, body, zone, misfire, headers, ...: as for `broker.schedules.set`.
            name: of the schedule in the whole server; empty: the queue and the function, as "reports.report".
            queue: where it is published; empty: the queue that the function handles.

        Raises:
            TypeError, BadValue, TooLarge: no such schedule can be.
        """
        how = {
            "zone": zone,
            "misfire": misfire,
            "headers": headers,
            "key": key,
            "delay": delay,
            "max_attempts": max_attempts,
            "lease": lease,
            "priority": priority,
            "ttl": ttl,
            "unique_key": unique_key,
            "unique": unique,
        }

        check_schedule(cron, name, queue, body, how)

        def add(function: Function) -> Function:
            self.schedules.append(Scheduled(function, cron, name, queue, body, how))
            return function

        return add

    def lifespan(self, function: Callable[..., AsyncIterator[Any]]) -> Callable[..., Any]:
        """Declare an async generator function of the app as what surrounds the work.

            @app.lifespan
            async def life(app):
                async with httpx.AsyncClient() as client:
                    yield client

        What it yields is `app.state`. It ends after the last handler has.
        """
        self.life = cast(Lifespan, _manager(function))
        return function

    def middleware(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare what surrounds each handler: an async generator function of the message, or a context manager.

        The first one declared is the outermost. An error of the handler is raised at the `yield`; what leaves it
        is what counts.
        """
        self.middlewares.append(cast(Middleware, _manager(function)))
        return function


def _manager(function: Callable[..., Any]) -> Callable[..., Any]:
    return asynccontextmanager(function) if inspect.isasyncgenfunction(function) else function
