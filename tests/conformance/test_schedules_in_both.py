"""Schedules over both clients, on a server and on a broker in process."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

import minibroker


async def test_a_schedule_is_set_shown_paused_and_deleted(broker: Any, queue: Any) -> None:
    name = queue.name
    made = await broker.schedules.set(
        name,
        "30 2 29 2 *",
        name,
        {"all": True},
        zone="Europe/Berlin",
        misfire="skip",
        headers={"a": "b"},
        key="k",
        delay=1.5,
        max_attempts=3,
        lease=60,
        priority=8,
        unique_key="u",
        unique="replace",
    )
    assert (made.cron, made.zone, made.misfire) == ("30 2 29 2 *", "Europe/Berlin", "skip")
    assert made.next > datetime.now(UTC)
    assert (made.next.month, made.next.day, made.next.hour, made.last) == (2, 29, 1, None)
    assert (made.body, made.headers) == ({"all": True}, {"a": "b"})
    terms = {"key": "k", "delay_ms": 1_500, "max_attempts": 3, "lease_ms": 60_000, "priority": 8}
    terms |= {"unique_key": "u", "unique_mode": "replace"}
    assert made.terms == terms
    assert await broker.schedules.show(name) == made
    assert made in await broker.schedules.list()
    paused = await broker.schedules.pause(name)
    assert paused.paused
    assert (await broker.schedules.resume(name)) == made
    assert await broker.schedules.delete(name)
    assert not await broker.schedules.delete(name)
    with pytest.raises(minibroker.UnknownSchedule):
        await broker.schedules.show(name)


async def test_a_job_is_published_every_second(broker: Any, queue: Any) -> None:
    """By a real clock: two jobs, one for each second."""
    await broker.schedules.set(queue.name, "* * * * * *", queue.name, b"tick")
    jobs: list[Any] = []
    while len(jobs) < 2:
        jobs += await queue.receive(2, wait=10)
    await broker.schedules.delete(queue.name)
    due = [job.headers["minibroker-due-unix-ms"] for job in jobs]
    assert due[1] - due[0] == 1_000
    assert {job.headers["minibroker-schedule"] for job in jobs} == {queue.name}
    assert [job.body for job in jobs] == [b"tick", b"tick"]
    for job in jobs:
        await job.ack()


async def test_a_job_is_published_now(broker: Any, queue: Any) -> None:
    await broker.schedules.set(queue.name, "@yearly", queue.name, {"n": 1}, key="k")
    confirm = await broker.schedules.run(queue.name)
    (job,) = await queue.receive()
    assert (job.id, job.body, job.key) == (confirm.id, {"n": 1}, "k")
    await job.ack()
    await broker.schedules.delete(queue.name)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cron": "61 * * * *"}, minibroker.BadValue),
        ({"zone": "Europe/Bonn"}, minibroker.BadValue),
        ({"misfire": "twice"}, minibroker.BadValue),
        ({"cron": 5}, TypeError),
        ({"body": object()}, TypeError),
        ({"body": bytes(20_000)}, minibroker.TooLarge),
        ({"name": "a b"}, minibroker.BadName),
    ],
)
async def test_what_can_be_no_schedule_is_refused(
    broker: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    whole = {"name": "s", "cron": "@daily", "queue": "q", **arguments}
    with pytest.raises(error):
        await broker.schedules.set(**whole)
