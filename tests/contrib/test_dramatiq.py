"""Dramatiq on minibroker, with its own worker process."""

from __future__ import annotations

from libraries import DRAMATIQ, Start

import minibroker.sync
from support.broker import BrokerServer

TASKS = """
import dramatiq
from minibroker.contrib.dramatiq import MinibrokerBroker
broker = MinibrokerBroker()
dramatiq.set_broker(broker)

@dramatiq.actor
def add(a, b):
    ran(a + b)

@dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=20)
def bad():
    ran("bad")
    raise ValueError("no good")
"""
SENDING = """
import tasks
tasks.add.send_with_options(args=(100, 1), delay=300)
for number in range(20):
    tasks.add.send(number, 1)
tasks.bad.send()
tasks.broker.join("default", timeout=30_000)
"""


def test_a_worker_runs_what_was_sent_and_delayed_and_retries(
    start_library: Start, broker_server: BrokerServer
) -> None:
    """The delay is the broker's own, a retry is a message, and the last failure is dead with its error."""
    library = start_library(TASKS, DRAMATIQ)
    library.call(SENDING)
    expected = {str(number): 1 for number in range(1, 21)} | {"101": 1, "bad": 3}
    assert library.ran() == expected, library.log
    with minibroker.sync.connect(broker_server.url) as broker:
        assert set(broker.stats()["queues"]) == {"default", "default.dlq"}, "no queue for delays"
        (dead,) = broker.queue("default.dlq").peek(10)
        assert dead.history[-1]["error_class"] == "ValueError"
        assert dead.history[-1]["error_text"].startswith("no good")
