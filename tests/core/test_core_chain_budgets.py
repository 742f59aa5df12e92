"""However many messages wait for others, and others for them: no apply does more than a little of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client, Delivered, Id
from harness import World
from looks import MOST, counted, small_budget

from minibroker.contract import limits, wire
from minibrokerd.core.model import chains
from minibrokerd.core.model.kept import AFTER
from minibrokerd.core.verbs import chaining, moving

__all__ = ["small_budget"]
MANY = 400
End = Callable[[Client, Delivered], Any]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_TOLD", 20)
    monkeypatch.setattr(chaining, "GO_ON", 20)
    monkeypatch.setattr(chaining, "STEP_LOST", 20)
    monkeypatch.setattr(moving, "STEP_MESSAGES", 50)


def after(client: Client, ids: list[Id], queue: str = "next", **fields: Any) -> Any:
    """Publish a message that comes after these."""
    runs = wire.pack_runs((0, *id, 1) for id in ids)
    return client.publish(queue, b"after", after=runs, if_dead="run", **fields)


def followed(followers: int = MANY, jobs: int = 1) -> tuple[World, Client, list[Delivered]]:
    """Return a world in which so many wait, each for the same job, or in turn for one of some."""
    world = World()
    client = world.hello("worker")
    client.publish("jobs", *[b"x"] * jobs)
    work = client.receive_all("jobs")
    for number in range(followers):
        client.answered_below = client.sequence + 1
        after(client, [work[number % jobs].id])
    return world, client, work


def counts(world: World, queue: str = "next") -> list[tuple[int, int]]:
    """Return with which counts messages went on."""
    return list(world.store.chains.went.values())


def ack(client: Client, job: Delivered) -> Any:
    return client.settle("ack", job)


def reject(client: Client, job: Delivered) -> Any:
    return client.settle("reject", job)


def purge(client: Client, job: Delivered) -> Any:
    return client.purge("jobs")


def cancel(client: Client, job: Delivered) -> Any:
    return client.cancel_messages("jobs", job.id)


@pytest.mark.parametrize("end", [ack, reject, purge, cancel])
def test_the_end_of_one_that_very_many_wait_for_is_told_in_steps(end: End) -> None:
    world, client, (job,) = followed()
    with counted(world) as looks:
        end(client, job)
        world.run_jobs()
    assert counts(world) == [(1, 0) if end is ack else (0, 1)] * MANY
    assert looks.most <= MOST, looks.applies
    assert looks.most_bytes <= 4_000
    assert {entry.key[2] for entry in world.store.kept.of(AFTER)} == {0}, "all is told"
    assert list(world.store.chains.ids) == list(world.store.chains.went)
    world.check()


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("steps", [0, 7, 31])
@pytest.mark.parametrize("end", [ack, purge])
def test_a_crash_between_two_steps_is_no_end_of_another_kind(
    end: End, steps: int, digests: bool
) -> None:
    world, client, (job,) = followed()
    world.digests = digests
    end(client, job)
    for _ in range(steps):
        world.run_job()
    world.free(world.core.synced)
    world.restart(clean=False, lose_unsynced=False)
    with counted(world) as looks:
        world.run_jobs()
    assert counts(world) == [(1, 0) if end is ack else (0, 1)] * MANY
    assert looks.most <= MOST, looks.applies
    assert {entry.key[2] for entry in world.store.kept.of(AFTER)} == {0}
    world.check()


def test_the_ends_of_a_batch_in_one_frame_are_an_entry_for_64_of_them() -> None:
    world = World()
    client = world.hello()
    client.publish("jobs", *[b"x"] * MANY)
    client.publish("next", b"after", after=wire.pack_runs([(0, 1, 0, MANY)]))
    work = client.receive_all("jobs", MANY)
    before = len(world.log)
    client.settle("ack", *work)
    records = [record for batch in world.log[before:] for record in batch.records]
    assert len(records) == 1 + -(-MANY // chains.CHUNK)
    world.run_jobs()
    assert counts(world) == [(MANY, 0)]


def test_ends_that_one_or_two_wait_for_each_are_told_together_later() -> None:
    """In one entry, of all that ended: one for each would be as much as to tell them."""
    world, client, work = followed(followers=400, jobs=200)
    before = len(world.log)
    with counted(world) as looks:
        client.settle("ack", *work)
    records = [record for batch in world.log[before:] for record in batch.records]
    assert len(records) <= 22, "20 are told, an entry says the rest, and the ack"
    world.restart(clean=False)
    world.run_jobs()
    assert counts(world) == [(1, 0)] * 400
    assert looks.most <= 3 * 400, "each is looked at, and that is all"


@pytest.mark.parametrize("end", ["purge", "delete"])
def test_a_purge_tells_those_who_wait_for_very_many_in_steps(end: str) -> None:
    world = World()
    client = world.hello()
    for number in range(MANY):
        client.answered_below = client.sequence + 1
        client.publish("jobs", b"x")
        after(client, [(1, number)])
    asking = world.hello("asking")
    part = {"op": "result", "queue": "jobs", "runs": 1, "wait_ms": 60_000}
    asking.request(part, wire.pack_runs([(0, 1, MANY - 1, 1)]))
    with counted(world) as looks:
        client.purge("jobs") if end == "purge" else client.delete("jobs", force=True)
        world.run_jobs()
    assert looks.most <= MOST, looks.applies
    assert counts(world) == [(0, 1)] * MANY
    state = asking.answer(request=asking.requests)["value"]["state"]
    assert state == ("PURGED" if end == "purge" else "DELETED")
    assert client.purge("next")["value"]["purged"] == MANY
    world.run_jobs()
    assert list(world.store.kept.of(AFTER)) == []
    assert world.store.chains.ids == {}
    world.check()


@pytest.mark.parametrize("waiting", [False, True])
def test_those_that_wait_are_purged_in_steps(waiting: bool) -> None:
    world, client, (job,) = followed()
    if not waiting:
        client.settle("ack", job)
        world.run_jobs()
    with counted(world) as looks:
        client.purge("next")
        world.run_jobs()
    assert looks.most <= MOST, looks.applies
    assert list(world.store.kept.of(AFTER)) == []
    assert (world.store.chains.awaited, world.store.chains.waiting) == (0, {})


def test_a_crash_in_the_purge_of_those_that_wait_forgets_them() -> None:
    world, client, _ = followed()
    client.purge("next")
    world.run_job()
    world.restart(clean=False)
    world.run_jobs()
    assert list(world.store.kept.of(AFTER)) == []
    assert world.store.chains.awaited == 0


def test_what_a_start_finds_lost_is_noted_in_steps() -> None:
    world = World()
    client = world.hello()
    client.set("jobs", durability="memory")
    client.publish("jobs", *[b"x"] * MANY)
    for number in range(MANY):
        client.answered_below = client.sequence + 1
        after(client, [(1, number)])
    world.restart(clean=False)
    with counted(world) as looks:
        world.run_jobs()
    assert looks.most <= MOST, looks.applies
    assert counts(world) == [(0, 1)] * MANY


def test_a_start_finds_what_was_moved_however_many_queues_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond so many looks all of them counted as lost, and what waited for them died."""
    monkeypatch.setattr(chaining, "MOST_LOOKS", 10)
    world = World()
    client = world.hello()
    client.publish("jobs", b"1", b"2", b"3")
    for number in range(20):
        client.set(f"other{number}")
    after(client, [(1, 0), (1, 1), (1, 2)])
    client.request({"op": "move", "queue": "jobs", "target": "other17", "runs": 0})
    assert after(client, [(1, 0)])["code"] == "limit_reached"
    client.receive_all("other17", 1)
    world.restart(clean=False)
    world.run_jobs()
    assert counts(world) == []
    assert world.hello().explain((world.queue("next").number, 0))["by"].startswith("3 of 3")


