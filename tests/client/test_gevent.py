"""Under gevent: its threads are greenlets, and a lease is renewed by a real one."""

from __future__ import annotations

import subprocess
import sys

import pytest

import minibroker.sync
from support.broker import BrokerServer

COMPUTES = """
import gevent.monkey
gevent.monkey.patch_all()
import asyncio, sys, time
import minibroker

async def main():
    async with minibroker.connect(sys.argv[1]) as broker:
        queue = broker.queue("reports")
        await queue.set(lease_ms=1_000)
        await queue.publish(b"x")
        [message] = await queue.receive(wait=5)
        async with message.process():
            end = time.monotonic() + 3
            while time.monotonic() < end:
                pass
        counts = (await queue.stats())["queues"]["reports"]
        print(message.lost, counts["acked"], counts["expired"])

asyncio.run(main())
"""


def test_where_poll_was_taken_away_the_refusal_names_who_does_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """eventlet deletes what it has no version of."""
    monkeypatch.delattr("select.poll")
    with pytest.raises(RuntimeError, match=r"select\.poll is not there, as under eventlet"):
        minibroker.sync.connect("memory://", lazy=True)


def test_a_handler_that_computes_keeps_its_lease_under_gevent(broker_server: BrokerServer) -> None:
    """Three times as long as the lease, without giving way once."""
    ended = subprocess.run(
        [sys.executable, "-c", COMPUTES, broker_server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.stdout.split(), ended.returncode) == (["False", "1", "0"], 0), ended.stderr
