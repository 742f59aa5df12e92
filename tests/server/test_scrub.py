"""The pass over what a start took on trust, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from minibrokerd.engine.scrub import Scrub


class Segments:
    """Stretches without end; counts those that were begun."""

    def __init__(self) -> None:
        self.begun = 0

    def scrub(self) -> Iterator[None]:
        """Yield one stretch after the other."""
        while True:
            self.begun += 1
            yield None


async def test_a_scrub_that_is_stopped_begins_no_other_stretch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The threads go with the server: asked for one then, the loop raises, and a clean stop looks like a fault."""
    monkeypatch.setattr("minibrokerd.engine.scrub.PAUSE_S", 0)
    loop, asked = asyncio.get_running_loop(), []

    def run(executor: None, function: Any, *args: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        asked.append(future)
        return future

    monkeypatch.setattr(loop, "run_in_executor", run)
    scrub = Scrub(Segments(), loop)  # type: ignore[arg-type]
    scrub.start()
    for _ in iter(lambda: len(asked) == 1, True):
        await asyncio.sleep(0)
    scrub.stop()
    asked[0].set_result(None)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(asked) == 1
