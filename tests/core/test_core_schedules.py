"""protocol.md, `schedule_set` and what follows it: one job for each instant, whatever happens to the server."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from core_client import Client
from harness import START_UNIX_MS, World

from minibroker.contract import limits, wire
from minibrokerd.core.model import scheduled
from minibrokerd.core.model.inputs import Tick
from minibrokerd.core.model.records import PublishMeta, ReturnMeta, StateMeta, decode
from minibrokerd.log.sizes import sizes_of

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# The first whole minute behind the start of a world.
FIRST_MS = -(-START_UNIX_MS // MINUTE_MS) * MINUTE_MS


def asked(client: Client, part: dict[str, Any], columns: bytes = b"") -> dict[str, Any]:
    """Return the value that a request is answered with, or the error."""
    answer = client.request(part, columns)
    assert answer is not None
    value: dict[str, Any] = answer.get("value", answer)
    return value


def content(body: bytes = b"job", headers: dict[str, Any] | None = None) -> bytes:
    """Return the column of a schedule."""
    return wire.pack_strings([msgpack.packb(headers) if headers else b"", body])


def put(
    client: Client, name: str = "s", cron: str = "* * * * *", column: bytes = b"", **more: Any
) -> dict[str, Any]:
    """Set a schedule; return the answer."""
    part = {"op": "schedule_set", "name": name, "queue": "q", "cron": cron, "terms": {}, **more}
    return asked(client, part, column or content())


def shown(client: Client, name: str = "s") -> dict[str, Any]:
    """Return what is said of one schedule."""
    value = asked(client, {"op": "schedules", "name": name})
    found: dict[str, Any] = value["schedules"][0]
    return found


def jobs(client: Client, queue: str = "q") -> list[tuple[str, int]]:
    """Return the schedule and the instant of each job in a queue, as they lie there."""
    found = []
    for each in client.peek(queue):
        headers = msgpack.unpackb(each["headers"])
        found.append((headers["minibroker-schedule"], headers["minibroker-due-unix-ms"]))
    return found


def minutes(
    count: int, first_ms: int = FIRST_MS, step_ms: int = MINUTE_MS
) -> list[tuple[str, int]]:
    """Return so many jobs of `s`, one for each step."""
    return [("s", first_ms + at * step_ms) for at in range(count)]


def test_each_instant_has_one_job() -> None:
    """At its time, within a tick, with the body, the terms and the headers that it was given."""
    world = World()
    client = world.hello()
    column = content(b"\x01", {"a": "b"})
    answer = put(client, column=column, encoding=1, terms={"key": "k", "max_attempts": 3})
    assert answer["created"] == 1
    assert answer["next_unix_ms"] == FIRST_MS
    world.advance(FIRST_MS - world.unix_ms - 1)
    assert jobs(client) == []
    world.advance(10)
    (job,) = client.peek("q")
    headers = {"a": "b", "minibroker-schedule": "s", "minibroker-due-unix-ms": FIRST_MS}
    assert msgpack.unpackb(job["headers"]) == headers
    assert (job["body"], job["key"], job["encoding"]) == (b"\x01", "k", 1)
    world.advance(2 * MINUTE_MS)
    assert jobs(client) == minutes(3)
    found = shown(client)
    assert (found["last_unix_ms"], found["next_unix_ms"]) == (
        FIRST_MS + 2 * MINUTE_MS,
        FIRST_MS + 3 * MINUTE_MS,
    )
    world.check()


@pytest.mark.parametrize("seed", range(30))
def test_one_job_an_instant_over_crashes_at_any_time(seed: int) -> None:
    """Whatever was synced of it, and however often: none twice, none left out."""
    rng = random.Random(seed)
    world = World(auto_sync=False, segment_batches=rng.choice((1, 3)))
    world.digests = rng.random() < 0.5
    client = world.hello()
    client.request({"op": "schedule_set", "name": "s", "queue": "q", "cron": "* * * * *",
                    "misfire": "all", "terms": {}}, content())  # fmt: skip
    world.sync()
    end_ms = FIRST_MS + 20 * MINUTE_MS
    while world.unix_ms < end_ms:
        world.advance(rng.choice((100, 20_000, MINUTE_MS)))
        if rng.random() < 0.5:
            world.close_batch()
        if world.closed and rng.random() < 0.7:
            world.sync_one()
        if rng.random() < 0.3:
            down_ms = rng.choice((0, 1_000, 3 * MINUTE_MS))
            world.restart(clean=False, lose_unsynced=rng.random() < 0.7, wall_ms=down_ms)
        if rng.random() < 0.1:
            world.sync()
            if world.log:
                world.free(world.core.synced)
    world.advance(1_000)
    world.sync()
    world.restart(clean=False)
    world.run_jobs()
    world.sync()
    client = world.hello()
    got = jobs(client)
    assert got == minutes(len(got))
    assert got[-1][1] > end_ms - MINUTE_MS
    world.check()


def test_a_job_and_the_next_instant_stand_in_one_batch() -> None:
    """Also where the batch is full to the last byte before them: a crash must not find one without the other."""
    sizes = sizes_of(256 * 1024)
    world = World(sizes=sizes)
    client = world.hello()
    put(client, column=content(bytes(9_000)))
    world.advance(FIRST_MS - world.unix_ms - 1)
    world.unix_ms = FIRST_MS
    world.now_ms += 8
    store = world.store
    effects = world.core.apply(Tick(), world.now_ms, world.unix_ms)  # the timer, and the first step
    together = [type(decode(record)) for record in effects.records]
    assert together[-2:] == [PublishMeta, StateMeta]
    store.effects = effects
    effects.record_bytes = sizes.apply_bytes - 20_000
    before = store.open_batch
    store.keep_together(19_999)
    assert store.open_batch == before
    store.keep_together(20_001)
    assert (store.open_batch, effects.records, effects.record_bytes) == (before + 1, [], 0)
    assert [number for number, _, _ in effects.ended] == [before]


@pytest.mark.parametrize("leases", [10, 44, 48, 52, 56])
def test_they_do_so_whatever_ends_in_that_moment(leases: int) -> None:
    """As many leases end as leave room behind their records for both, for one of the two, or for none."""
    world = World(auto_sync=False, sizes=sizes_of(8 * 1024))
    client = world.hello()
    client.request({"op": "queue_set", "queue": "other", "settings": {"lease_ms": 10_000}})
    part = {"op": "schedule_set", "name": "s", "queue": "q", "cron": "* * * * *", "terms": {}}
    client.request(part, content(bytes(1_000)))
    for _ in range(leases):
        client.publish("other", b"x")
    world.sync()
    world.advance(FIRST_MS - world.unix_ms - 10_000)
    for _ in range(leases):
        client.receive("other")
    world.sync()
    world.advance(10_016)
    world.close_batch()
    said = [[type(decode(record)) for record in batch.records] for batch in world.closed]
    assert sum(batch.count(ReturnMeta) for batch in said) == leases
    (job,) = [batch for batch in said if PublishMeta in batch]
    assert job[-2:] == [PublishMeta, StateMeta]
    assert len(said) == 1 + (leases > 10)


@pytest.mark.parametrize(
    ("misfire", "down_ms", "late"),
    [
        ("once", 10 * MINUTE_MS, [10]),
        ("once", 10 * DAY_MS, [10 * 24 * 60]),
        ("skip", 10 * MINUTE_MS, [10]),  # the last one is less than a minute ago
        ("all", 10 * MINUTE_MS, list(range(11))),
    ],
)
def test_what_passed_while_the_server_was_down(misfire: str, down_ms: int, late: list[int]) -> None:
    """`once` and `skip` make up for the last instant alone, `all` for each, in their order."""
    world = World()
    client = world.hello()
    put(client, misfire=misfire)
    world.advance(FIRST_MS - world.unix_ms - 5_000)
    world.restart(clean=False, wall_ms=down_ms + 10_000)
    world.advance(100)
    client = world.hello()
    assert jobs(client) == [("s", FIRST_MS + at * MINUTE_MS) for at in late]
    world.advance(MINUTE_MS)
    assert len(jobs(client)) == len(late) + 1


def test_skip_leaves_out_what_is_more_than_a_minute_ago() -> None:
    """And says so; the next one is on time."""
    world = World()
    client = world.hello()
    put(client, cron="@hourly", misfire="skip")
    due_ms = shown(client)["next_unix_ms"]
    world.restart(wall_ms=due_ms - world.unix_ms + scheduled.GRACE_MS + 1_000)
    world.advance(100)
    client = world.hello()
    found = shown(client)
    assert (found["last_unix_ms"], found["next_unix_ms"]) == (0, due_ms + HOUR_MS)
    schedules = world.store.schedules
    assert (schedules.counted, schedules.misfires) == (
        {"published": 0, "duplicate": 0, "skipped": 1, "by_hand": 0},
        1,
    )
    world.advance(HOUR_MS)
    assert jobs(client) == [("s", due_ms + HOUR_MS)]
    asked(client, {"op": "schedule_run", "name": "s"})
    assert (schedules.counted, schedules.misfires) == (
        {"published": 1, "duplicate": 0, "skipped": 1, "by_hand": 1},
        1,
    )


def test_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 1,000 jobs in a row make up for what passed, then the last one; also over a crash between them."""
    monkeypatch.setattr(scheduled, "MOST_MISSED", 5)
    world = World()
    client = world.hello()
    put(client, misfire="all")
    world.restart(clean=False, wall_ms=DAY_MS)
    world.now_ms += 8
    for _ in range(3):
        world.run_job()
    world.restart(clean=False)
    world.advance(100)
    client = world.hello()
    now = world.unix_ms // MINUTE_MS * MINUTE_MS
    assert jobs(client) == [*minutes(5), ("s", now)]


