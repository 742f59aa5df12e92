"""Modules of tasks of other libraries, and workers that no test leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery_workers import HERE, StartWorker, Worker
from libraries import Library, Start

from support.broker import BrokerServer


@pytest.fixture
def start_library(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Start]:
    """Start a worker of a library on a module with this source."""
    started: list[Library] = []

    def start(source: str, command: Sequence[str], settings: str = "") -> Library:
        folder = tmp_path / f"library-{len(started)}"
        folder.mkdir()
        started.append(Library(folder, broker_server.url, source, command, settings))
        started[-1].start()
        return started[-1]

    yield start
    for library in started:
        library.close()


@pytest.fixture
def broker_url(broker_server: BrokerServer) -> str:
    """What Celery is told to connect to."""
    return broker_server.url


@pytest.fixture
def start_worker(tmp_path: Path, broker_url: str) -> Iterator[StartWorker]:
    """Start as many workers as a test needs: `start_worker("-P", "solo")`."""
    workers: list[Worker] = []

    def start(*flags: str) -> Worker:
        workers.append(Worker(tmp_path, broker_url, *flags))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            worker.process.wait(15)
        finally:
            worker.process.kill()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker_url: str) -> Iterator[Any]:
    """The application, as a web process has it."""
    monkeypatch.setenv("SHOP_BROKER", broker_url)
    monkeypatch.setenv("SHOP_SAID", str(tmp_path / "said"))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    import kombu.pools
    import shop

    yield shop
    shop.app.close()
    kombu.pools.reset()  # else its connections outlive it, and look for a broker that is away
