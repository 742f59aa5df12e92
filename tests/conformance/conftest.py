"""Each test runs over the client that awaits and the one that blocks, on a server and on a broker in process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import blocking
import pytest

import minibroker
from minibrokerd import inprocess
from support.broker import BrokerServer


class InProcess(NamedTuple):
    """A broker in memory, where a test expects a server."""

    url: str


@pytest.fixture(scope="module", params=["server", "memory"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerServer | InProcess]:
    """One broker for the tests of a module: each has queues of its own."""
    if request.param == "memory":
        name = request.module.__name__
        yield InProcess(f"memory://{name}")
        inprocess.forget(name)
        return
    started = BrokerServer(Path(tmp_path_factory.mktemp("conformance")) / "data")
    yield started
    started.close()


@pytest.fixture(params=["aio", "sync"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The `connect` of one client."""
    return minibroker.connect if request.param == "aio" else blocking.Connecting


@pytest.fixture
async def broker(connect: Callable[..., Any], server: BrokerServer) -> AsyncIterator[Any]:
    """An open connection."""
    async with connect(server.url, name="tester", timeout=10) as opened:
        yield opened


@pytest.fixture
def queue(broker: Any, request: pytest.FixtureRequest) -> Any:
    """A queue of this test's own."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return broker.queue(name[:120])


@pytest.fixture
def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port
