"""protocol.md 5.3: a message that kills its worker costs attempts of its own, not of its neighbours.

The leases are longer than any machine is late; when a worker is dead, the time of the broker is moved on, over
their ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loops import LOOPS
from worker_ledger import read_ledger

import minibroker
from support.broker import BrokerServer
from support.processes import DEADLINE_S, ends_or, lasts, was_killed
from support.scripts import Script

WORKER = Path(__file__).with_name("poison_worker.py")
MESSAGES = 40  # more than a prefetch, so that some are never delivered together with the poison
POSITIONS = {"each": (1, 2, 16, 32), "run": (1, 16)}  # `run` gets one message at a time
MAX_ATTEMPTS = 5
LEASE_S = 600
MOVED = Path(__file__).parents[1] / "support" / "moved_broker.py"
STOPPED_LEASE_S = 4  # renewed each 1.3 s, so whoever renews it may stand still for twice that
MAX_LIVES = MAX_ATTEMPTS + 2  # in the first one the poison may go uncharged; the last one survives


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """A broker whose time passes at once when it is told so, by one lease."""
    server = BrokerServer(
        tmp_path_factory.mktemp("moved") / "data",
        command=(sys.executable, str(MOVED)),
        env={"MOVE_MS": str(1_000 * LEASE_S)},
    )
    yield server
    server.close()


class Case:
    """One queue with one poisonous message, and the supervisor of its worker."""

    def __init__(self, broker: minibroker.Broker, name: str, directory: Path) -> None:
        self.name = name
        self.queue: minibroker.Queue[bytes] = broker.queue(name)
        self.dlq: minibroker.Queue[bytes] = broker.queue(f"{name}.dlq")
        self.directory = directory
        self.ledger = directory / f"{name}.ledger"
        self.lives = 0
        self.poison = -1

    async def publish(self, poison: bytes, position: int, lease_s: int = LEASE_S) -> None:
        """Put the poison at `position` (from 1) of a queue."""
        await self.queue.set(lease_ms=1_000 * lease_s)
        bodies = [b"nothing"] * MESSAGES
        bodies[position - 1] = poison
        confirms = await self.queue.publish_many(bodies)
        self.poison = confirms[position - 1].sequence

    async def supervise(self, server: BrokerServer, loop: str, shape: str) -> None:
        """Start the worker again after each death, until everything is handled or dead-lettered."""
        code: int | None = -9
        while code is not None:
            self.lives += 1
            assert self.lives <= MAX_LIVES, f"the poison of {self.name} kills without end"
            log = self.directory / f"{self.name}.log"
            worker = Script(WORKER, server.url, self.name, self.ledger, loop, shape, log=log)
            try:
                code = await ends_or(worker.process, self.done)
                assert code is None or was_killed(code), worker.output
                if code is None:
                    await asyncio.to_thread(worker.stop)
            finally:
                worker.close()
            async with asyncio.timeout(DEADLINE_S):
                while (await self.counters())[
                    "consumers"
                ]:  # its end has not come to the broker yet
                    assert server.running, server.output
            os.kill(server.pid, signal.SIGUSR2)

    async def done(self) -> bool:
        """Whether nothing is left in the queue, and the present worker can be asked to stop."""
        if len([entry for entry in read_ledger(self.ledger) if entry.verb == "ready"]) < self.lives:
            return False
        counters = await self.counters()
        return not any(counters[state] for state in ("ready", "delayed", "held", "begun"))

    async def begun(self) -> bool:
        """Whether a handler runs."""
        return bool((await self.counters())["begun"])

    async def counters(self) -> dict[str, Any]:
        """Return what the server counts for the queue."""
        counters: dict[str, Any] = (await self.queue.stats())["queues"][self.name]
        return counters

    async def check(self) -> None:
        """The poison is dead after five attempts, all `worker_lost`; at most one other was charged, once."""
        (dead,) = await self.dlq.peek()
        assert dead.id.sequence == self.poison
        assert dead.attempts == {"failed": 0, "expired": 0, "worker_lost": MAX_ATTEMPTS}, (
            self.name,
            dead.history,
        )
        assert [entry["cause"] for entry in dead.history] == ["worker_lost"] * MAX_ATTEMPTS
        tokens = [entry["token"] for entry in dead.history]
        assert tokens == sorted(set(tokens))
        entries = [entry for entry in read_ledger(self.ledger) if entry.verb == "handled"]
        handled = [entry.numbers for entry in entries]
        others = {sequence for sequence, _ in handled}
        assert len(others) == MESSAGES - 1
        assert self.poison not in others
        charged = [(sequence, attempt) for sequence, attempt in handled if attempt > 1]
        assert len(charged) <= 1, charged
        assert all(attempt == 2 for _, attempt in charged), charged
        counters = await self.counters()
        assert counters["worker_lost"] == MAX_ATTEMPTS + len(charged)
        assert counters["expired"] == counters["failed"] == 0


@pytest.mark.parametrize("shape", ["each", "run"])
@pytest.mark.parametrize("loop", LOOPS)
async def test_only_the_poison_is_charged(
    moved: BrokerServer, tmp_path: Path, loop: str, shape: str
) -> None:
    """At position 1, 2, 16 and 32 of what was delivered together, behind and before handlers that do nothing."""
    async with minibroker.connect(moved.url) as broker:
        for position in POSITIONS[shape]:
            case = Case(broker, f"{loop}-{shape}-at-{position}", tmp_path)
            await case.publish(b"die", position)
            await case.supervise(moved, loop, shape)
            await case.check()


@pytest.mark.parametrize("loop", LOOPS)
async def test_poison_that_computes_before_it_kills(
    moved: BrokerServer, tmp_path: Path, loop: str
) -> None:
    """Code that crashes late never let the loop turn: the begin must have been on its way before it ran."""
    async with minibroker.connect(moved.url) as broker:
        for shape in ("each", "run"):
            case = Case(broker, f"{loop}-{shape}-computes", tmp_path)
            await case.publish(b"compute", 16)
            await case.supervise(moved, loop, shape)
            await case.check()


@pytest.mark.parametrize("loop", LOOPS[-1:])
async def test_a_broker_that_was_stopped_sees_the_end_of_a_worker_before_that_of_its_lease(
    broker_server: BrokerServer, tmp_path: Path, loop: str
) -> None:
    """Both wait for it when it goes on: the attempt is `worker_lost`, not `expired`."""
    async with minibroker.connect(broker_server.url) as broker:
        case = Case(broker, "stopped", tmp_path)
        await case.publish(b"hang", 1, STOPPED_LEASE_S)
        arguments = (broker_server.url, case.name, case.ledger, loop, "each")
        worker = Script(WORKER, *arguments, log=tmp_path / "log")
        try:
            assert await ends_or(worker.process, case.begun) is None, worker.output
            # The handler may run a moment before its begin is written; the broker has to know of it here.
            async with asyncio.timeout(DEADLINE_S):
                while (await case.counters())["begun"] != 1:
                    assert worker.process.poll() is None, worker.output
            os.kill(broker_server.pid, signal.SIGSTOP)
            worker.process.kill()
            assert await asyncio.to_thread(lasts, broker_server.process, STOPPED_LEASE_S + 1)
        finally:
            os.kill(broker_server.pid, signal.SIGCONT)
            worker.close()
        async with asyncio.timeout(DEADLINE_S):
            while (counters := await case.counters())["begun"]:
                assert broker_server.running, broker_server.output
        assert (counters["worker_lost"], counters["expired"]) == (1, 0)
