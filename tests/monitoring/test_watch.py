"""How often the watch looks: a broker with very many queues is not busy with looking at them."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from minibrokerd.monitoring.watch import EVERY_S, QUEUES_A_SECOND, Watch

LOOKS = 5


@pytest.mark.parametrize("queues", [0, 1, 10_000, 100_000])
async def test_no_more_queues_a_second_are_looked_at_than_a_fiftieth_of_the_loop_allows(
    queues: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, rested_s = 0, deque[float]()

    async def sleep(seconds: float) -> None:
        rested_s.append(seconds)

    async def look() -> dict[str, int]:
        nonlocal looked
        looked += queues
        if len(rested_s) == LOOKS:
            raise EOFError
        return {}

    view: Any = SimpleNamespace(
        loop=asyncio.get_running_loop(),
        store=SimpleNamespace(queues=range(queues)),
        engine=SimpleNamespace(pulse=SimpleNamespace(syncs_us=SimpleNamespace(counts=[]))),
    )
    watching = Watch(view)
    monkeypatch.setattr(watching, "look", look)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(EOFError):
        await watching._run()
    assert (looked - queues) / sum(rested_s) <= QUEUES_A_SECOND
    assert min(rested_s) >= EVERY_S
