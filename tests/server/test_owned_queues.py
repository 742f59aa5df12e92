"""A temporary queue over a restart of the server: its client comes back by itself, and goes on with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import minibroker
from support.broker import BrokerServer


@pytest.mark.parametrize("kill", [True, False])
async def test_a_temporary_queue_outlives_a_restart_of_its_server(
    tmp_path: Path, kill: bool
) -> None:
    """With what is in it; it is for its session alone as before, and ends with its block."""
    server = BrokerServer(tmp_path / "data")
    try:
        async with (
            minibroker.connect(server.url, name="owner") as owner,
            minibroker.connect(server.url, name="other") as other,
        ):
            async with owner.temporary_queue() as mine:
                await mine.publish(b"before")
                if kill:
                    server.kill()
                else:
                    await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.restart)
                await other.queue(mine.name).publish(b"behind")
                bodies = [message.body for message in await mine.receive(5)]
                assert bodies == [b"before", b"behind"]
                with pytest.raises(minibroker.ExclusiveQueue):
                    await other.queue(mine.name).receive()
            assert mine.name not in (await other.stats())["queues"]
    finally:
        server.close()
