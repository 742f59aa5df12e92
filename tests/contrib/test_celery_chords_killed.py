"""Chords under SIGKILLs of workers and broker: every part counts once, and every body is published once."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from libraries import Library, Start

pytest.importorskip("celery", reason="the extra celery is not installed")

from support.broker import BrokerServer
from support.processes import look_until

ROUNDS = int(os.environ.get("ROUNDS") or 1)  # of a kill of the worker and one of the broker
CHORDS = 8 * ROUNDS
PARTS = 10
WORKER = ("celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "2", "-l", "WARNING")
SOURCE = """
import os, time
from celery import Celery, chord
import minibroker.contrib.celery

url = os.environ["MINIBROKER_URL"]
app = Celery("tasks", broker=url, backend=url)
minibroker.contrib.celery.register()
app.conf.update(task_acks_late=True, broker_transport_options={"lease": 2})

@app.task
def part(chord, number):
    time.sleep(0.01)
    ran("part", chord, number)
    return number

@app.task(bind=True)
def body(self, numbers, chord):
    deliveries = (self.request.headers or {}).get("x-delivery-count", 0)
    ran("body", chord, deliveries, *numbers)
    return sum(numbers)

def send(count, parts):
    for n in range(count):
        chord(part.s(n, i) for i in range(parts))(body.s(n).set(task_id=f"body-{n}"))

def check(count, parts):
    for n in range(count):
        assert app.AsyncResult(f"body-{n}").get(timeout=50) == sum(range(parts)), n
"""


def test_bodies_come_once_with_every_part(
    start_library: Start, broker_server: BrokerServer
) -> None:
    """What a killed process had runs again; no chord begins early, twice, or never."""
    library = start_library(SOURCE, WORKER)
    library.call(f"import tasks; tasks.send({CHORDS}, {PARTS})")
    for number in range(ROUNDS):
        first = 8 * PARTS * number
        have_run(library, first + 25)
        os.killpg(library.workers[-1].pid, signal.SIGKILL)
        library.workers[-1].wait()
        library.start()
        have_run(library, first + 50)
        broker_server.kill()
        broker_server.restart()
    library.call(f"import tasks; tasks.check({CHORDS}, {PARTS})")
    bodies = [key.split() for key in library.ran() if key.startswith("body")]
    whole = [str(number) for number in range(PARTS)]
    assert all(body[3:] == whole for body in bodies), bodies
    published = Counter(
        body[1]
        for body in (key.split() for key in library.ran().elements())
        if body[0] == "body" and body[2] == "0"
    )
    assert published == {str(number): 1 for number in range(CHORDS)}, library.log


def have_run(library: Library, count: int) -> None:
    """Wait until so many parts have run."""
    look_until(
        lambda: sum(key.startswith("part") for key in library.ran()) >= count,
        library.workers[-1],
        f"{count} parts",
        90,
    )
