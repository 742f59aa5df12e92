"""protocol.md 5.4: a handler that computes keeps its lease, although the event loop does not turn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from loops import LOOPS
from worker_ledger import read_ledger

import minibroker
from support.broker import BrokerServer
from support.processes import DEADLINE_S
from support.scripts import Script

WORKER = Path(__file__).with_name("busy_worker.py")
LEASE_S = 0.5
BUSY_S = 3 * LEASE_S


@pytest.mark.parametrize("kind", ["compute", "derive"])
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_handler_that_computes_for_three_leases_keeps_its_message(
    broker_server: BrokerServer, tmp_path: Path, loop: str, kind: str
) -> None:
    """In pure Python or in C that releases the GIL: one handling, and its ack counts."""
    ledger = tmp_path / "ledger"
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("busy")
        await queue.set(lease_ms=int(LEASE_S * 1000))
        await queue.publish(kind.encode())
        arguments = (broker_server.url, "busy", ledger, loop, BUSY_S)
        worker = Script(WORKER, *arguments, log=tmp_path / "log")
        try:
            await asyncio.to_thread(worker.process.wait, DEADLINE_S)
        finally:
            worker.close()
        counters = (await queue.stats())["queues"]["busy"]
    entries = list(read_ledger(ledger))
    assert [entry.verb for entry in entries] == ["begun", "done", "safe"], worker.output
    assert {entry.numbers[1] for entry in entries} == {1}, "it was delivered again"
    assert entries[1].time_ns - entries[0].time_ns > BUSY_S * 1e9
    assert (counters["expired"], counters["worker_lost"], counters["acked"]) == (0, 0, 1)
    assert counters["delivered"] == 1
