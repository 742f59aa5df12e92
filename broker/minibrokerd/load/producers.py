"""The producers: lanes that take the next call of the schedule, wait until it is due, publish, and note it."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import Any, Final

import minibroker
from minibrokerd.load.ledger import Ledger
from minibrokerd.load.meter import Meter
from minibrokerd.load.pacer import Pacer
from minibrokerd.load.payload import Payload
from minibrokerd.load.plan import Plan, Schedule

RETRY_MS: Final = 100  # after a refusal that names no time


class Producer:
    """One producer: as many lanes as it may have publishes under way."""

    def __init__(
        self,
        plan: Plan,
        queue: minibroker.Queue[Any],
        schedule: Schedule,
        pacer: Pacer,
        payload: Payload,
        ledger: Ledger,
        meter: Meter,
    ) -> None:
        self._plan = plan
        self._queue = queue
        self._schedule = schedule
        self._pacer = pacer
        self._payload = payload
        self._ledger = ledger
        self._meter = meter

    async def lane(self) -> None:
        """Publish, one call after the other, until the schedule ends."""
        take, meter, ledger = self._schedule.take, self._meter, self._ledger
        is_open = self._plan.rate is not None
        now_ns = perf_counter_ns()
        while (call := take(now_ns)) is not None:
            first, size, due_ns = call
            if is_open:
                await self._wait(due_ns, now_ns)
            try:
                await self._publish(first, size, due_ns)
            except minibroker.Busy as error:
                meter.refused += size
                await asyncio.sleep((error.retry_ms or RETRY_MS) / 1_000)
                now_ns = perf_counter_ns()
                continue
            now_ns = perf_counter_ns()
            meter.calls += 1
            meter.publish.record(now_ns - due_ns)
            meter.last_confirm_ns = now_ns
            ledger.confirm(first, size)

    async def _wait(self, due_ns: int, now_ns: int) -> None:
        meter = self._meter
        if due_ns > now_ns:
            await self._pacer.until(due_ns)
            now_ns = perf_counter_ns()
            meter.woken.record(now_ns - due_ns)
        else:
            meter.held_up += 1
        meter.last_due_ns, meter.last_send_ns = due_ns, now_ns

    async def _publish(self, first: int, size: int, due_ns: int) -> None:
        plan, make = self._plan, self._payload.make
        # A call has one key, so with batches it is the calls that take turns.
        key = f"key-{first // plan.batch % plan.keys}" if plan.keys else None
        if plan.batch == 1:
            await self._queue.publish(make(first, due_ns), key=key)
        else:
            bodies = [make(number, due_ns) for number in range(first, first + size)]
            await self._queue.publish_many(bodies, key=key)
