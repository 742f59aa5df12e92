"""Errors of which something cannot be read: they are failures as any other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_server import FakeServer
from steps import fill, settle_loop, settled

import minibroker
from minibroker.contract import limits
from minibroker.session.error_text import describe


def odd_errors() -> list[BaseException]:
    """Return errors of which something cannot be read."""

    class Raises(Exception):
        def __str__(self) -> str:
            return self.detail  # type: ignore[attr-defined, no-any-return]

    class Exits(Exception):
        def __str__(self) -> str:
            raise SystemExit(3)

    class NoStr(Exception):
        def __str__(self) -> Any:
            return 7

    class Recurses(Exception):
        def __str__(self) -> str:
            return str(self)

    class SubStr(str):
        __slots__ = ()

        def encode(self, *_: Any, **__: Any) -> bytes:
            raise ValueError

        def __len__(self) -> int:
            raise ValueError

    class Subclassed(Exception):
        def __str__(self) -> str:
            return SubStr("fine")

    class Nameless(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise ValueError

    class Unnamed(Exception, metaclass=Nameless):
        pass

    class Faceless(Exception):
        @property  # type: ignore[misc]
        def __class__(self) -> Any:  # type: ignore[override]
            raise ValueError

        @property
        def __traceback__(self) -> Any:  # type: ignore[override]
            raise ValueError

        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            raise ValueError

    odd = [
        Raises(),
        Exits(),
        NoStr(),
        Recurses(),
        Subclassed(),
        Unnamed("x"),
        Faceless("x"),
    ]
    return [*odd, *noted_errors(Raises()), RecursionError("deep"), MemoryError()]


def noted_errors(inner: Exception) -> list[BaseException]:
    """Return errors whose notes, or parts, cannot be read."""

    class Noted(Exception):
        @property
        def __notes__(self) -> Any:  # type: ignore[override]
            raise MemoryError

    class Grouped(ExceptionGroup[Exception]):
        exceptions = property(lambda self: 1 / 0)  # type: ignore[assignment]

    class NotedExit(Exception):
        @property
        def __notes__(self) -> Any:  # type: ignore[override]
            raise SystemExit(3)

    return [NotedExit("x"), Noted("x"), Grouped("x", [inner])]


ODD = 12  # how many there are; pytest cannot look at each of them


@pytest.mark.parametrize("number", range(ODD))
def test_nothing_that_an_error_does_stops_its_text(number: int) -> None:
    assert len(odd_errors()) == ODD
    name, text = describe(odd_errors()[number])
    assert 0 < len(name) <= limits.MAX_ERROR_CLASS_BYTES
    assert len(text) <= limits.MAX_ERROR_TEXT_BYTES
    name.decode(), text.decode()


@pytest.mark.parametrize("number", range(ODD))
async def test_a_slot_goes_on_after_any_of_them(
    broker: minibroker.Broker, server: FakeServer, number: int
) -> None:
    fill(server, 1)
    done = asyncio.Event()
    odd = odd_errors()[number : number + 1]

    async def handler(message: minibroker.Message[Any]) -> None:
        if odd:
            raise odd.pop()
        done.set()

    work = asyncio.ensure_future(broker.queue("q").run(handler))
    await asyncio.wait(
        [work, asyncio.ensure_future(done.wait())], timeout=10, return_when="FIRST_COMPLETED"
    )
    await settle_loop()
    assert (settled(server, "nack"), settled(server, "ack")) == ([0], [0])
    work.cancel()
    await asyncio.wait([work])


async def test_a_cancellation_of_a_lost_handler_that_it_swallowed_is_taken_back(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Else the next CancelledError of its slot would count as asked for."""
    fill(server, 1)
    [message] = await broker.queue("q").receive(1)
    task = asyncio.current_task()
    assert task is not None
    for error in (None, ValueError("while cleaning up")):
        message.lost = False
        async with message.process():
            broker._driver.lose([message], minibroker.LeaseLost("gone"))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if error is not None:
                    raise error from None
        assert task.cancelling() == 0
