"""The consumers: handlers that note when they began with a message, and ack it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import minibroker
from minibrokerd.load.ledger import Ledger
from minibrokerd.load.meter import Meter
from minibrokerd.load.payload import Payload


class Stranger(Exception):
    """The queue has a message of somebody else, which a bench must not end."""


class Consumer:
    """One consumer; `on_balanced` is called when all that was confirmed has been seen."""

    def __init__(
        self,
        queue: minibroker.Queue[Any],
        prefetch: int,
        payload: Payload,
        ledger: Ledger,
        meter: Meter,
        on_balanced: Callable[[], object],
    ) -> None:
        self._queue = queue
        self._prefetch = prefetch
        self._payload = payload
        self._ledger = ledger
        self._meter = meter
        self._on_balanced = on_balanced

    async def consume(self, on_start: Callable[[], object]) -> None:
        """Consume until cancelled, then wait until all acks are confirmed.

        Raises:
            Stranger: a message is not of this bench; it goes back to the queue.
        """
        read, ledger, meter = self._payload.read, self._ledger, self._meter
        async with self._queue.consume(self._prefetch) as messages:
            on_start()
            async for message in messages:
                now_ns = perf_counter_ns()
                found = read(message.body)
                if found is None:
                    await message.release()
                    raise Stranger(f"message {message.id} of {message.queue} is not of this bench")
                async with message.process():
                    number, due_ns = found
                    meter.end_to_end.record(now_ns - due_ns)
                    meter.last_seen_ns = now_ns
                    ledger.see(number)
                meter.acked += 1
                if ledger.balanced:
                    self._on_balanced()