def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    """What was published for 12:00 is not published again when it is 12:00 once more."""
    world = World()
    client = world.hello()
    put(client)
    world.advance(3 * MINUTE_MS)
    before = jobs(client)
    world.unix_ms -= 2 * MINUTE_MS
    world.advance(2 * MINUTE_MS - 20_000)
    assert jobs(client) == before
    world.advance(MINUTE_MS + 20_000)
    assert jobs(client) == minutes(len(before) + 1)


def test_a_clock_that_is_set_forward_is_noticed_within_ten_seconds() -> None:
    """What it passed over counts as missed; what is due then is not late by what the clock jumped."""
    world = World()
    client = world.hello()
    put(client, cron="@hourly")
    due_ms = shown(client)["next_unix_ms"]
    world.advance(1_000)
    world.unix_ms = due_ms - 5_000
    world.advance(11_000)
    assert jobs(client) == [("s", due_ms)]
    world.unix_ms += 5 * HOUR_MS
    world.advance(11_000)
    assert jobs(client) == [("s", due_ms), ("s", due_ms + 5 * HOUR_MS)]


def test_a_full_queue_makes_its_jobs_wait() -> None:
    """The job stays due and is published when there is room; what passed meanwhile is as its policy says."""
    world = World()
    client = world.hello()
    client.request({"op": "queue_set", "queue": "q", "settings": {"max_messages": 1}})
    put(client)
    world.advance(FIRST_MS - world.unix_ms + 3 * MINUTE_MS + 1_000)
    assert jobs(client) == minutes(1)
    assert "holds 1 of its 1 max_messages" in shown(client)["waits"]
    client.settle("ack", *client.receive_all("q"))
    world.advance(2_000)
    assert jobs(client) == [("s", FIRST_MS + 3 * MINUTE_MS)]
    assert "waits" not in shown(client)


