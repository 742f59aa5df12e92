"""What the documentation of Django says of tasks, as a project meets it here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django_project import PREPARED, SETTINGS, project
from libraries import Library

import minibroker.sync
from support.broker import BrokerServer

TASKS = """
from django.utils import translation

@task
def speaks():
    before = translation.get_language()
    translation.activate("de")
    return before

@task
async def speaks_in_loop():
    before = translation.get_language()
    translation.activate("de")
    return before

@task
def nests():
    return speaks.enqueue().id

@task
async def nests_in_loop():
    return (await speaks.aenqueue()).id
"""
BERLIN = 'TIME_ZONE = "Europe/Berlin"\n'


@pytest.fixture
def shop(tmp_path: Path, broker_server: BrokerServer) -> Iterator[Library]:
    """A project with tasks; no worker is started."""
    yield from project(tmp_path, broker_server, TASKS, SETTINGS + BERLIN)


IN_WORKER = """
import asyncio
from minibroker.contrib.django.interface import task_backends

for which in speaks, speaks_in_loop:
    said = [ended(result).return_value for result in [which.enqueue() for _ in range(12)]]
    assert said == ["en-us"] * 12, said
for which in nests, nests_in_loop:
    inner = ended(which.enqueue()).return_value
    assert ended(speaks.get_result(inner)).return_value == "en-us"

async def in_loop():
    result = await speaks_in_loop.aenqueue()
    while not result.is_finished:
        await asyncio.sleep(0.02)
        await result.arefresh()
    for found in await speaks_in_loop.aget_result(result.id), await backend.aget_result(result.id):
        assert found == result and found.return_value == "en-us"

backend = task_backends["default"]
asyncio.run(asyncio.wait_for(in_loop(), 30))
"""


def test_what_a_task_activates_is_its_own_and_a_task_may_enqueue(shop: Library) -> None:
    """A language, which Django keeps by the context, went on in the next coroutine of the same slot."""
    shop.start()
    shop.call(PREPARED + IN_WORKER)


ZONES = """
from datetime import datetime
from zoneinfo import ZoneInfo
zones = [ZoneInfo(name) for name in ("UTC", "Asia/Tokyo")]
"""
TIMES = """
import minibroker.sync

for run_after in TIMES:
    known = speaks.get_result(speaks.using(run_after=run_after).enqueue().id)
    assert known.task.run_after == run_after, known
with minibroker.sync.connect() as broker:
    for found, run_after in zip(broker.queue("default").peek(), TIMES, strict=True):
        ready = found.info["ready_unix_ms"] / 1_000
        assert abs(ready - run_after.timestamp()) < 60, (found, run_after)
"""
SUMMER_AND_WINTER = "[datetime.now() + timedelta(days=days) for days in (90, 180, 270)]"
WITH_ZONES = "[timezone.now().astimezone(each) + timedelta(hours=1) for each in zones]"


@pytest.mark.parametrize(
    ("use_tz", "times"),
    [
        (True, WITH_ZONES),
        (False, SUMMER_AND_WINTER),
        (False, WITH_ZONES.replace("timezone.now()", "datetime.now()")),
    ],
)
def test_run_after_is_a_time_with_or_without_a_zone(
    use_tz: bool, times: str, tmp_path: Path, broker_server: BrokerServer
) -> None:
    """One with a zone was a TypeError without USE_TZ, and one without was an hour off across a change of time."""
    settings = f"{SETTINGS}{BERLIN}USE_TZ = {use_tz}\n"
    for shop in project(tmp_path, broker_server, TASKS, settings):
        shop.call(PREPARED + ZONES + f"TIMES = {times}\n" + TIMES)


WRONG = """
TASKS = {"default": {
    "BACKEND": BACKEND,
    "QUEUES": ["default", "a b", "mails.dlq", "django-results"],
    "OPTIONS": {"settings": {"max_attempts": 3, "attempts": 3}},
}}
"""
CHECKED = """
from minibroker.contrib.django.interface import InvalidTask, task_backends

said = [str(each) for each in task_backends["default"].check()]
whys = "'a b' is no queue name", "'mails.dlq' is a dead", "'attempts'", "has the results"
assert len(said) == len(whys) and all(any(why in each for each in said) for why in whys), said
for name in "a b", "mails.dlq":
    try:
        speaks.using(queue_name=name).enqueue()
    except InvalidTask:
        continue
    raise AssertionError(name)
"""


def test_settings_that_cannot_be_are_said_by_the_check(
    tmp_path: Path, broker_server: BrokerServer
) -> None:
    """Before anything is enqueued, and without a broker."""
    for shop in project(tmp_path, broker_server, TASKS, SETTINGS + WRONG):
        shop.call(PREPARED + CHECKED)


FORKED = """
import os
from minibroker.contrib.django.interface import task_backends

early = speaks.enqueue()  # as a module does that a server has loaded before it forks
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(speaks.get_result(speaks.enqueue().id).status != "READY")
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert speaks.get_result(speaks.enqueue().id).status == speaks.get_result(early.id).status
"""


def test_children_of_a_server_that_was_loaded_before_its_fork_enqueue(
    shop: Library, broker_server: BrokerServer
) -> None:
    """As `gunicorn --preload` has them; the connection of before goes on in the parent alone."""
    shop.call(PREPARED + FORKED)
    with minibroker.sync.connect(broker_server.url) as broker:
        assert len(broker.queue("default").peek(10)) == 5
