"""What an application may hand to `@app.handler`, and what it says of the queue: with a broker in memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import minibroker
from minibroker.testing import MemoryBroker


def _blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """As applications make a `def` of an `async def`."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return asyncio.run(function(*args))

    return call


def _returning(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


@_blocking
async def run_inside(body: int) -> None:
    """Run in a loop of the thread's, or the process's, own."""
    await asyncio.sleep(0)
    assert body == 1, "reached"


@_returning
async def returned(body: int) -> None:
    """Returned as a coroutine by a `def`."""
    await asyncio.sleep(0)
    assert body == 1, "reached"


class _Office:
    def post(self, body: int) -> None:
        """Never called with an office in another process."""


async def _worked(app: minibroker.App, *bodies: int, **settings: int) -> tuple[int, list[Any]]:
    """Return how many messages were acked, and what of them is dead, by the text of the error."""
    async with MemoryBroker() as broker:
        queue = broker.queue("q")
        async with broker.working(app, timeout=30):
            for body in bodies:
                await queue.publish(body, max_attempts=1)
        stats = (await broker.stats())["queues"]["q"]
        dead = await broker.queue("q.dlq").peek() if stats["dead_lettered"] else ()
        return stats["acked"], [one.history[-1] for one in dead]


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("function", [run_inside, returned])
async def test_a_def_around_an_async_def_runs_where_it_is_told(
    function: Callable[..., Any], executor: str
) -> None:
    """The second message shows that its work is done: it fails."""
    app = minibroker.App()
    app.handler("q", executor=executor)(function)
    acked, (dead,) = await _worked(app, 1, 2)
    assert acked == 1
    assert dead["error_text"].startswith("reached")


def test_an_async_def_itself_is_refused_in_threads() -> None:
    async def handler(body: int) -> None:
        """Never called."""

    with pytest.raises(TypeError, match="runs in the loop"):
        minibroker.App().handler("q", executor="thread")(handler)


def test_a_method_of_an_object_is_refused_in_a_process() -> None:
    """By its name there is only the function, which would have the message for an object."""
    with pytest.raises(TypeError, match="at the top of its module"):
        minibroker.App().handler("q", executor="process")(_Office().post)


async def test_a_handler_that_goes_on_after_its_timeout_has_failed() -> None:
    app = minibroker.App()

    @app.handler("q", timeout=0.02)
    async def handler(body: int) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    acked, (dead,) = await _worked(app, 1)
    assert acked == 0
    assert dead["error_class"] == "HandlerTimeout"


async def test_a_timeout_in_a_thread_names_the_place_where_it_struck() -> None:
    app = minibroker.App()
    is_over = threading.Event()

    @app.handler("q", timeout=0.02)
    def busy(body: int) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until and not is_over.is_set():
            pass

    acked, (dead,) = await _worked(app, 1)
    is_over.set()
    assert acked == 0
    assert "in busy)" in dead["error_text"]


async def test_a_cancellation_that_nobody_asked_for_is_told_as_any_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = minibroker.App()

    @app.handler("q")
    async def handler(body: int) -> None:
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    acked, (dead,) = await _worked(app, 1)
    assert (acked, dead["error_class"]) == (0, "CancelledError")
    assert "attempt 1 of 1, to q.dlq" in caplog.text


@pytest.mark.parametrize(("overwrite", "has"), [(False, 5), (True, 2)])
async def test_a_queue_that_is_there_has_the_settings_of_its_handler_only_if_asked(
    overwrite: bool, has: int
) -> None:
    app = minibroker.App()

    @app.handler("q", max_attempts=2, overwrite=overwrite)
    async def handler(body: int) -> None:
        """Do nothing."""

    async with MemoryBroker() as broker:
        await broker.queue("q").set(max_attempts=5)
        async with broker.working(app):
            pass
        assert (await broker.queue("q").settings())["max_attempts"] == has
