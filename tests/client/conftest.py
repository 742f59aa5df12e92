"""A client joined to a fake server in memory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer

import minibroker

sys.path.append(
    str(Path(__file__).parents[1] / "core")
)  # machine_world.py has the core as its server


class NoThread:
    """Stands for the attached connection, which needs a socket."""

    def __init__(self, driver: Any) -> None:
        pass

    def start(self) -> None:
        """Start nothing."""

    def stop(self) -> None:
        """Stop nothing."""

    def delivered(self, lease_ms: int) -> None:
        """Renew nothing."""

    def extended(self, message: Any, lease_ms: int) -> None:
        """Renew nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server that `minibroker.connect` reaches from now on."""
    fake = FakeServer()
    monkeypatch.setattr("minibroker.aio.dialling.dial", fake.dial)
    monkeypatch.setattr("minibroker.session.connecting.FIRST_DELAY_MS", 0)
    monkeypatch.setattr("minibroker.aio.driver.Attached", NoThread)
    return fake


@pytest.fixture
async def broker(server: FakeServer) -> AsyncIterator[minibroker.Broker]:
    """A connected client."""
    async with minibroker.connect() as connected:
        yield connected
        server.withhold, server.withhold_from = False, None
        for link in server.links[-1:]:
            for sequence in list(server.outcomes):
                link.peer.confirm(sequence)
            link.deliver()
