"""Whether a lease is renewed, as the broker says it: counted, so that a machine under load is only slower."""

from __future__ import annotations

import asyncio
from datetime import datetime
from time import monotonic
from typing import Any

import minibroker
from support.processes import DEADLINE_S, LOOK_EVERY_S

# It is renewed each second, so whoever renews it may stand still for two.
LEASE_S = 3
LEAST_S = 0.5  # by which a renewal moves its end


async def renewed(queue: Any, id: Any, times: int = 2) -> None:
    """Return when the lease of a message was renewed so often; fail when it is in work no more."""
    ends: list[datetime] = []
    deadline = monotonic() + DEADLINE_S
    while len(ends) <= times:
        why = await queue.explain(id)
        assert why.reason == "running" or not ends, f"after {len(ends)} ends of its lease: {why}"
        if why.reason == "running" and not (ends and _is_same(ends[-1], why.until)):
            ends.append(why.until)
        assert monotonic() < deadline, f"{len(ends)} ends of its lease within {DEADLINE_S} s"
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=LOOK_EVERY_S)


def see_renewed(url: str, queue: str, id: Any, times: int = 2) -> None:
    """As `renewed`, in a thread of its own: for a test whose loop stands still."""

    async def see() -> None:
        async with minibroker.connect(url) as broker:
            await renewed(broker.queue(queue), id, times)

    asyncio.run(see())


def _is_same(before: datetime, after: datetime) -> bool:
    return (after - before).total_seconds() < LEAST_S
