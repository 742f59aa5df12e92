"""Django's Tasks on minibroker, with the worker that `manage.py minibroker_worker` is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django_project import PREPARED, project
from libraries import Library

import minibroker.sync
from support.broker import BrokerServer

TASKS = """
from minibroker.worker import Retry

@task
def add(a, b):
    ran(a + b)
    return a + b

@task(queue_name="mails", takes_context=True)
async def mail(context, *words):
    ran(context.attempt, *words)
    if context.attempt == 1:
        raise Retry("once more", delay=0.1)
    return list(words)

@task
def bad():
    ran("bad")
    raise ValueError("no good")

@task
def unspeakable():
    return object()

@task
def says(what, times):
    ran(what)
    raise OSError(chr(int(what, 16)) * times)
"""
SENDING = """
early = add.enqueue(1, b=2)
assert early.status == "READY" and early.args == [1] and early.kwargs == {"b": 2}
late_at = timezone.now() + timedelta(seconds=0.4)
late = add.using(run_after=late_at).enqueue(10, 20)
mailed = mail.using(priority=-7).enqueue("to", "bob")
def gone():
    pass
gone.__module__ = "tasks"
import tasks
tasks.gone = task(gone)  # no worker has it
failed, unspoken = bad.enqueue(), unspeakable.enqueue()

assert ended(early).return_value == 3
assert ended(late).return_value == 30 and late.started_at >= late_at
assert early.enqueued_at <= early.started_at <= early.finished_at
assert ended(mailed).return_value == ["to", "bob"] and mailed.attempts == 2
assert [error.exception_class.__name__ for error in mailed.errors] == ["Retry"]
[error] = ended(failed).errors
assert error.exception_class is ValueError and 'raise ValueError("no good")' in error.traceback
assert ended(unspoken).errors[0].exception_class is TypeError
[error] = ended(tasks.gone.enqueue()).errors
assert error.exception_class is ImportError and "gone" in error.traceback
assert bad.get_result(failed.id).status == "FAILED"
"""


@pytest.fixture
def shop(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Library]:
    """A project with tasks; no worker is started."""
    yield from project(tmp_path, broker_server, TASKS)


def test_a_worker_runs_what_was_enqueued_and_says_what_it_came_to(
    shop: Library, broker_server: BrokerServer
) -> None:
    """In a thread or in the loop, now or later, well or not; what failed for good is dead with its error."""
    shop.start()
    shop.call(PREPARED + SENDING)
    runs = {"3": 1, "30": 1, "1 to bob": 1, "2 to bob": 1, "bad": 1}
    assert shop.ran() == runs, shop.log
    with minibroker.sync.connect(broker_server.url) as broker:
        dead = [peeked.history[-1] for peeked in broker.queue("default.dlq").peek(10)]
        assert sorted(each["error_class"] for each in dead) == [
            "Reject",
            "TypeError",
            "ValueError",
        ]


SAYING = """
# A file's name that is no UTF-8 has such characters; the other error is longer than a message may be.
for what, times, end in ("dcff", 1, "OSError: \\\\udcff"), ("78", 17_000_000, "xxxxx"):
    result = ended(says.enqueue(what, times))
    assert result.status == "FAILED" and result.errors[0].traceback.rstrip().endswith(end)
"""


def test_an_error_whose_text_cannot_be_kept_as_it_is_ends_its_task_as_any_other(
    shop: Library,
) -> None:
    """It runs once, and what it came to is known."""
    shop.start()
    shop.call(PREPARED + SAYING)
    assert shop.ran() == {"dcff": 1, "78": 1}, shop.log


def test_a_task_that_failed_is_dead_though_its_result_is_refused(
    shop: Library, broker_server: BrokerServer
) -> None:
    """It ran again and again, and its error was that of the queue of results."""
    shop.call(PREPARED + "bad.enqueue()\n")
    with minibroker.sync.connect(broker_server.url) as broker:
        broker.queue("django-results").set(max_bytes=1, overflow="reject")
        shop.start()
        with broker.queue("default.dlq").consume() as messages:
            next(iter(messages)).release()
        [dead] = broker.queue("default.dlq").peek(10)
    assert [each["error_class"] for each in dead.history] == ["ValueError"], shop.log
    assert shop.ran() == {"bad": 1}, shop.log


REFUSED = """
from minibroker.contrib.django.backend import priority_of
from minibroker.contrib.django.interface import TaskResultDoesNotExist, task_backends

for wrong in (math.nan, {"deep": [math.inf]}, "".join, object(), b"\\xff"):
    try:
        add.enqueue(wrong, 1)
    except (TypeError, ValueError):
        continue
    raise AssertionError(wrong)
for name in ("nobody", "", 7):
    try:
        add.get_result(name)
    except TaskResultDoesNotExist:
        continue
    raise AssertionError(name)

steps = {-100: 0, -76: 0, -75: 1, -26: 2, -25: 3, -1: 3, 0: 4, 1: 5, 20: 5, 21: 6, 80: 8, 81: 9, 100: 9}
assert {priority: priority_of(priority) for priority in steps} == steps

add.using(priority=-1).enqueue("behind", 1)
committed = add.using(backend="committed")
with transaction.atomic():
    inside = committed.enqueue({1: (2,)}, 1)
    assert inside.args == [{"1": [2]}, 1]
    try:
        inside.refresh()
    except TaskResultDoesNotExist:
        pass
    else:
        raise AssertionError("it is there before the commit")
assert committed.get_result(inside.id).status == "READY"
try:
    with transaction.atomic():
        committed.enqueue(3, 4)
        raise KeyError
except KeyError:
    pass
"""


def test_what_cannot_be_sent_is_refused_and_a_transaction_is_waited_for(
    shop: Library, broker_server: BrokerServer
) -> None:
    """Nothing is stored of what is refused, or rolled back."""
    shop.call(PREPARED + REFUSED)
    with minibroker.sync.connect(broker_server.url) as broker:
        first, second = broker.queue("default").receive(10)
        assert b'"args":[{"1":[2]},1]' in first.raw
        assert b'"args":["behind",1]' in second.raw, "its priority is below that of the other"
