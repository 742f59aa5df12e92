"""Has Taskiq's own tests use minibroker where they say `InMemoryBroker`: a plugin, before they import it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import taskiq
from taskiq.receiver import Receiver

from minibroker.contrib.taskiq import MinibrokerBroker, MinibrokerResultBackend
from minibroker.testing import ServerProcess

URL: list[str] = []
STARTED: list[SuiteBroker] = []


class SuiteBroker(MinibrokerBroker):
    """Minibroker, with a worker in this loop from the first task on, as the one in memory has it."""

    def __init__(self, **ignored: Any) -> None:
        super().__init__(URL[0], queue_name=f"suite-{uuid.uuid4().hex}")
        self.result_backend = MinibrokerResultBackend(URL[0], queue_name=f"r-{self.queue_name}")
        self._finish = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        STARTED.append(self)

    async def kick(self, message: Any) -> None:
        """Store a message, as ever; somebody listens."""
        if self._work is None:
            receiver = Receiver(self, max_async_tasks=30, run_startup=False, wait_tasks_timeout=1)
            self._work = asyncio.create_task(receiver.listen(self._finish))
        await super().kick(message)

    async def end(self) -> None:
        """End the worker, then the connections."""
        if self._work is not None:
            self._finish.set()
            await self._work
        await self.result_backend.shutdown()
        await self._client.close()


taskiq.InMemoryBroker = SuiteBroker


@pytest.fixture(scope="session", autouse=True)
def _server() -> Iterator[None]:
    with TemporaryDirectory() as folder, ServerProcess(folder) as server:
        URL.append(server.url)
        yield


@pytest.fixture(autouse=True)
async def _workers_end(anyio_backend: str) -> AsyncIterator[None]:
    yield
    while STARTED:
        await STARTED.pop().end()
