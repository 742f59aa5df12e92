"""Every way out of a handler: what becomes of its message, and whether `run` goes on."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from fake_server import FakeServer
from steps import consume_one, fill, settle_loop, settled, until

import minibroker
from support.ids import without_address


class HalfMade(Exception):
    """Its text cannot be made."""

    def __str__(self) -> str:
        return self.detail  # type: ignore[attr-defined,no-any-return]


class ExitsInItsText(Exception):
    """Its text ends the process."""

    def __str__(self) -> str:
        raise SystemExit(4)


class Nameless(type):
    """A class of classes that have no name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError


class Liar(Exception, metaclass=Nameless):
    """Its class cannot be read."""

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise ValueError


class Failed(BaseException):
    """As a test framework's."""


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    """Return a group in a group."""
    return BaseExceptionGroup("outer", [BaseExceptionGroup("inner", list(errors))])


# error, what its message is settled with, whether `run` goes on, what the history has of it
WAYS_OUT = [
    (ValueError("no"), "nack", True, b"no"),
    (HalfMade(), "nack", True, b"AttributeError"),
    (ExitsInItsText(), "nack", True, b"could not be made: SystemExit"),
    (Liar("lies"), "nack", True, b"lies"),
    (RecursionError("deep"), "nack", True, b"deep"),
    (MemoryError(), "nack", True, b"MemoryError"),
    (StopAsyncIteration(), "nack", True, b"StopAsyncIteration"),
    (asyncio.CancelledError("a child's"), "nack", True, b"CancelledError"),
    (minibroker.BodyError("unreadable"), "reject", True, b"unreadable"),
    (ExceptionGroup("both", [ValueError("a"), KeyError("b")]), "nack", True, b"ValueError: a"),
    (group(asyncio.CancelledError()), "nack", True, b"CancelledError"),
    (group(ValueError("a"), Failed("stop")), "nack", False, b"Failed: stop"),
    (group(ValueError("a"), KeyboardInterrupt()), "release", False, b""),
    (SystemExit(3), "nack", False, b"SystemExit"),
    (Failed("as a test"), "nack", False, b"as a test"),
    (GeneratorExit(), "nack", False, b"GeneratorExit"),
    (KeyboardInterrupt(), "release", False, b""),
]
IDS = [f"{type.__dict__['__name__'].__get__(type(error))}-{op}" for error, op, *_ in WAYS_OUT]


