"""A step of an application that blocks: what is said in its block happens at its end, all of it or nothing."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any

from minibroker.contract.confirms import Confirm
from minibroker.session.after import Comes, alone
from minibroker.session.spans import Span
from minibroker.session.step import Said, StepData
from minibroker.sync.waiter import Waiter


class Step(StepData):
    """Acks and publishes that happen together, or not at all; made by `Broker.step` and `Message.step`.

        with message.step() as step:
            step.publish("mails", {"to": "bob@example.com"})
            step.publish("audit", b"ordered", key="bob")

    Nothing is sent before the block ends. Its end returns when all of it is as safe as the queues' durability
    says; an error out of the block means that nothing was done. Behind it its messages are over; if the end raised
    NotSent, Busy, DiskFull, TooLarge, UnknownQueue or the like, nothing was done, and they are still to settle.
    """

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._commit()

    def _commit(self) -> None:
        driver = self._driver
        waiter = Waiter()
        with driver as now:
            driver.machine.check_open()
            frame = self._frame()
            if frame is None:
                return
            waiter.owner = driver.machine
            driver.machine.steps.ask(waiter, frame, self._timeout_ms, now)
        self._confirmed(driver.wait(waiter, partial(driver.machine.steps.gave_up, frame)))


def publish_after(driver: Any, timeout: Span | None, said: Said, comes: Comes) -> Confirm:
    """Store one message that comes after others, as a step of its own."""
    with Step(driver, timeout) as step:
        step.say(said, alone(comes))
    return step.confirms[0]
