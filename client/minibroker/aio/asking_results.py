"""Asking for a result: again and again, while there is only progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibroker.aio.driver import Driver
from minibroker.contract.confirms import MessageId
from minibroker.session import wishes
from minibroker.session.result_wish import Asking, Progress
from minibroker.session.spans import Span
from minibroker.session.typed import UNTYPED, converter
from minibroker.shell.monotonic import now_ms


async def result_of(
    driver: Driver,
    queue: str,
    id: MessageId,
    result_type: Any,
    on_progress: Callable[[Progress], object] | None,
    wait: Span | None,
    timeout: Span | None,
) -> Any:
    """Return what a message came to, as `Queue.result` says; an empty `queue`: whichever it is of."""
    by_ms = now_ms() + wishes.timeout_ms(timeout, driver.timeout_ms)
    convert = None if result_type in UNTYPED else converter(result_type)
    asking = Asking(queue, id, by_ms, wait, convert, on_progress)
    while True:
        (op, fields, columns), within_ms = asking.next(now_ms())
        answer = await driver.request(op, fields, within_ms, columns)
        if asking.answered(answer):
            return asking.result(answer)