def test_without_room_nothing_is_published() -> None:
    """The shell says with each tick whether there is some."""
    world = World()
    client = world.hello()
    put(client)
    world.advance(FIRST_MS - world.unix_ms - 1)
    world.now_ms, world.unix_ms = world.now_ms + 9, world.unix_ms + 9
    for _ in range(3):
        world.apply(Tick(has_room=False))
    assert jobs(client) == []
    assert shown(client)["waits"] == "no room on the disk or in memory"
    world.advance(2_000)
    assert jobs(client) == minutes(1)


def test_a_schedule_that_is_set_again_as_it_is_changes_nothing() -> None:
    """So a program may set it at each start, also just before it is due, and after it was missed."""
    world = World()
    client = world.hello()
    put(client)
    records = len(world.log)
    assert put(client)["created"] == 0
    assert len(world.log) == records
    world.advance(10 * MINUTE_MS)
    before = shown(client)
    assert put(client, column=content(b"other"))["next_unix_ms"] == before["next_unix_ms"]
    assert shown(client)["body"] == b"other"
    changed = put(client, cron="0 * * * *", column=content(b"other"))
    assert changed["next_unix_ms"] % HOUR_MS == 0
    assert changed["last_unix_ms"] == before["last_unix_ms"]


def test_a_deleted_schedule_publishes_no_more() -> None:
    """Over a crash, too; what it published stays, and its name is free."""
    world = World()
    client = world.hello()
    put(client)
    world.advance(2 * MINUTE_MS)
    count = len(jobs(client))
    assert asked(client, {"op": "schedule_delete", "name": "s"}) == {"deleted": 1}
    assert asked(client, {"op": "schedule_delete", "name": "s"}) == {"deleted": 0}
    assert asked(client, {"op": "schedules"}) == {"schedules": []}
    world.advance(HOUR_MS)
    world.restart(clean=False, wall_ms=HOUR_MS)
    world.advance(HOUR_MS)
    client = world.hello()
    assert len(jobs(client)) == count
    assert asked(client, {"op": "schedules", "name": "s"})["code"] == "unknown_schedule"
    assert put(client)["created"] == 1