def test_what_a_frame_names_counts_by_messages_and_not_by_runs() -> None:
    world = World()
    client = world.hello()
    client.publish("jobs", *[b"x"] * 1_000)
    run = wire.pack_runs([(0, 1, 0, 1_000)])
    part = {"op": "publish", "queue": "next", "count": 1, "after": run}

    def step(count: int, **fields: Any) -> Any:
        parts = [part] * (count - 1) + [part | fields]
        return client.sequenced(parts, b"", b"\0\0\0\0\1\0\0\0" * count, b"x" * count)

    assert step(11)["code"] == "limit_reached"
    assert step(2, after_step=1)["code"] == "limit_reached", "1,001 of one message"
    assert world.store.chains.awaited == 0
    assert step(10)["op"] == "confirm"
    assert world.store.chains.awaited == limits.MAX_AFTER_PER_FRAME


def test_what_is_awaited_counts_as_memory() -> None:
    world, client, (job,) = followed()
    standing = (
        world.store.standing
    )  # each of them is larger once it goes on: a message with a history
    before = world.core.memory_bytes() - standing.item_bytes
    client.settle("ack", job)
    world.run_jobs()
    after = world.core.memory_bytes() - standing.item_bytes
    assert before - after >= MANY * chains.AWAITED_BYTES
