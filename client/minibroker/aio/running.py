"""`Queue.run`: slots that take one message after the other and call the handler for each.

A slot ends when the consumer does, or with an error that is more than a failure of its handler (ways_out.py). It
is kept, not raised in the slot's task: SystemExit and KeyboardInterrupt out of a task stop the event loop at once,
and the settlements that others have made would not be written. `run` raises it when everything else has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from minibroker.aio.callables import Call, Handler, Handlers
from minibroker.aio.consumer import Consumer, leave
from minibroker.aio.driver import Driver
from minibroker.session.pacing import Pacing
from minibroker.session.typed import Convert

Slot = asyncio.Task[BaseException | None]


async def run_slots(
    driver: Driver,
    queue: str,
    handler: Handler,
    concurrency: int,
    prefetch: tuple[int, Pacing | None],
    lease_ms: int,
    convert: Convert | None = None,
) -> None:
    """Consume `queue` and call `handler` for each message, until cancelled; as `Queue.run` says."""
    handlers = Handlers(handler, concurrency, queue, driver.timeout_ms / 1000)
    try:
        driver.check_open()
        consumer: Consumer[Any] = Consumer(driver, queue, prefetch, lease_ms, convert)
        await consumer.start()
        slots = [
            driver.loop.create_task(_take_and_call(consumer, handlers.call))
            for _ in range(concurrency)
        ]
        driver.runs[consumer] = slots
        try:
            await _first_error(slots)
        finally:
            await _end(driver, consumer, slots)
    finally:
        handlers.close()


async def _take_and_call(consumer: Consumer[Any], call: Call) -> BaseException | None:
    try:
        async for message in consumer:
            async with message.process():
                value = await call(message)
                if value is not None:
                    await message.returned(value)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - raised by `run`: see the head of this module
        return error
    return None


async def _first_error(slots: Sequence[Slot]) -> None:
    """Wait for the slots, which end together: when the consumer does, or when one of them has met an error."""
    done, _ = await asyncio.wait(slots, return_when=asyncio.FIRST_COMPLETED)
    for slot in done:
        error = slot.result()
        if error is not None:
            raise error


async def _end(driver: Driver, consumer: Consumer[Any], slots: Sequence[Slot]) -> None:
    """Begin no more, wait for the handlers that run, and for the settlements; cancelled once more, cancel them."""
    consumer.end(None)
    stopping = driver.loop.create_task(_give_back(driver, consumer))
    try:
        await asyncio.wait([*slots, stopping])
    finally:
        for slot in slots:
            slot.cancel()
        try:
            await asyncio.gather(*slots, stopping, return_exceptions=True)
            await driver.drained()
        finally:
            del driver.runs[consumer]


async def _give_back(driver: Driver, consumer: Consumer[Any]) -> None:
    """Give back what `consumer` has not begun, while handlers still run."""
    await leave(driver, consumer)