@pytest.mark.parametrize("plain", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(("error", "op", "goes_on", "told"), WAYS_OUT, ids=IDS)
async def test_each_way_out_settles_and_run_goes_on_or_ends_with_it(
    broker: minibroker.Broker,
    server: FakeServer,
    error: BaseException,
    op: str,
    goes_on: bool,
    told: bytes,
    plain: bool,
) -> None:
    """A slot never ends in silence, and what its handler came to is written before `run` ends."""
    fill(server, 2)
    seen: list[int] = []
    second = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(message: minibroker.Message[Any]) -> None:
        seen.append(message.sequence)
        if len(seen) == 1:
            raise error
        loop.call_soon_threadsafe(second.set)

    async def handle_in_loop(message: minibroker.Message[Any]) -> None:
        handle(message)

    running = asyncio.ensure_future(
        ended_by(broker.queue("q").run(handle if plain else handle_in_loop))
    )
    waiting = asyncio.ensure_future(second.wait())
    await asyncio.wait([running, waiting], timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert second.is_set() == goes_on
    running.cancel()
    waiting.cancel()
    await asyncio.wait([running, waiting])
    assert running.result() is error or (
        goes_on and type(running.result()) is asyncio.CancelledError
    )
    assert settled(server, op)[:1] == [0]
    if told:
        assert any(told in frame for frame in server.frames)


async def ended_by(run: Awaitable[None]) -> BaseException | None:
    """Return what a run ends with: raised in a task, some of it would stop the loop."""
    try:
        await run
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        return error
    return None


async def test_a_cancellation_that_was_asked_for_releases(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    message = await consume_one(broker)

    async def work() -> None:
        async with message.process():
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await settle_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle_loop()
    assert settled(server, "release") == [0]


async def test_a_time_limit_inside_is_a_failure_and_one_around_it_a_cancellation(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    for op in ("nack", "release"):
        message = await consume_one(broker)

        async def work(message: minibroker.Message[Any], op: str) -> None:
            async with asyncio.timeout(0 if op == "release" else None):
                async with message.process(reraise=True):
                    async with asyncio.timeout(0 if op == "nack" else None):
                        await asyncio.Event().wait()

        assert isinstance(await ended_by(work(message, op)), TimeoutError)
        await settle_loop()
        assert settled(server, op) == [message.sequence]


def test_a_block_whose_coroutine_is_closed_settles_without_a_turn(server: FakeServer) -> None:
    """A coroutine that is thrown away gets GeneratorExit, and may await nothing any more."""

    async def main() -> None:
        async with minibroker.connect() as broker:
            fill(server, 1)
            message = await consume_one(broker)

            async def work() -> None:
                async with message.process():
                    await asyncio.Event().wait()

            coroutine = work()
            coroutine.send(None)
            coroutine.close()
            await settle_loop()
            assert settled(server, "nack") == [0]

    asyncio.run(main())


# ---- plain functions ----


async def test_a_plain_function_runs_in_a_thread_with_the_context_of_its_slot(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 3)
    tenant: ContextVar[str] = ContextVar("tenant")
    tenant.set("acme")
    loop_thread, seen = threading.get_ident(), []
    all_in = threading.Barrier(3, timeout=20)  # so three run at a time

    def handle(message: minibroker.Message[Any]) -> None:
        seen.append((threading.get_ident() == loop_thread, tenant.get()))
        all_in.wait()

    running = asyncio.ensure_future(broker.queue("q").run(handle, concurrency=3))
    await until(lambda: len(settled(server, "ack")) == 3)
    running.cancel()
    await asyncio.wait([running])
    assert seen == [(False, "acme")] * 3


async def test_what_a_plain_function_returns_is_awaited(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)

    def handle(message: minibroker.Message[Any]) -> Any:
        return message.reject("never") if message.sequence else asyncio.sleep(0)

    running = asyncio.ensure_future(broker.queue("q").run(handle))
    await until(lambda: bool(settled(server, "ack") and settled(server, "reject")))
    running.cancel()
    await asyncio.wait([running])
    assert (settled(server, "ack"), settled(server, "reject")) == ([0], [1])


@pytest.mark.parametrize("outcome", ["returns", "raises", "goes on"])
async def test_a_thread_whose_run_is_cancelled_twice_is_waited_for(
    server: FakeServer, outcome: str
) -> None:
    """It cannot be stopped: its message is settled as it ends, or released when the deadline passes first."""
    fill(server, 1)
    begun, ends = threading.Event(), threading.Event()

    def handle(message: minibroker.Message[Any]) -> None:
        begun.set()
        assert ends.wait(20)
        if outcome == "raises":
            raise ValueError("late")

    async with minibroker.connect(timeout=0.05 if outcome == "goes on" else 20) as broker:
        running = asyncio.ensure_future(broker.queue("q").run(handle))
        await asyncio.to_thread(begun.wait, 20)
        running.cancel()
        await settle_loop()
        running.cancel()
        await settle_loop()
        if outcome != "goes on":
            ends.set()
        await asyncio.wait([running])
        ends.set()
    expected = {"returns": "ack", "raises": "nack", "goes on": "release"}[outcome]
    assert [op for op, *_ in server.settled if op != "begin"] == [expected]


# ---- what is no handler ----


async def _async_generator(message: Any) -> Any:
    yield message


def _generator(message: Any) -> Any:
    yield message


class _Generates:
    async def __call__(self, message: Any) -> Any:
        yield message


@pytest.mark.parametrize(
    "handler",
    [
        None,
        "print",
        _async_generator,
        _generator,
        functools.partial(_async_generator),
        _Generates(),
        functools.wraps(_async_generator)(lambda message: None),
        lambda: None,
        lambda message, other: None,
    ],
    ids=without_address,
)
async def test_what_can_never_handle_a_message_is_refused_before_one_is_taken(
    broker: minibroker.Broker, server: FakeServer, handler: Any
) -> None:
    fill(server, 1)
    with pytest.raises(TypeError, match="function of one message"):
        await broker.queue("q").run(handler)
    assert server.parts("consume") == []


async def test_a_coroutine_that_was_called_is_refused(broker: minibroker.Broker) -> None:
    async def handle(message: Any = None) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="called already"):
        await broker.queue("q").run(handle())  # type: ignore[arg-type]


class _Handler:
    def __init__(self) -> None:
        self.threads: list[int] = []

    async def __call__(self, message: Any) -> None:
        self.threads.append(threading.get_ident())

    async def method(self, message: Any) -> None:
        await self(message)


def _wrapped(handler: Callable[[Any], Any]) -> Any:
    @functools.wraps(handler)
    def call(message: Any) -> Any:
        return handler(message)

    return call


@pytest.mark.parametrize("form", ["object", "method", "partial", "wrapped", "wrapped partial"])
async def test_a_coroutine_function_in_any_form_runs_in_the_loop(
    broker: minibroker.Broker, server: FakeServer, form: str
) -> None:
    fill(server, 1)
    handler = _Handler()
    forms = {
        "object": handler,
        "method": handler.method,
        "partial": functools.partial(handler.method),
        "wrapped": _wrapped(handler.method),
        "wrapped partial": functools.partial(_wrapped(handler.method)),
    }
    running = asyncio.ensure_future(broker.queue("q").run(forms[form]))
    await until(lambda: bool(settled(server, "ack")))
    running.cancel()
    await asyncio.wait([running])
    assert handler.threads == [threading.get_ident()]
