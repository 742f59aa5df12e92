"""Workers of other libraries, and their broker, are killed under load: nothing is lost, little runs twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import dramatiq
import pytest
from libraries import DJANGO, DRAMATIQ, TASKIQ, Library, Start
from taskiq.kicker import AsyncKicker

import minibroker.contrib.dramatiq as dramatiq_on
import minibroker.contrib.taskiq as taskiq_on
import minibroker.sync
from support.broker import BrokerServer
from support.processes import look_until

ROUNDS = int(os.environ.get("ROUNDS") or 1)  # of a kill of the worker and one of the broker
MANY = 120 * ROUNDS
# Acks that may wait for each other in a worker: half of what a worker of Taskiq has in hand.
UNSENT = 8
WITH_DRAMATIQ = """
import time
import dramatiq
from minibroker.contrib.dramatiq import MinibrokerBroker
broker = MinibrokerBroker(settings={"lease_ms": 2_000})
dramatiq.set_broker(broker)

@dramatiq.actor
def work(number):
    ran("begins", number)
    time.sleep(0.02)
    ran("ends", number)
"""
WITH_TASKIQ = """
import asyncio
from minibroker.contrib.taskiq import MinibrokerBroker
broker = MinibrokerBroker(queue_name="default", prefetch=16, settings={"lease_ms": 2_000})

@broker.task
async def work(number: int) -> None:
    ran("begins", number)
    await asyncio.sleep(0.02)
    ran("ends", number)
"""
WITH_DJANGO = """
import time
try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

@task
def work(number):
    ran("begins", number)
    time.sleep(0.02)
    ran("ends", number)
"""
SETTINGS_OF_DJANGO = """
USE_TZ = True
INSTALLED_APPS = ["minibroker.contrib.django"]
BACKEND = "minibroker.contrib.django.MinibrokerBackend"
TASKS = {"default": {"BACKEND": BACKEND, "OPTIONS": {"settings": {"lease_ms": 2_000}}}}
"""


def delay_of(number: int) -> int | None:
    """Return the delay of a task in ms: each tenth has one."""
    return 100 if number % 10 == 0 else None


def send_dramatiq(url: str) -> None:
    broker = dramatiq_on.MinibrokerBroker(url)
    broker.declare_queue("default")
    for number in range(MANY):
        message: Any = dramatiq.Message("default", "work", (number,), {}, {})
        broker.enqueue(message, delay=delay_of(number))
    broker.close()


async def kiq(url: str) -> None:
    broker = taskiq_on.MinibrokerBroker(url, queue_name="default")
    for number in range(MANY):
        labels = {"delay": (delay_of(number) or 0) / 1_000}
        await AsyncKicker("tasks:work", broker, labels).kiq(number)
    await broker.shutdown()


def send_taskiq(url: str) -> None:
    asyncio.run(kiq(url))


def send_django(url: str) -> None:
    with minibroker.sync.connect(url) as broker:
        queue = broker.queue("default", lease_ms=2_000)
        for number in range(MANY):
            body = f'{{"task": "tasks.work", "args": [{number}]}}'
            queue.publish(body.encode(), delay=(delay_of(number) or 0) / 1_000)


LIBRARIES = {
    "django": (WITH_DJANGO, send_django, DJANGO, SETTINGS_OF_DJANGO),
    "dramatiq": (WITH_DRAMATIQ, send_dramatiq, DRAMATIQ, ""),
    "taskiq": (WITH_TASKIQ, send_taskiq, (*TASKIQ, "--max-async-tasks", "4"), ""),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_all_of_it_runs_and_only_what_was_killed_runs_twice(
    name: str, start_library: Start, broker_server: BrokerServer
) -> None:
    """A worker and the broker die by SIGKILL: only what its worker had not acked at its death runs again."""
    source, send, command, settings = LIBRARIES[name]
    library = start_library(source, command, settings)
    send(broker_server.url)
    for number in range(ROUNDS):
        kill_after(library, 120 * number + 20)
        has_ended(library, 120 * number + 60)
        broker_server.kill()
        broker_server.restart()
    has_ended(library, MANY)
    with minibroker.sync.connect(broker_server.url) as broker:
        broker.queue("default").join(timeout=60, delayed=True)
    begun, ended = counted(library, "begins"), counted(library, "ends")
    killed = sum((begun - ended).values())
    assert set(ended) == {str(number) for number in range(MANY)}, library.log
    assert killed <= 4 * ROUNDS, "four of each worker at most"
    again = sum(begun.values()) - MANY
    assert again <= killed + UNSENT * ROUNDS, (begun - ended, library.log)


def counted(library: Library, what: str) -> Counter[str]:
    """Return how often each task has begun, or ended."""
    runs = library.ran()
    return Counter({key.split()[1]: count for key, count in runs.items() if key.startswith(what)})


def has_ended(library: Library, count: int) -> None:
    """Wait until so many tasks have ended."""
    worker = library.workers[-1]
    look_until(lambda: len(counted(library, "ends")) >= count, worker, f"{count} ended", 90)


def kill_after(library: Library, count: int) -> None:
    """Kill the worker with its processes when so many tasks have ended, and start another one."""
    has_ended(library, count)
    os.killpg(library.workers[-1].pid, signal.SIGKILL)
    library.workers[-1].wait()
    library.start()
