"""Workers that never outlive the test that started them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from worker_process import WorkerProcess

import minibroker
from support.broker import BrokerServer

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path, broker_server: BrokerServer) -> Iterator[StartWorker]:
    """Start a worker of an app, given as source, on the broker: `start_worker(SOURCE, "--burst")`."""
    workers: list[WorkerProcess] = []

    def start(source: str, *flags: str, url: str = "") -> WorkerProcess:
        workers.append(WorkerProcess(tmp_path / "app", url or broker_server.url, source, *flags))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
async def broker(broker_server: BrokerServer) -> AsyncIterator[minibroker.Broker]:
    """A client of the same broker."""
    async with minibroker.connect(broker_server.url) as connected:
        yield connected
