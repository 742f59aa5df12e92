"""Schedules that an app declares: `minibroker worker app:app` brings its cron along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from worker_process import WorkerProcess

import minibroker
from minibroker.worker import App
from minibroker.worker.recurring import OWNER_HEADER, placed

StartWorker = Callable[..., WorkerProcess]
HEAD = """
from minibroker.worker import App
app = App({owner})
"""
NIGHTLY = """
@app.schedule("0 3 * * *", {"all": True}, zone="Europe/Berlin", priority=3)
@app.handler("reports")
async def report(message):
    print(message.body)
"""
HOURLY = """
app.schedule("@hourly", name="tidy", queue="tidying")(print)
"""


def head(owner: str = "") -> str:
    """Return the first lines of an app."""
    return HEAD.format(owner=f"owner={owner!r}" if owner else "")


async def names(broker: minibroker.Broker) -> list[str]:
    """Return the names of all schedules."""
    return [each.name for each in await broker.schedules.list()]


async def test_a_worker_brings_its_schedules_along(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """Set once, left as it is at the next start, and a pause stays; changed code changes it."""
    worker = start_worker(head() + NIGHTLY, "--burst")
    assert worker.ends() == 0, worker.output
    assert worker.events("schedules", schedules="reports.report", deleted="")
    first = await broker.schedules.pause("reports.report")
    assert (first.queue, first.cron, first.zone) == ("reports", "0 3 * * *", "Europe/Berlin")
    assert (first.body, first.terms, first.headers) == ({"all": True}, {"priority": 3}, {})
    assert start_worker(head() + NIGHTLY, "--burst").ends() == 0
    assert await broker.schedules.show("reports.report") == first
    changed = NIGHTLY.replace("0 3", "0 4")
    assert start_worker(head() + changed, "--burst").ends() == 0
    (now,) = await broker.schedules.list()
    assert (now.cron, now.paused) == ("0 4 * * *", True)
    await broker.schedules.run("reports.report")
    assert start_worker(head() + changed, "--burst").ends() == 0
    assert (await broker.stats())["queues"]["reports"]["acked"] == 1


async def test_only_an_owner_takes_its_own_schedules_away(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """Not those of nobody, or of others, and not while it works on some queues only."""
    await broker.schedules.set("by-hand", "@daily", "reports")
    assert start_worker(head("shop") + NIGHTLY + HOURLY, "--burst").ends() == 0
    assert await names(broker) == ["by-hand", "reports.report", "tidy"]
    assert (await broker.schedules.show("tidy")).headers == {OWNER_HEADER: "shop"}
    assert start_worker(head("other") + NIGHTLY.replace("report(", "x("), "--burst").ends() == 0
    assert start_worker(head() + NIGHTLY.replace("report(", "y("), "--burst").ends() == 0
    worker = start_worker(head("shop") + NIGHTLY, "--burst", "--queues", "reports")
    assert worker.ends() == 0
    every = ["by-hand", "reports.report", "reports.x", "reports.y", "tidy"]
    assert await names(broker) == every
    worker = start_worker(head("shop") + NIGHTLY, "--burst")
    assert worker.ends() == 0
    assert worker.events("schedules", deleted="tidy")
    assert await names(broker) == [name for name in every if name != "tidy"]


async def test_what_is_no_cron_ends_the_worker_with_the_words_of_the_server(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    worker = start_worker(head() + NIGHTLY.replace("0 3 * * *", "0 99 * * *"), "--burst")
    assert worker.ends() != 0
    assert "99" in worker.output
    assert await names(broker) == []


def test_a_schedule_has_a_queue_and_a_name_of_its_own() -> None:
    """Or the app says what to write, before anything is asked of a server."""
    app = App()

    def handle(message: Any) -> None:
        """Handle it."""

    app.schedule("@daily")(handle)
    with pytest.raises(ValueError, match="handle has a schedule and handles no queue"):
        placed(app.schedules, app.handlers)
    app.handler("mail")(handle)
    assert [each.name for each in placed(app.schedules, app.handlers)] == ["mail.handle"]
    app.schedule("@hourly")(handle)
    with pytest.raises(ValueError, match=r"two schedules are called 'mail\.handle'"):
        placed(app.schedules, app.handlers)
    del app.schedules[1]
    app.handler("post")(handle)
    with pytest.raises(ValueError, match="handles several queues"):
        placed(app.schedules, app.handlers)
    with pytest.raises(minibroker.BadValue, match="misfire"):
        app.schedule("@daily", misfire="sometimes")
    with pytest.raises(minibroker.BadValue, match=OWNER_HEADER):
        app.schedule("@daily", headers={OWNER_HEADER: "me"})(handle)
