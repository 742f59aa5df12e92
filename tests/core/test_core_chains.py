"""Messages that come after others: they go on once, when all have ended, and say how many did not end as done."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from core_client import Client, Delivered, Id, settle_part
from harness import World
from looks import counted

from minibroker.contract import limits, wire
from minibrokerd.core.model.kept import AFTER
from minibrokerd.log.sizes import sizes_of

HOUR_MS = 3_600_000


def after(client: Client, *ids: Id, queue: str = "next", **fields: Any) -> Any:
    """Publish a message that comes after these."""
    runs = wire.pack_runs((0, *id, 1) for id in ids)
    return client.publish(queue, b"after", after=runs, **fields)


def step(client: Client, *parts: dict[str, Any]) -> Any:
    """Publish a message for each part, in one step."""
    count = len(parts)
    lengths = b"\0\0\0\0\1\0\0\0" * count
    whole = [{"op": "publish", "queue": "jobs", "count": 1, **part} for part in parts]
    return client.sequenced(whole, b"", lengths, b"x" * count)


def counts(client: Client, queue: str = "next") -> list[list[int]]:
    """Receive all and return what is said of those that waited."""
    answer = client.receive(queue, 1_000)
    return [] if answer is None else [list(row) for row in answer.get("after", [])]


def jobs(count: int = 3, **settings: Any) -> tuple[World, Client, list[Delivered]]:
    """Return a world whose client has jobs in work."""
    world = World()
    client = world.hello("worker")
    client.set("jobs", **(settings or {"max_attempts": 1}))
    client.publish("jobs", *[b"%d" % number for number in range(count)])
    return world, client, client.receive_all("jobs")


def states(world: World, queue: str = "next") -> list[str]:
    return list(world.states(queue).values()) if queue in world.store.queues else []


def test_it_waits_for_all_and_says_for_whom() -> None:
    world, client, work = jobs()
    after(client, *[job.id for job in work])
    id = (world.queue("next").number, 0)
    assert client.explain(id)["by"] == "3 of 3: 1-0, 1-1, 1-2"
    for job in work[:2]:
        client.settle("ack", job)
        world.run_jobs()
        assert states(world) == ["DELAYED"]
    explained = client.explain(id)
    assert (explained["reason"], explained["by"]) == ("waits_for", "1 of 3: 1-2")
    client.settle("ack", work[2])
    world.run_jobs()
    assert states(world) == ["READY"]
    assert counts(client) == [[*id, 3, 0]]
    world.check()


@pytest.mark.parametrize("end", ["reject", "cancel", "purge", "delete"])
def test_one_that_did_not_end_as_done_lets_it_die_or_run_with_the_counts(end: str) -> None:
    world, client, work = jobs()
    ids = [job.id for job in work]
    after(client, *ids)
    after(client, *ids, if_dead="run")
    client.settle("ack", work[0])
    client.settle("nack", work[1])
    if end == "reject":
        client.settle("reject", work[2])
    elif end == "cancel":
        client.cancel_messages("jobs", ids[2])
    elif end == "purge":
        client.purge("jobs")
    else:
        client.delete("jobs", force=True)
    world.run_jobs()
    assert states(world) == ["READY"]
    assert states(world, "next.dlq") == ["READY"]
    (info,) = client.peek("next.dlq")
    assert "2 of 3 messages that it waited for did not end as done: 1-1 DEAD" in str(info)
    assert [row[2:] for row in counts(client)] == [[1, 2]]
    world.check()


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_over_restarts_each_counts_once(digests: bool, clean: bool) -> None:
    world, client, work = jobs(200)
    world.digests = digests
    after(client, *[job.id for job in work], delay_ms=1_000)
    client.settle("ack", *work[:150])
    world.free(world.core.synced)
    world.restart(clean=clean, lose_unsynced=False)
    world.run_jobs()
    client = world.resume(client, work[150:])
    assert client.explain((2, 0))["by"].startswith("50 of 200: 1-150")
    world.advance(2_000)
    client.settle("ack", *work[150:])
    world.run_jobs()
    assert states(world) == ["DELAYED"], "its own delay begins now"
    world.restart(clean=clean, lose_unsynced=False)
    world.run_jobs()
    client = world.hello()
    world.advance(5_000)
    assert counts(client) == [[2, 0, 200, 0]]
    world.check()


def test_the_counts_stay_until_it_ends_and_no_longer() -> None:
    world, client, (job,) = jobs(1)
    after(client, job.id)
    client.settle("ack", job)
    world.run_jobs()
    [message] = client.receive_all("next")
    client.settle("nack", message)
    world.restart()
    world.run_jobs()
    client = world.hello()
    world.advance(HOUR_MS)
    answer = client.receive("next")
    assert [list(row) for row in answer["after"]] == [[2, 0, 1, 0]]
    client.settle("ack", *answer["messages"])
    assert not list(world.store.kept.of(AFTER))
    assert (world.store.chains.ids, world.store.chains.went) == ({}, {})


def test_a_step_is_a_batch_with_one_that_comes_after_it() -> None:
    world = World()
    client = world.hello()
    step(client, {}, {}, {"queue": "other"}, {"queue": "next", "after_step": 1})
    [first, second] = client.receive_all("jobs")
    client.settle("ack", first, second)
    world.run_jobs()
    assert states(world) == ["DELAYED"]
    client.settle("ack", *client.receive_all("other"))
    world.run_jobs()
    assert [row[2:] for row in counts(client)] == [[3, 0]]


def test_a_chain_dies_from_its_first_to_its_last() -> None:
    world = World()
    client = world.hello()
    step(client, *[{"queue": f"q{at}", "after_step": int(at > 0)} for at in range(60)])
    client.settle("reject", *client.receive_all("q0"))
    world.run_jobs()
    dead = [name for name in world.store.queues if name.endswith(".dlq") and client.peek(name)]
    assert len(dead) == 60
    assert world.store.chains.waiting == {}


@pytest.mark.parametrize("kept", [False, True])
def test_what_has_ended_already_counts_where_it_is_known(kept: bool) -> None:
    world, client, work = jobs(2, result_ms=HOUR_MS if kept else 0, max_attempts=1)
    client.settle("ack", work[0])
    client.settle("nack", work[1])
    answer = after(client, work[0].id, work[1].id, if_dead="run")
    if not kept:
        assert answer["code"] == "unknown_message"
        assert states(world) == []
        after(client, work[1].id, if_dead="run")
    world.run_jobs()
    assert [row[2:] for row in counts(client)] == [[int(kept), 1]]


def test_what_was_in_memory_alone_is_not_waited_for_after_a_start() -> None:
    world, client, work = jobs(2, durability="memory")
    client.set("next", durability="sync")
    after(client, *[job.id for job in work], if_dead="run")
    client.settle("ack", work[0])
    world.restart()
    world.run_jobs()
    world.advance(5_000)
    assert [row[2:] for row in counts(world.hello())] == [[1, 1]]


def test_it_may_be_cancelled_moved_and_expire_and_is_not_retimed() -> None:
    world, client, (job,) = jobs(1)
    for _ in range(3):
        after(client, job.id)
    after(client, job.id, ttl_ms=1_000)
    client.cancel_messages("next", (2, 0))
    assert client.retime("next", (2, 1), 0)["value"]["left"] == {"waits_for": 1}
    client.request({"op": "move", "queue": "next", "target": "elsewhere"})
    world.run_jobs()
    world.restart()
    world.run_jobs()
    client = world.resume(client, [job])
    world.advance(2_000)
    world.run_jobs()
    assert states(world, "elsewhere") == ["DELAYED"] * 2
    client.settle("ack", job)
    world.run_jobs()
    assert [row[2:] for row in counts(client, "elsewhere")] == [[1, 0]] * 2
    assert len(list(world.store.kept.of(AFTER))) == 2


def test_what_it_comes_after_is_found_among_very_many_in_work() -> None:
    """5,000 begun in deliveries of ten cost each publish 17 ms."""
    world, client, work = jobs(1)
    for _ in range(30):
        client.publish("jobs", *[b"x"] * 10)
        work += client.receive_all("jobs", 10)
    client.publish("jobs", *[b"x"] * 500)
    client.consume("jobs", prefetch=1_000)
    held = client.messages()
    with counted(world) as looks:
        for id in (work[155].id, held[250].id):
            assert after(client, id)["op"] == "confirm"
    assert max(count for name, count, _ in looks.applies if name == "Frame") < 60


def test_after_a_start_the_predecessors_of_all_are_looked_for_at_once() -> None:
    """Each of 1,500 that waited for one of 1,500 in work looked at all of these, in one step: 5.7 s."""
    world, client, work = jobs(200)
    for job in work:
        after(client, job.id)
    world.restart(clean=False, lose_unsynced=False)
    with counted(world) as looks:
        world.run_jobs()
    assert sum(count for _, count, _ in looks.applies) < 10 * 200
    assert states(world) == ["DELAYED"] * 200


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_AFTER", 2)
    monkeypatch.setattr(limits, "MAX_AWAITED", 3)
    world, client, work = jobs(3)
    ids = [job.id for job in work]
    assert after(client, *ids)["code"] == "limit_reached"
    assert step(client, {}, {}, {}, {"after_step": 1})["code"] == "limit_reached"
    after(client, *ids[:2])
    assert after(client, *ids[:2])["code"] == "limit_reached"
    client.settle("ack", *work)
    world.run_jobs()
    assert world.store.chains.awaited == 0
    assert after(client, ids[0], if_dead="walk")["code"] == "bad_value"


def test_nothing_is_written_and_nothing_kept_where_nobody_waits() -> None:
    world, client, work = jobs(3)
    client.settle("ack", *work)
    assert (world.store.chains.ids, list(world.store.kept.of(AFTER))) == ({}, [])


@pytest.mark.parametrize("room", ["drop-oldest", "dead-letter"])
def test_what_leaves_to_make_room_for_it_has_ended(room: str) -> None:
    world = World()
    client = world.hello()
    client.set("next", max_messages=2, overflow=room)
    client.publish("next", b"oldest", b"kept")
    after(client, (1, 0), if_dead="run")
    world.run_jobs()
    assert [row[2:] for row in counts(client)] == [[0, 1]]
    assert world.store.chains.expected == {}
    world.check()


def test_it_comes_after_a_message_that_its_own_step_acks() -> None:
    world, client, (job, other) = jobs(2)
    ack, runs = settle_part("ack", "jobs", [job.run])
    ids = wire.pack_runs([(0, *job.id, 1), (0, *other.id, 1)])
    part = {"op": "publish", "queue": "next", "count": 1, "after": ids}
    client.sequenced([ack, part], runs, b"\0\0\0\0\1\0\0\0", b"x")
    assert client.explain((2, 0))["by"] == "1 of 2: 1-1"
    world.restart()
    world.run_jobs()
    client = world.resume(client, [other])
    client.settle("ack", other)
    world.run_jobs()
    assert [row[2:] for row in counts(client)] == [[2, 0]]
    assert client.publish("jobs", b"x")["op"] == "confirm"
    world.check()


def test_a_start_finds_what_was_moved_among_many_queues() -> None:
    world = World()
    client = world.hello()
    client.publish("jobs", *[b"x"] * 1_000)
    for number in range(101):
        client.set(f"other{number}")
    client.publish("next", b"after", after=wire.pack_runs([(0, 1, 0, 1_000)]))
    move = {"op": "move", "queue": "jobs", "target": "other50", "runs": 1}
    client.request(move, wire.pack_runs([(0, 1, 7, 1)]))
    world.run_jobs()
    world.restart()
    world.run_jobs()
    id = (world.queue("next").number, 0)
    assert world.hello().explain(id)["by"].startswith("1000 of 1000")


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_a_step_and_the_ends_of_what_it_acks_are_one_batch_or_it_is_refused(waiting: int) -> None:
    """What is noted of the ends counts, for each that waits for them, too."""
    world = World(sizes=sizes_of(200_000))
    client = world.hello()
    client.publish("jobs", *[b"x"] * 200)
    for _ in range(waiting):
        client.publish("next", b"after", after=wire.pack_runs([(0, 1, 0, 200)]))
    work = client.receive_all("jobs")
    ack, runs = settle_part("ack", "jobs", [(work[0].token, 1, 0, 200)])
    before, parts = len(world.log), [{"op": "publish", "queue": "other", "count": 1}, ack]
    for size in range(0, 150_000, 1_000):
        answer = client.sequenced(
            parts, runs, struct.pack("<II", 0, 150_000 - size), b"x" * (150_000 - size)
        )
        if answer is not None and answer["op"] == "confirm":
            break
        assert answer is None or answer["code"] == "too_large"
        assert len(world.log) == before, "nothing was stored"
    assert len(world.log) == before + 1
    assert states(world, "jobs") == []


def test_nothing_is_told_of_queues_that_a_token_does_not_cover() -> None:
    world, _, _ = jobs(2, result_ms=HOUR_MS)

    class Mine:
        def covers(self, queue: str) -> bool:
            return queue.startswith("next")

    spy = world.hello()
    world.store.connections[spy.connection].scope = Mine()
    assert after(spy, (1, 0))["code"] == "unknown_message"
    assert spy.publish("next", b"own")["op"] == "confirm"
    assert after(spy, (2, 0))["op"] == "confirm"
