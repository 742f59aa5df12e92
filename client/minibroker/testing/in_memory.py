"""A broker in memory under a test's hand: its clock, and what goes wrong with it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib import import_module
from itertools import count
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, overload

from minibroker.aio.broker import Broker, connect
from minibroker.aio.callables import Handler
from minibroker.aio.driver import Driver
from minibroker.aio.in_loop import get_running_loop
from minibroker.session.spans import Span, milliseconds
from minibroker.testing.hand import Hand
from minibroker.testing.waiting import Watch
from minibroker.testing.working import working

if TYPE_CHECKING:
    from minibroker.worker.app import App

MOST_MS: Final = 100 * 366 * 86_400_000  # that a clock is moved at once
PATIENCE_S: Final = 1.0
WORK_S: Final = 10.0
BACK_S: Final = 10.0  # within which a client that was cut off is back
OTHERS_BACK_S: Final = 1.0  # how long others are waited for: their loops may stand still
# Of the event loop, without anything that the broker hears of: then nothing is under way.
TURNS: Final = 20
ELSEWHERE: Final = (
    "this MemoryBroker was first used in another event loop: a fixture that uses it and the test must run in one "
    "loop, so give both the same scope (pytest-asyncio: loop_scope), or make a MemoryBroker in each loop"
)
NO_LOOP: Final = "a MemoryBroker is used in an event loop: write the test as async def"
_numbers = count(1)


class MemoryClient(Broker):
    """A client of a broker in this process, for the length of a `with` block.

    It connects by itself, in the event loop of its first call, and `end` ends it as SIGKILL ends a process.
    """

    def __init__(self, inside: Any, url: str, name: str) -> None:
        self._inside = inside
        self._url = url
        self._name = name
        self._client: Broker | None = None

    @property
    def url(self) -> str:
        """What other clients in this process connect to."""
        return self._url

    @property
    def _driver(self) -> Driver:  # type: ignore[override]  # made when it is first asked for
        loop = get_running_loop()
        if loop is None:
            raise RuntimeError(NO_LOOP)
        if self._client is None:
            self._client = connect(self._url, name=self._name).start()
        driver = self._client._driver
        if driver.loop is not loop:
            raise RuntimeError(ELSEWHERE)
        return driver

    async def close(self) -> None:
        """Leave as any client does, waiting for what is under way."""
        if self._client is not None:
            await self._client.close()

    def end(self) -> None:
        """End at once and without a word, as a process that is killed: the broker must notice by itself."""
        if self._client is not None:
            driver = self._client._driver
            if driver.session.session_id is not None:
                self._inside.drop(driver.session.session_id)
            driver.close("it was ended by the test")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    async def __aenter__(self) -> Self:
        await self.ping()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.close()
        self.end()


class MemoryBroker(Hand, MemoryClient):
    """A broker in this process, and a client of it, for the length of a `with` block; its time can stop and jump.

    Others reach it by its `url`. Leaving `async with` waits for what is under way, leaving `with` ends it at once.

    Args:
        name: of the broker, as in memory://name; default: one that no other has.
        stopped: let its time stand still from the start: then nothing is due before `advance`.
    """

    def __init__(self, name: str = "", *, stopped: bool = False) -> None:
        name = name or f"testing-{next(_numbers)}"
        self._inprocess = import_module("minibrokerd.inprocess")
        super().__init__(self._inprocess.make(name), f"memory://{name}", "test")
        if stopped:
            self._inside.stop_clock()

    def client(self, name: str = "client") -> MemoryClient:
        """Return another client of it, under a name of its own: a worker that a test can kill."""
        return MemoryClient(self._inside, self._url, name)

    @overload
    def working(
        self, what: App, *, timeout: Span = WORK_S
    ) -> AbstractAsyncContextManager[None]: ...
    @overload
    def working(
        self, what: str, handler: Handler, *, timeout: Span = WORK_S
    ) -> AbstractAsyncContextManager[None]: ...
    def working(
        self, what: App | str, handler: Handler | None = None, *, timeout: Span = WORK_S
    ) -> AbstractAsyncContextManager[None]:
        """Have handlers work during an `async with` block: those of an App, or `handler` for the queue `what`.

        At the end of the block all that is ready is done; after an error in it, nothing is waited for.

        Args:
            what: a `minibroker.App`, which works as in `minibroker worker`; or the name of a queue.
            handler: what `Queue.run` would call, one message at a time.
            timeout: how long the end of the block may take, in seconds, in real time.

        Raises:
            Timeout: at the end of the block; the text says what was not done.
            what ended the worker, as an error of its lifespan.
        """
        if isinstance(what, str):
            return working(self, self.url, None, what, handler, timeout)
        return working(self, self.url, what, "", None, timeout)

    # ---- time ----

    async def advance(self, by: Span, *, patience: Span = PATIENCE_S) -> None:
        """Let this much time pass for the broker: retries, leases, delays and waits end in their order.

        Whatever becomes due is done at its time, and handlers that get it are waited for before time goes on, for
        `patience` in all: what they do next counts from the moment at which they got it. One that takes longer
        sees time pass. Leases of what runs are renewed on the way, as they would be. Deadlines of calls are in
        real time, so no call ends of this.

        Args:
            by: in seconds, or a timedelta; rounded up to steps of 8 ms, which is how exact a broker's time is.
            patience: how long to wait for handlers, in real time; with 0 they have some turns of the event loop.
        """
        until_ms = self._inside.after(milliseconds("by", by, MOST_MS))
        deadline_s = monotonic() + milliseconds("patience", patience, MOST_MS) / 1000
        with Watch(self._inside.watchers) as watch:
            begun = self._inside.begun  # by whoever calls, and cannot go on before this returns
            more = True
            while more:
                await watch.quiet(TURNS)
                while self._inside.begun > begun and await watch.step(deadline_s - monotonic()):
                    await watch.quiet(TURNS)
                more = self._inside.advance(until_ms)
            await watch.quiet(TURNS)

    # ---- what goes wrong ----

    async def drop_connections(self) -> None:
        """Break all connections to it, as a network does; returns when this client is back."""
        await self._gone(self._inside.drop)

    async def restart(self) -> None:
        """Stop it in good order and start it again, from its log; returns when this client is back."""
        await self._gone(lambda: self._inside.restart(crash=False))

    async def crash(self) -> None:
        """End it as a power cut would: what was not synced is lost. It starts again, and this client is back.

        Then, as after any crash, a queue waits up to 5 s for workers that had taken from it and are not back yet.
        A second of that passes here: the broker's time moves.
        """
        await self._gone(lambda: self._inside.restart(crash=True))
        self._inside.hold_syncs(False)
        await self.advance(1)

    async def _gone(self, end: Any) -> None:
        """End the connections, and wait until this client, and others that go on, are logged in again."""
        driver, inside = self._driver, self._inside
        await self.ping()
        with Watch(inside.watchers) as watch:
            before = inside.sessions()
            end()
            began_s = monotonic()
            while not before <= inside.sessions() and monotonic() < began_s + OTHERS_BACK_S:
                await watch.step(OTHERS_BACK_S)
            while driver.session.session_id not in inside.sessions():
                if not await watch.step(began_s + BACK_S - monotonic()):
                    raise TimeoutError(f"the client is not back after {BACK_S:g} s")
            await watch.quiet(TURNS)

    # ---- the end ----

    def end(self) -> None:
        """End this client, and the broker with all that is in it."""
        super().end()
        self._inprocess.forget(self._url.removeprefix("memory://"))
        self._inside.drop()