def test_a_paused_schedule_rests_until_it_is_resumed() -> None:
    """Over a restart; what passed meanwhile is left out, whatever its policy."""
    world = World()
    client = world.hello()
    put(client, misfire="all")
    answer = asked(client, {"op": "schedule_pause", "name": "s", "paused": 1})
    assert answer["paused"] == 1
    world.restart(clean=False, wall_ms=DAY_MS)
    world.advance(HOUR_MS)
    client = world.hello()
    assert jobs(client) == []
    assert put(client, misfire="all")["paused"] == 1  # a program that starts does not resume it
    answer = asked(client, {"op": "schedule_pause", "name": "s", "paused": 0})
    assert answer["next_unix_ms"] > world.unix_ms
    world.advance(MINUTE_MS)
    assert jobs(client) == [("s", answer["next_unix_ms"])]


def test_run_publishes_one_job_beside_the_calendar() -> None:
    """Its instant is now, the next one stays; a paused one can be run, too."""
    world = World()
    client = world.hello()
    put(client, cron="@yearly")
    asked(client, {"op": "schedule_pause", "name": "s", "paused": 1})
    before = shown(client)
    answer = asked(client, {"op": "schedule_run", "name": "s"})
    assert (answer["first"], answer["durability"]) == (0, "sync")
    assert jobs(client) == [("s", world.unix_ms)]
    assert shown(client) == before
    world.restart(clean=False)
    assert jobs(world.hello()) == [("s", world.unix_ms)]


