"""`connect`, and the broker that it opens."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import ConnectionLost
from minibroker.session import exchange_wishes, explanation, pause_wishes
from minibroker.session.arguments import MAX_RUN, Access, never_opened, options_of
from minibroker.session.declaring import checked
from minibroker.session.exchange_wishes import ExchangeInfo
from minibroker.session.explanation import Explanation
from minibroker.session.json_schema import JsonSchema
from minibroker.session.pause_wishes import Pause
from minibroker.session.result_wish import Progress
from minibroker.session.spans import Span
from minibroker.session.typed import UNTYPED
from minibroker.session.wishes import Wish, check_name, temporary, timeout_ms
from minibroker.shell.monotonic import now_ms
from minibroker.shell.telling import Hook, logger
from minibroker.sync.asking_results import result_of
from minibroker.sync.atomic_step import Step
from minibroker.sync.driver import Driver
from minibroker.sync.exchange import Exchange
from minibroker.sync.queue import Queue
from minibroker.sync.queue_policies import Policies
from minibroker.sync.retained_log import RetainedLog
from minibroker.sync.schedules import Schedules
from minibroker.sync.temporary import TemporaryQueue
from minibroker.sync.traced import TracedExchange, is_traced, traced_queue
from minibroker.sync.typed_queue import TypedQueue

Body = TypeVar("Body")


class Broker:
    """An open session with a server; it reconnects by itself. Made by `connect`. All threads may share it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    @property
    def server_version(self) -> str:
        """The version of the server, as it said at the last login."""
        return self._driver.session.server_version

    @overload
    def queue(
        self,
        name: str,
        body_type: JsonSchema | None = None,
        *,
        overwrite: bool = False,
        exclusive: bool = False,
        **settings: int | str,
    ) -> Queue[Any]: ...
    @overload
    def queue(
        self,
        name: str,
        body_type: type[Body],
        *,
        overwrite: bool = False,
        exclusive: bool = False,
        **settings: int | str,
    ) -> Queue[Body]: ...
    def queue(
        self,
        name: str,
        body_type: type[Any] | JsonSchema | None = None,
        *,
        overwrite: bool = False,
        exclusive: bool = False,
        **settings: int | str,
    ) -> Queue[Any]:
        """Return the queue called `name`; asks nothing of the server, unless it is to have settings.

            emails = broker.queue("emails", max_attempts=3, durability="lazy")

        Args:
            name: of the queue.
            body_type: what its bodies are: a dataclass, msgspec.Struct, TypedDict, pydantic model, or a type out
                of these and what a plain body may hold. A publish is checked against it before anything is sent,
                `message.body` is made into it, and type checkers know. None, Any, bytes: nothing is made.
                Or a `JsonSchema`: what does not fit raises SchemaMismatch before anything is sent.
            overwrite: change the settings of a queue that is there, now and at every reconnect.
            exclusive: it is made for this connection's session alone, and ends with it: everybody may publish
                to it, nobody else takes from it (docs/guide/for-one.md). Where another session has one of this
                name, that is a warning in the log, and `Queue.declared` raises ExclusiveQueue.
            settings: as for `Queue.set`. The queue is made with them if it is not there, before anything else is
                asked for it, on every connection. One that came by its use, as by a publish, gets them, too. One
                whose settings somebody chose stays as it is: what differs is a warning in the log and stands in
                `Queue.differs`; `Queue.declared` raises it.

        Raises:
            TypeError: no body can be of such a type.
            BadValue: an unknown setting, one outside its range, or another part of this program declares another
                value; nothing was sent.
        """
        declaration = None
        if settings or exclusive:
            settings = checked(settings)
            declaration = self._driver.declare(
                check_name(name), settings, overwrite=overwrite, exclusive=exclusive
            )
        if is_traced(self._driver):
            return traced_queue(self._driver, name, declaration, body_type)
        if body_type in UNTYPED:
            return Queue(self._driver, name, declaration)
        return TypedQueue(self._driver, name, declaration, body_type)

    @overload
    def temporary_queue(
        self, body_type: None = None, *, timeout: Span | None = None, **settings: int | str
    ) -> TemporaryQueue[Any]: ...
    @overload
    def temporary_queue(
        self, body_type: type[Body], *, timeout: Span | None = None, **settings: int | str
    ) -> TemporaryQueue[Body]: ...
    def temporary_queue(
        self,
        body_type: type[Any] | None = None,
        *,
        timeout: Span | None = None,
        **settings: int | str,
    ) -> TemporaryQueue[Any]:
        """Return a context manager: in its block there is a queue of this session alone, which the server names.

            with broker.temporary_queue() as mine:
                exchange.bind(mine, "kern.#")
                with mine.consume() as messages: ...

        It ends with its block, or with the session: then what is asked of it raises UnknownQueue. A lost
        connection, or a restart of the server, ends nothing if it is back within a minute.

        Args:
            body_type, settings: as for `Broker.queue`. With durability="memory" nothing of it is on the disk.
            timeout: deadline of making it, and of ending it.

        Raises:
            TypeError, BadValue: as `queue`, at once.
            NotAllowed: the token is not for the names that the server gives, `gen-*`.
        """
        named = partial(self.queue, body_type=body_type)
        return TemporaryQueue(self._driver, named, temporary(settings), timeout)

    @property
    def schedules(self) -> Schedules:
        """The schedules of the server: jobs that it publishes by a calendar."""
        return Schedules(self._driver)

    @property
    def policies(self) -> Policies:
        """The policies of the server: settings of queues by patterns of their names, and limits."""
        return Policies(self._driver)

    def exchange(self, name: str) -> Exchange:
        """Return the exchange called `name`; asks nothing of the server. TypeError, BadName if it is no name."""
        name = exchange_wishes.check_name(name)
        if is_traced(self._driver):
            return TracedExchange(self._driver, name)
        return Exchange(self._driver, name)

    def log(self, name: str) -> RetainedLog:
        """Return the retained log called `name`; asks nothing of the server. TypeError, BadName if it is none."""
        return RetainedLog(self._driver, check_name(name))

    def exchanges(self, *, timeout: Span | None = None) -> list[ExchangeInfo]:
        """Return all exchanges, by their names; of very many they are asked for page by page."""
        by_ms = now_ms() + timeout_ms(timeout, self._driver.timeout_ms)
        found: list[ExchangeInfo] = []
        after: str | None = ""
        while after is not None:
            left_s = max(0, by_ms - now_ms()) / 1_000
            page = self._ask(left_s, exchange_wishes.page(after))
            found += exchange_wishes.read_page(page)
            after = page.get("next")
        return found

    def step(self, *, timeout: Span | None = None) -> Step:
        """Return a context manager: what is said in its block happens at its end, all of it or nothing.

            with broker.step() as step:
                step.ack(message)
                step.publish("mails", {"to": "bob@example.com"})
                step.publish("audit", b"ordered")

        `timeout` is the deadline of its end, that of the connection by default; see `Message.step`, too.
        """
        return Step(self._driver, timeout)

    def stats(self, *, timeout: Span | None = None) -> dict[str, Any]:
        """Return the counters of the server and of all queues; of very many they are asked for page by page."""
        driver = self._driver
        by_ms = now_ms() + timeout_ms(timeout, driver.timeout_ms)
        value: dict[str, Any] = {"queues": {}}
        after: int | None = 0
        while after is not None:
            fields = {"queue": "", "after": after}
            page = driver.request("stats", fields, max(0, by_ms - now_ms()))
            value["queues"] |= page["queues"]
            value["server"] = page["server"]
            after = page.get("next")
        return value

    def result(
        self,
        id: MessageId,
        *,
        result_type: Any = None,
        on_progress: Callable[[Progress], object] | None = None,
        wait: Span | None = None,
        timeout: Span | None = None,
    ) -> Any:
        """Return what a message came to, whichever queue it is of, as `Queue.result` does."""
        return result_of(self._driver, "", id, result_type, on_progress, wait, timeout)

    def explain(self, id: MessageId, *, timeout: Span | None = None) -> Explanation:
        """Return why a message is not running, whichever queue it is in, as `Queue.explain` does."""
        driver = self._driver
        op, fields, columns = explanation.explain("", id)
        within_ms = timeout_ms(timeout, driver.timeout_ms)
        return explanation.read(id, driver.request(op, fields, within_ms, columns))

    def pause_workers(
        self,
        name: str = "",
        *,
        below: str = "",
        for_: Span | None = None,
        until: datetime | None = None,
        deadline: Span | None = None,
        timeout: Span | None = None,
    ) -> Pause:
        """Let workers get nothing more: those whose connections have this `name`, or a version below one.

        What they have in hand stays theirs until it ends, or until the `deadline` (in seconds): then it goes back,
        uncharged, to others, and they are told as of a cancel. `in_hand` says how much that is, `clients` how many
        they are. Those that come later get nothing either, until `resume_workers`, or the end of the pause. Who
        says no version (`connect(version=)`) is below each.

        Raises:
            TypeError, BadValue: it is about nobody in particular, `below` is no version, or both ends are given.
            NotAllowed: the token is not for every queue.
        """
        wish = pause_wishes.pause_workers(name, below, for_, until, deadline)
        return pause_wishes.read(self._ask(timeout, wish))

    def resume_workers(self, name: str = "", *, timeout: Span | None = None) -> bool:
        """Let workers go on that were paused under this name; return whether they were."""
        wish = pause_wishes.resume_workers(name)
        return bool((self._ask(timeout, wish))["resumed"])

    def pauses(self, *, timeout: Span | None = None) -> list[Pause]:
        """Return what is paused: queues, and workers."""
        return pause_wishes.read_all(self._ask(timeout, pause_wishes.all_pauses()))

    def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return self._driver.request(op, fields, within_ms, columns)

    def ping(self, *, timeout: Span | None = None) -> None:
        """Return when the server has given a sign of life; Timeout if it does not."""
        driver = self._driver
        driver.request("ping", {}, timeout_ms(timeout, driver.timeout_ms))

    def close(self) -> None:
        """Leave: within one deadline, that of the connection, whatever there is to wait for.

        Runs take nothing new, and their handlers are waited for; what has not begun goes back; what is unconfirmed
        is waited for. In a child of a fork this closes what the child has opened; the parent's connection goes on.
        """
        driver = self._driver
        if driver.machine.closed is not None:
            return
        try:
            driver.leave_all()
        finally:
            driver.close("the connection was closed by this program")

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Connect for the first time; ConnectionLost or LoginRefused when that fails."""
        try:
            self._driver.open()
        except TimeoutError as error:
            trouble = self._driver.machine.trouble
            self._driver.close("the connection was never opened")
            raise ConnectionLost(never_opened(self._driver.options.where, trouble)) from error
        except BaseException:
            self._driver.close("the connection was never opened")
            raise


def connect(
    url: str | None = None,
    *,
    name: str | None = None,
    timeout: Span = 30,
    connect_timeout: Span = 10,
    max_run: Span = MAX_RUN,
    lazy: bool = False,
    on_settle_error: Hook | None = None,
    token: str | None = None,
    ca: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    server_name: str | None = None,
    tracing: str | None = None,
    version: str | None = None,
) -> Broker:
    """Open a session with the server at `url` (minibroker://host:port), or with a broker in this process.

    minibrokers://host:port is the same with TLS: the server must have a certificate for this host that is
    trusted here.

    `memory://` is a broker of this connection's own, `memory://name` one for all of this process that say so, in
    asyncio too. Nothing of it is written to a disk: it is for tests, and for trying things out.

    Args:
        url: minibroker://host:port or memory://name; of several brokers, of which one leads at a time,
            minibroker://a,b:7273,c (docs/guide/cluster.md). None: the environment variable MINIBROKER_URL, or
            where `minibroker serve` would listen here (MINIBROKER_HOST, MINIBROKER_PORT; by default port 7272
            of this machine).
        name: of this client, in the server's logs and in message histories; default: the host's name.
        timeout: deadline of every call that names none, in seconds: of all that it waits for, also a server that
            is away.
        connect_timeout: how long to try before giving up; later it reconnects for as long as it is open.
        max_run: leases are renewed for this long, so that no hung handler holds a message for ever.
        lazy: do not connect before the first call, which waits within its own deadline. So an application starts
            without a server, and a process that forks opens nothing before.
        on_settle_error: called with (message, error) when a settlement is refused or a lease is lost.
        token: for a server that asks for one. None: the password in the url, MINIBROKER_TOKEN, or what the file
            MINIBROKER_TOKEN_FILE holds, which is read at each login. It is worth as much as what it opens: better
            not in the code.
        ca: path of a PEM file with the CAs that may have signed the server's certificate, for minibrokers://.
            None: `?ca=` of the url, MINIBROKER_CA, or those of the system. So are the next three.
        client_cert, client_key: paths of the certificate of this client and its key, for a server that asks for it
            (`?client_cert=`, MINIBROKER_CLIENT_CERT; the key may be in the same file).
        server_name: what the server's certificate must be for, if that is not the host of the url
            (`?server_name=`, MINIBROKER_SERVER_NAME).
        tracing: OpenTelemetry's spans and metrics, with the extra `otel` (docs/guide/tracing.md). "auto": if the
            program has set up a provider by the time it asks for a queue; what is current where a message is
            processed is the parent of that, else its producer. "link": producers are linked to, never parents.
            "parent": they always are. "off". None: MINIBROKER_TRACING, or "auto".
        version: of the application, numbers with dots: so that workers below one can be paused for a deployment
            (docs/guide/pause.md). None: MINIBROKER_APP_VERSION, or none.

    Raises:
        TypeError, BadValue: an argument is of a wrong type, or outside its range.
        ValueError: the url is not of that form, or asks for what this version cannot do; MINIBROKER_PORT
            is no port; or a file for TLS cannot be read.
        ConnectionLost, LoginRefused: unless `lazy`.
    """
    timeouts = (timeout, connect_timeout, max_run)
    access = Access(token, ca, client_cert, client_key, server_name)
    hook, host, world = on_settle_error, socket.gethostname(), os.environ
    options = options_of(url, name, timeouts, hook, lazy, world, host, access, tracing, version)
    if options.warning:
        logger.warning(options.warning)
    broker = Broker(Driver(options))
    if not lazy:
        broker._open()
    return broker
