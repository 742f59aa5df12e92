"""A step of an application that awaits: what is said in its block happens at its end, all of it or nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from minibroker.contract.confirms import Confirm
from minibroker.session.after import Comes, alone
from minibroker.session.spans import Span
from minibroker.session.step import Said, StepData
from minibroker.shell.monotonic import now_ms


class Step(StepData):
    """Acks and publishes that happen together, or not at all; made by `Broker.step` and `Message.step`.

        async with message.step() as step:
            step.publish("mails", {"to": "bob@example.com"})
            step.publish("audit", b"ordered", key="bob")

    Nothing is sent before the block ends. Its end returns when all of it is as safe as the queues' durability
    says; an error out of the block means that nothing was done. Behind it its messages are over; if the end raised
    NotSent, Busy, DiskFull, TooLarge, UnknownQueue or the like, nothing was done, and they are still to settle.
    """

    async def __aenter__(self) -> Step:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._commit()

    async def _commit(self) -> None:
        driver = self._driver
        driver.check_open()
        frame = self._frame()
        if frame is None:
            return
        waiter = driver.create_future()
        driver.machine.steps.ask(waiter, frame, self._timeout_ms, now_ms())
        try:
            runs = await waiter
        except asyncio.CancelledError:
            driver.machine.steps.gave_up(frame)
            raise
        self._confirmed(runs)


async def publish_after(driver: Any, timeout: Span | None, said: Said, comes: Comes) -> Confirm:
    """Store one message that comes after others, as a step of its own."""
    async with Step(driver, timeout) as step:
        step.say(said, alone(comes))
    return step.confirms[0]
