"""Several brokers in one URL: the next one takes over, and nothing is lost of what the first one has."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")

from celery_workers import StartWorker

import minibroker.sync
from support.broker import BrokerServer, StartBroker
from support.processes import look_until


@pytest.fixture
def two_brokers(start_broker: StartBroker) -> tuple[BrokerServer, BrokerServer]:
    """Two that know nothing of each other."""
    return start_broker(), start_broker()


@pytest.fixture
def broker_url(two_brokers: tuple[BrokerServer, BrokerServer]) -> str:
    """Both, as Celery has them."""
    return ";".join(each.url for each in two_brokers)


def test_the_next_broker_takes_over(
    shop, start_worker: StartWorker, two_brokers: tuple[BrokerServer, BrokerServer], tmp_path: Path
) -> None:
    """A task that runs goes on, what had not started does not start; both wait at the first until it is back."""
    first, second = two_brokers
    gate = tmp_path / "gate"
    worker = start_worker("-P", "threads", "-c", "1", "--prefetch-multiplier", "2")
    shop.wait.delay("long", str(gate))
    worker.says("long began 0")
    shop.say_task.delay("left")
    with minibroker.sync.connect(first.url) as broker:
        look_until(
            lambda: bool(broker.queue("celery").peek(state="HELD")), worker.process, "it is fetched"
        )
    first.kill()
    shop.say_task.delay("after")  # as soon as its own connection has given the first one up
    with minibroker.sync.connect(second.url) as broker:
        look_until(lambda: bool(broker.queue("celery").peek()), worker.process, "it is there")
    gate.touch()
    worker.says("long ended")
    worker.says("after 0")
    assert "left 0" not in worker.lines()
    first.restart()
    second.kill()
    worker.says("left 0")
    worker.says("long ended", 2)  # nobody could be told that it was done
    with minibroker.sync.connect(first.url) as broker:
        look_until(lambda: not broker.queue("celery").peek(), worker.process, "all was acked")
