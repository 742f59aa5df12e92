"""`working`: handlers at work for a block of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from minibroker import App, Message, Timeout
from minibroker.testing import MemoryBroker


@dataclass
class Email:
    """A typed body."""

    to: str


async def test_a_function_works_until_the_end_of_the_block(minibroker: MemoryBroker) -> None:
    seen: list[Any] = []

    async def note(message: Message[Any]) -> None:
        seen.append(message.body)

    async with minibroker.working("mail", note):
        await minibroker.queue("mail").publish_many(list(range(50)))
    assert seen == list(range(50))
    await minibroker.queue("mail").publish(b"nobody works any more")
    assert len(await minibroker.queue("mail").receive()) == 1


async def test_an_app_works_as_it_would_in_a_worker(minibroker_clock: MemoryBroker) -> None:
    """Typed bodies, settings, lifespan, retries, dead letters."""
    app = App()
    sent: list[Any] = []

    @app.lifespan
    async def life(app: App) -> AsyncIterator[Any]:
        yield sent

    @app.handler("mail", max_attempts=2, retry_delay_ms=60_000)
    async def send(email: Email) -> None:
        app.state.append(email)
        if email.to == "nobody":
            raise LookupError("no such user")

    async with minibroker_clock.working(app):
        await minibroker_clock.queue("mail").publish({"to": "bob"})
        await minibroker_clock.queue("mail").publish({"to": "nobody"})
        await minibroker_clock.queue("mail").publish({"of": "a wrong shape"})
        await minibroker_clock.advance(3_600)
    assert sent == [Email("bob"), Email("nobody"), Email("nobody")]
    dead = await minibroker_clock.queue("mail.dlq").peek()
    assert {each.history[-1]["error_class"] for each in dead} == {"LookupError", "BodyError"}


async def test_what_is_not_done_in_time_is_said(minibroker: MemoryBroker) -> None:
    async def hang(message: Message[Any]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Timeout, match=r"mail is not done after 0\.1 s: 1 begun"):
        async with minibroker.working("mail", hang, timeout=0.1):
            await minibroker.queue("mail").publish(b"x")


async def test_what_ends_the_worker_ends_the_test(minibroker: MemoryBroker) -> None:
    """Nothing is waited for that will never be done."""
    app = App()

    @app.lifespan
    async def life(app: App) -> AsyncIterator[Any]:
        raise OSError("no database")
        yield

    @app.handler("mail")
    async def send(message: Message[Any]) -> None:
        pass

    await minibroker.queue("mail").publish(b"x")
    with pytest.raises(OSError, match="no database"):
        async with minibroker.working(app):
            pass


async def test_an_error_of_the_block_is_what_the_test_sees(minibroker: MemoryBroker) -> None:
    async def hang(message: Message[Any]) -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        async with minibroker.working("mail", hang):
            await minibroker.queue("mail").publish(b"x")
            raise KeyError("of the test")

    with pytest.raises(KeyError, match="of the test"):
        await fail()
