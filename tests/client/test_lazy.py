"""A lazy broker of asyncio: made where no loop runs, or no server; it belongs to the loop of its first call."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import minibroker
import minibroker.sync
from support.broker import BrokerServer

# What an application has at the head of a module; each test makes its own.
Module = tuple[minibroker.LazyBroker, minibroker.Queue[Any]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """One broker for those who kill none."""
    server = BrokerServer(tmp_path_factory.mktemp("lazy") / "data")
    yield server
    server.close()


@pytest.fixture
def module(shared: BrokerServer) -> Iterator[Module]:
    """The head of a module."""
    broker = minibroker.connect(shared.url, lazy=True, timeout=20)
    yield broker, broker.queue("emails", max_attempts=3)
    with minibroker.sync.connect(shared.url) as other:
        other.queue("emails", max_attempts=3).purge()


def run(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Await them one after the other in an event loop of their own, and end that."""

    async def main() -> list[object]:
        return [await call() for call in calls]

    return asyncio.run(main())


def test_it_connects_at_its_first_call(module: Module) -> None:
    broker, emails = module
    confirm, settings, _ = run(lambda: emails.publish(b"x"), emails.settings, broker.close)
    assert isinstance(confirm, minibroker.Confirm)
    assert isinstance(settings, dict)
    assert settings["max_attempts"] == 3, "it was declared before anything else was asked for"


@pytest.mark.parametrize("first", ["enter", "publish", "publish_many", "receive", "consume", "run"])
def test_whatever_the_first_call_is(module: Module, first: str) -> None:
    broker, emails = module

    async def main() -> None:
        if first == "enter":
            async with broker:
                pass
            return
        if first == "publish_many":
            assert len(await emails.publish_many([b"x"] * 600)) == 600
        elif first == "receive":
            assert await emails.receive() == []
        elif first == "consume":
            async with emails.consume():
                pass
        elif first == "run":
            task = asyncio.create_task(emails.run(lambda message: None))
            await emails.publish(b"x")
            await emails.join(timeout=20)
            task.cancel()
        else:
            assert (await emails.publish({"a": 1}, key="k")).durability == "sync"
        await broker.close()

    asyncio.run(main())


def test_an_iteration_may_be_the_first_call(module: Module) -> None:
    broker, emails = module
    run(lambda: emails.publish(b"x"), broker.close)

    async def main() -> None:
        async with broker:
            async for message in emails.consume():
                await message.ack(confirmed=True)
                return

    asyncio.run(main())


def test_another_loop_is_told_so(module: Module) -> None:
    broker, emails = module
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(emails.publish(b"x"))
        for call in (lambda: emails.publish(b"y"), broker.ping, broker.__aenter__, broker.close):
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                second.run(call())
        first.run(emails.publish(b"x"))
        assert len(first.run(emails.receive(9))) == 2
        first.run(broker.close())


def test_where_no_loop_runs_it_says_what_to_do(module: Module) -> None:
    broker, emails = module
    for call in (emails.publish(b"x"), broker.ping(), broker.__aenter__()):
        with pytest.raises(RuntimeError, match=r"use minibroker\.sync"):
            call.send(None)
    with pytest.raises(RuntimeError, match=r"use minibroker\.sync"):
        minibroker.connect().__await__().send(None)


def test_it_may_be_closed_unused_and_is_then_closed(module: Module) -> None:
    broker, emails = module
    run(broker.close)
    with pytest.raises(minibroker.Closed):
        run(lambda: emails.publish(b"x"))


@pytest.mark.parametrize("size", [1, 2_000])
def test_it_may_be_entered_again_in_another_loop(module: Module, size: int) -> None:
    """As where each test begins the application anew."""
    broker, emails = module

    async def lifespan() -> None:
        async with broker as same:
            assert same is broker
            await asyncio.gather(*(emails.publish(b"x") for _ in range(size)))

    for _ in range(3):
        asyncio.run(lifespan())

    async def count() -> int:
        async with broker:
            ready: int = (await emails.stats())["queues"]["emails"]["ready"]
            return ready

    assert asyncio.run(count()) == 3 * size


# The sockets of a loop that is over cannot be closed any more; Python says so, as of any connection left open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_goes_on_in_the_next_loop_when_one_is_over(
    broker_server: BrokerServer,
) -> None:
    """Nobody closed it: `asyncio.run` again and again, in a script or a test."""
    broker = minibroker.connect(broker_server.url, lazy=True, timeout=20)
    emails = broker.queue("emails")
    for number in range(3):
        run(lambda: emails.publish(b"x"), lambda: emails.publish(b"y", key="k"))
        if number == 1:  # a call that found nobody leaves nothing that the next loop trips over
            broker_server.kill()
            with pytest.raises(minibroker.NotSent):
                run(lambda: emails.publish(b"z", timeout=0.3))
            with pytest.raises(TimeoutError):
                run(lambda: asyncio.wait_for(emails.publish(b"z"), 0.1))
            broker_server.restart()
    messages, _ = run(lambda: emails.receive(9), broker.close)
    assert isinstance(messages, list)
    assert len(messages) == 6
    gc.collect()


def test_a_child_of_a_fork_connects_by_itself(module: Module) -> None:
    """Before the fork it was not used (preloaded by gunicorn), or was."""
    broker, emails = module
    with asyncio.Runner() as runner:
        for _ in range(2):
            if (child := os.fork()) == 0:
                try:
                    run(lambda: emails.publish(b"child"), broker.close)
                    os._exit(0)
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            runner.run(emails.publish(b"parent"))
        messages = runner.run(emails.receive(9))
        runner.run(broker.close())
    assert sorted(message.body for message in messages) == [b"child"] * 2 + [b"parent"] * 2


def test_an_application_starts_while_the_broker_is_away(
    broker_server: BrokerServer,
) -> None:
    """The one of docs/guide/fastapi.md: requests wait for it, each within its deadline."""
    broker = minibroker.connect(broker_server.url, lazy=True, timeout=20)
    emails = broker.queue("emails", max_attempts=3)
    broker_server.kill()

    async def serve() -> tuple[minibroker.Confirm, object]:
        async with broker:  # the lifespan
            with pytest.raises(minibroker.NotSent):
                await emails.publish({"to": "ada@example.com"}, timeout=0.2)
            waits = asyncio.create_task(emails.publish({"to": "bob@example.com"}))
            await asyncio.to_thread(broker_server.restart)
            return await waits, (await emails.settings())["max_attempts"]

    confirm, most = asyncio.run(serve())
    assert (confirm.durability, most) == ("sync", 3)
