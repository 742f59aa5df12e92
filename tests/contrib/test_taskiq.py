"""Taskiq on minibroker, with its own worker process."""

from __future__ import annotations

from libraries import TASKIQ, Start

import minibroker.sync
from support.broker import BrokerServer

TASKS = """
from minibroker.contrib.taskiq import MinibrokerBroker
from taskiq import SimpleRetryMiddleware
broker = MinibrokerBroker().with_middlewares(SimpleRetryMiddleware())

@broker.task
async def add(a: int, b: int) -> None:
    ran(a + b)

@broker.task(retry_on_error=True, max_retries=3)
async def bad() -> None:
    ran("bad")
    raise ValueError("no good")
"""
SENDING = """
import asyncio, tasks

async def main():
    await tasks.broker.startup()
    await tasks.add.kicker().with_labels(delay=0.3).kiq(100, 1)
    for number in range(20):
        await tasks.add.kiq(number, 1)
    await tasks.bad.kiq()
    await tasks.broker.shutdown()

asyncio.run(main())
"""


def test_a_worker_runs_what_was_sent_and_delayed_and_retries(
    start_library: Start, broker_server: BrokerServer
) -> None:
    """Three tries are three runs, and what Taskiq would ack away is dead: failed, unknown, unreadable."""
    library = start_library(TASKS, TASKIQ)
    library.call(SENDING)
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("taskiq")
        queue.publish(b"rubbish")
        queue.publish(
            b'{"task_id": "1", "task_name": "gone", "labels": {}, "args": [], "kwargs": {}}'
        )
        queue.join(timeout=30, delayed=True)
        expected = {str(number): 1 for number in range(1, 21)} | {"101": 1, "bad": 3}
        assert library.ran() == expected, library.log
        dead = [peeked.history[-1] for peeked in broker.queue("taskiq.dlq").peek(10)]
        assert sorted(each["error_class"] for each in dead) == ["", "JSONDecodeError", "ValueError"]
        assert "no task is called 'gone' here" in [each["error_text"] for each in dead]
