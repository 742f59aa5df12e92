"""One server of each other kind for all tests of a process, and bridges that no test leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers.servers import Server
from far_brokers import KINDS, Far
from running_bridge import RunningBridge

from support.broker import BrokerServer


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[type[Far], Server]]:
    """The servers that run, by their kinds."""
    running: dict[type[Far], Server] = {}
    yield running
    for server in running.values():
        server.close()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.title)
def far(
    request: pytest.FixtureRequest,
    started: dict[type[Far], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Far:
    """Another broker, with a new place for messages."""
    kind: type[Far] = request.param
    if kind not in started:
        started[kind] = kind.start(tmp_path_factory.mktemp(kind.title) / "data")
    elif started[kind].pid_ended():
        started[kind].start()
    made = kind(started[kind])
    asyncio.run(made.make())
    return made


@pytest.fixture
def bridge(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Any]:
    """Start bridges: `bridge("--from", URL, "--to", "orders")`."""
    running: list[RunningBridge] = []

    def run(*words: str) -> RunningBridge:
        running.append(RunningBridge(tmp_path, broker_server, *words))
        return running[-1]

    yield run
    for each in running:
        each.process.kill()
        each.process.wait()
