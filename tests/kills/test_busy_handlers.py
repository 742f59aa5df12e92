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
from support.renewals import LEASE_S, renewed
from support.scripts import Script

WORKER = Path(__file__).with_name("busy_worker.py")


@pytest.mark.parametrize("kind", ["compute", "derive"])
@pytest.mark.parametrize("loop", LOOPS)
async def test_a_handler_that_computes_keeps_its_message(
    broker_server: BrokerServer, tmp_path: Path, loop: str, kind: str
) -> None:
    """In pure Python or in C that releases the GIL: its lease is renewed, and its ack counts."""
    ledger, enough = tmp_path / "ledger", tmp_path / "enough"
    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("busy")
        await queue.set(lease_ms=1_000 * LEASE_S)
        id = (await queue.publish(kind.encode())).id
        arguments = (broker_server.url, "busy", ledger, loop, enough)
        worker = Script(WORKER, *arguments, log=tmp_path / "log")
        try:
            await renewed(queue, id)
            enough.touch()
            await asyncio.to_thread(worker.process.wait, DEADLINE_S)
        finally:
            worker.close()
        counters = (await queue.stats())["queues"]["busy"]
    entries = list(read_ledger(ledger))
    assert [entry.verb for entry in entries] == ["begun", "done", "safe"], worker.output
    assert {entry.numbers[1] for entry in entries} == {1}, "it was delivered again"
    assert (counters["expired"], counters["worker_lost"], counters["acked"]) == (0, 0, 1)
    assert counters["delivered"] == 1
