"""What a task of Django has come to where that is not simply what it returned or raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django_project import PREPARED, SETTINGS, project
from libraries import Library

import minibroker.sync
from minibroker.sync.queue import Queue
from support.broker import BrokerServer
from support.processes import look_until

IMPATIENT = """
TASKS["default"]["OPTIONS"] = {"timeout": 1}  # a start that cannot be said is not waited for
"""
TASKS = """
from minibroker.worker import Retry

@task(takes_context=True)
def again(context, until):
    ran(context.attempt)
    if context.attempt < until:
        raise Retry(delay=0)
    return context.attempt

@task
def long(length):
    ran("long")
    return "x" * length
"""


@pytest.fixture
def shop(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Library]:
    """A project with tasks; no worker is started."""
    yield from project(tmp_path, broker_server, TASKS, SETTINGS + IMPATIENT)


@pytest.fixture
def broker(broker_server: BrokerServer) -> Iterator[minibroker.sync.Broker]:
    """A client of the broker that the project has."""
    with minibroker.sync.connect(broker_server.url) as broker:
        yield broker


def dead(broker: minibroker.sync.Broker) -> list[list[str]]:
    """Return the classes of the errors that each dead task died of, in order of its attempts."""
    found = broker.queue("default.dlq").peek(10)
    return [[attempt["error_class"] for attempt in each.history] for each in found]


@pytest.mark.parametrize(
    ("most", "end"),
    [
        (2, 'result.status == "FAILED" and result.attempts == len(result.errors) == 2'),
        (9, "result.return_value == result.attempts == 7"),
    ],
)
def test_a_policy_says_how_often_a_retry_comes_again(
    most: int, end: str, shop: Library, broker: minibroker.sync.Broker
) -> None:
    """The status said READY of a task that was dead, and one that had attempts left was ended."""
    broker.policies.set("few", "def*", max_attempts=most)
    shop.start()
    shop.call(PREPARED + f"result = ended(again.enqueue(7))\nassert {end}, result\n")
    assert dead(broker) == ([] if most > 7 else [["Retry"] * most])
    assert shop.ran() == {str(attempt): 1 for attempt in range(1, min(most, 7) + 1)}


def nothing(results: Queue[Any]) -> None:
    pass


def full(results: Queue[Any]) -> None:
    results.publish(bytes(5_000))
    results.set(max_bytes=4_000, overflow="reject")


def strict(results: Queue[Any]) -> None:
    results.set_schema({"type": "object"})


@pytest.mark.parametrize(
    ("prepare", "length", "reason", "is_known"),
    [
        (nothing, 1_100_000, "TooLarge", True),
        (strict, 1, "SchemaMismatch", False),
        (full, 1, "QueueFull", False),
    ],
)
def test_a_task_whose_result_is_refused_has_failed_and_does_not_run_again(
    prepare: Callable[[Queue[Any]], None],
    length: int,
    reason: str,
    is_known: bool,
    shop: Library,
    broker: minibroker.sync.Broker,
) -> None:
    """Its error says that it ran, and why nothing is known of what it came to."""
    shop.call(PREPARED + f"open('id', 'w').write(long.enqueue({length}).id)\n")
    prepare(broker.queue("django-results"))
    worker = shop.start()
    look_until(lambda: dead(broker) != [], worker, "a dead letter", 60)
    assert dead(broker) == [["ResultRefused"]], shop.log
    [died] = broker.queue("default.dlq").peek(10)
    assert reason in died.history[0]["error_text"], died
    if is_known:
        shop.call(
            PREPARED
            + "from minibroker.contrib.django import ResultRefused\n"
            + "[error] = ended(long.get_result(open('id').read())).errors\n"
            + "assert error.exception_class is ResultRefused, error\n"
            + f"assert {reason!r} in error.traceback\n"
        )
    assert shop.ran() == {"long": 1}


def test_a_result_waits_for_room(shop: Library, broker: minibroker.sync.Broker) -> None:
    """A queue that lets publishers wait is no refusal: the task has not failed, and does not run again."""
    shop.call(PREPARED + "open('id', 'w').write(long.enqueue(1).id)\n")
    results = broker.queue("django-results")
    results.publish(bytes(5_000))
    results.set(max_bytes=4_000)
    worker = shop.start()
    look_until(lambda: shop.ran() == {"long": 1}, worker, "it ran", 60)
    results.set(unset=["max_bytes"])
    shop.call(
        PREPARED + "assert ended(long.get_result(open('id').read())).status == 'SUCCESSFUL'\n"
    )
    assert dead(broker) == []
    assert shop.ran() == {"long": 1}