def test_schedules_are_shown_page_by_page() -> None:
    """In the order of their names."""
    world = World()
    client = world.hello()
    names = [f"s{at}" for at in range(7)]
    for name in reversed(names):
        put(client, name=name)
    found: list[str] = []
    after = ""
    while True:
        page = asked(client, {"op": "schedules", "after": after, "count": 3})
        found += [each["name"] for each in page["schedules"]]
        if "next" not in page:
            break
        after = page["next"]
    assert found == names


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"cron": "61 * * * *"}, "bad_value"),
        ({"cron": "0 0 30 2 *"}, "bad_value"),
        ({"zone": "Europe/Bonn"}, "bad_value"),
        ({"misfire": "twice"}, "bad_value"),
        ({"name": "a b"}, "bad_name"),
        ({"queue": "q.dlq"}, "bad_name"),
        ({"queue": "a b"}, "bad_name"),
        ({"terms": {"count": 2}}, "bad_value"),
        ({"terms": {"key": 1}}, "bad_value"),
        ({"terms": {"key": "k" * 256}}, "bad_value"),
        ({"terms": {"delay_ms": -1}}, "bad_value"),
        ({"column": wire.pack_strings([b"\xc1", b""])}, "bad_value"),
        ({"column": content(bytes(limits.MAX_SCHEDULE_BYTES))}, "too_large"),
    ],
)
def test_what_can_be_no_schedule_is_refused(more: dict[str, Any], code: str) -> None:
    """And nothing is changed by it."""
    world = World()
    client = world.hello()
    put(client)
    before, batches = asked(client, {"op": "schedules"}), len(world.log)
    assert put(client, **more)["code"] == code
    assert asked(client, {"op": "schedules"}) == before
    assert len(world.log) == batches


def test_a_queue_that_was_deleted_is_made_again_by_the_next_job() -> None:
    """As by any publish."""
    world = World()
    client = world.hello()
    put(client)
    world.advance(FIRST_MS - world.unix_ms + 10)
    client.request({"op": "queue_delete", "queue": "q", "force": 1})
    world.advance(MINUTE_MS)
    assert jobs(client) == [("s", FIRST_MS + MINUTE_MS)]


def test_a_thousand_schedules_of_one_minute_are_published_within_it() -> None:
    """A job a step; nobody waits for the others."""
    world = World()
    client = world.hello()
    for at in range(1_000):
        put(client, name=f"s{at}")
    world.advance(FIRST_MS - world.unix_ms - 1)
    world.advance(10)
    assert sorted(jobs(client)) == sorted((f"s{at}", FIRST_MS) for at in range(1_000))


@pytest.mark.parametrize("durability", ["sync", "lazy", "memory"])
def test_a_job_with_a_unique_key_waits_for_nobody_and_does_not_pile_up(durability: str) -> None:
    """While one has not ended, its times have no other; that holds over restarts, and ends with the job."""
    world = World()
    client = world.hello()
    client.set("q", durability=durability)
    put(client, terms={"unique_key": "nightly"})
    world.advance(3 * MINUTE_MS)
    assert jobs(client) == minutes(1)
    counted = world.store.schedules.counted
    assert (counted["published"], counted["duplicate"]) == (1, 2)
    run = asked(client, {"op": "schedule_run", "name": "s"})
    assert (run["first"], run["duplicate"]) == (0, 1)
    world.check()
    world.restart(clean=False)
    client = world.hello()
    world.advance(MINUTE_MS)
    there = jobs(client)
    assert len(there) == 1
    client.settle("ack", *client.receive_all("q"))
    world.advance(MINUTE_MS)
    assert len(jobs(client)) == 1
    assert jobs(client) != there
    assert client.peek("q")[0]["unique_key"] == "nightly"
    world.check()


def test_a_job_may_replace_the_one_that_waits() -> None:
    """The newest is what is worked on, and what became of the other is known, over a restart, too."""
    world = World()
    client = world.hello()
    put(client, terms={"unique_key": "k", "unique_mode": "replace"})
    world.advance(3 * MINUTE_MS)
    assert jobs(client) == minutes(3)[2:]
    assert (client.stats("q")["replaced"], world.store.schedules.counted["published"]) == (2, 3)
    world.restart(clean=False)
    client = world.hello()
    assert jobs(client) == minutes(3)[2:]
    world.check()


@pytest.mark.parametrize(
    "terms", [{"unique_key": 7}, {"unique_key": "x" * 2_000}, {"dedupe_id": "d"}]
)
def test_what_is_no_unique_key_of_a_schedule_is_refused(terms: dict[str, Any]) -> None:
    world = World()
    client = world.hello()
    assert put(client, terms=terms)["code"] == "bad_value"
    assert asked(client, {"op": "schedules"}) == {"schedules": []}
