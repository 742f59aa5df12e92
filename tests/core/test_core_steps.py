"""protocol.md, section 3: a frame that publishes and does more is a step, of which all happens or nothing."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.model.records import AckMeta, FrameMeta, PublishMeta
from minibrokerd.log.sizes import sizes_of

Piece = tuple[dict[str, Any], bytes, bytes, bytes]  # part, columns, lengths, blob


def acks(queue: str, *messages: Delivered) -> Piece:
    """Return an ack part of a step."""
    return (*settle_part("ack", queue, [message.run for message in messages]), b"", b"")


def publishes(queue: str, *bodies: bytes, keys: tuple[str, ...] = ()) -> Piece:
    """Return a publish part of a step."""
    part: dict[str, Any] = {"op": "publish", "queue": queue, "count": len(bodies)}
    columns = b""
    if keys:
        part["columns"] = ["delay_ms", "key"]
        columns = bytes(8 * len(keys)) + wire.pack_strings([key.encode() for key in keys])
    lengths = b"".join(struct.pack("<II", 0, len(body)) for body in bodies)
    return part, columns, lengths, b"".join(bodies)


def step(client: Client, *pieces: Piece, **header: int) -> Any:
    """Send a step; return its answer, if it is there."""
    parts, columns, lengths, blobs = zip(*pieces, strict=True)
    return client.sequenced(
        list(parts), b"".join(columns), b"".join(lengths), b"".join(blobs), **header
    )


def working(*bodies: bytes, **options: Any) -> tuple[World, Client, list[Delivered]]:
    """Return a client that holds messages of `jobs`."""
    world = World(**options)
    client = world.hello()
    client.take_from("jobs")
    client.publish("jobs", *bodies)
    world.sync()
    return world, client, client.receive_all("jobs", len(bodies))


def trace(world: World) -> tuple[Any, ...]:
    """Return what a refused frame may not change."""
    queues = {
        name: (world.states(name), dict(queue.group.counters), queue.next_sequence)
        for name, queue in world.store.queues.items()
    }
    for _, counters, _ in queues.values():
        counters.pop("overflow_refused", None)  # that it was refused is what it counts
    return queues, len(world.log), world.store.next_queue_number


def test_an_ack_and_follow_ups_in_any_queues_are_one_frame_and_one_batch() -> None:
    world, client, (job,) = working(b"order")
    batches = len(world.log)
    answer = step(
        client,
        acks("jobs", job),
        publishes("mail", b"one", b"two", keys=("ann", "bob")),
        publishes("bill", b"three"),
    )
    assert answer["results"] == [
        {"lost": 0},
        {"origin": world.queue("mail").number, "first": 0, "durability": "sync"},
        {"origin": world.queue("bill").number, "first": 0, "durability": "sync"},
    ]
    assert len(world.log) == batches + 1
    says = [record.says for record in world.log[-1].records]
    assert [type(each) for each in says if isinstance(each, AckMeta | PublishMeta | FrameMeta)] == [
        AckMeta, PublishMeta, PublishMeta, FrameMeta,
    ]  # fmt: skip
    assert world.states("jobs") == {}
    assert [(m.key, m.body) for m in client.receive_all("mail")] == [
        ("ann", b"one"),
        ("bob", b"two"),
    ]
    assert [m.body for m in client.receive_all("bill")] == [b"three"]


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_after_a_crash_all_of_a_step_happened_or_nothing(kept: bool, digests: bool) -> None:
    world, client, (job,) = working(b"order", auto_sync=False)
    assert (
        step(client, publishes("mail", b"one"), acks("jobs", job), publishes("bill", b"two"))
        is None
    )
    world.close_batch()
    assert len(world.closed) == 1
    world.digests = digests
    world.restart(clean=False, lose_unsynced=not kept)
    client2 = world.resume(client, [job])
    found = {name: list(world.states(name).values()) for name in ("mail", "bill") if kept}
    assert found == ({"mail": ["READY"], "bill": ["READY"]} if kept else {})
    assert list(world.states("jobs").values()) == ([] if kept else ["BEGUN"])
    answer = client2.resend(client.sequence, client)
    world.sync()
    answer = answer or client2.answer(sequence=client.sequence)
    assert answer["op"] == "confirm"
    assert [len(world.states(name)) for name in ("jobs", "mail", "bill")] == [0, 1, 1]
    world.free(world.core.synced)
    world.restart()
    again = world.resume(client).resend(client.sequence, client)
    assert again["results"] == answer["results"]
    assert [len(world.states(name)) for name in ("jobs", "mail", "bill")] == [0, 1, 1]


def test_a_settlement_that_is_lost_stops_the_step() -> None:
    world, client, (one, two) = working(b"1", b"2")
    client.settle("release", two)
    before = trace(world)
    answer = step(client, publishes("new", b"x"), acks("jobs", one, two))
    assert (answer["code"], answer["retryable"]) == ("lease_lost", False)
    assert trace(world) == before
    assert step(client, publishes("new", b"x"), acks("jobs", one))["op"] == "confirm"


@pytest.mark.parametrize("queues", [("jobs", "jobs"), ("jobs",)], ids=["two parts", "one part"])
def test_acks_alone_are_a_step_where_the_frame_says_so(queues: tuple[str, ...]) -> None:
    world, client, (one, two, three) = working(b"1", b"2", b"3")
    client.settle("release", two)
    before = trace(world)
    pieces = (
        [acks("jobs", one, two)] if len(queues) == 1 else [acks("jobs", one), acks("jobs", two)]
    )
    assert step(client, *pieces, step=1)["code"] == "lease_lost"
    assert trace(world) == before
    answer = step(client, acks("jobs", one, three), step=1)
    assert answer["results"] == [{"lost": 0}]
    assert step(client, publishes("mail", b"a"), step=1)["results"][0]["first"] == 0
    world.sync()
    world.restart()
    assert list(world.states("jobs").values()) == ["READY"]


def test_a_message_of_another_session_stops_the_step() -> None:
    world, client, (job,) = working(b"1")
    before = trace(world)
    other = world.hello()
    assert step(other, acks("jobs", job), publishes("new", b"x"))["code"] == "lease_lost"
    assert trace(world) == before
    assert step(client, acks("jobs", job), publishes("new", b"x"))["op"] == "confirm"


def test_two_parts_cannot_both_have_the_last_place_of_a_queue() -> None:
    world, client, (job,) = working(b"1")
    client.set("mail", max_messages=3)
    client.publish("mail", b"a")
    before = trace(world)
    full = (acks("jobs", job), publishes("mail", b"b", b"c"), publishes("mail", b"d"))
    assert step(client, *full)["code"] == "busy"
    assert trace(world) == before
    assert step(client, *full[:2])["op"] == "confirm"
    assert world.queue("mail").count() == 3


def test_two_parts_cannot_both_make_the_last_queue() -> None:
    world, client, (job,) = working(b"1")
    world.store.max_queues = len(world.store.queues) + 1
    before = trace(world)
    two = (publishes("one", b"x"), acks("jobs", job), publishes("two", b"y"))
    assert step(client, *two)["code"] == "limit_reached"
    assert trace(world) == before
    same = (publishes("one", b"x"), acks("jobs", job), publishes("one", b"y"))
    assert step(client, *same)["op"] == "confirm"
    assert [m.body for m in client.receive_all("one")] == [b"x", b"y"]


@pytest.mark.parametrize("name", ["jobs.dlq", "no name"])
def test_a_refused_part_behind_good_ones_leaves_no_trace(name: str) -> None:
    world, client, (job,) = working(b"1")
    before = trace(world)
    answer = step(client, acks("jobs", job), publishes("new", b"x"), publishes(name, b"y"))
    assert answer["code"] == "bad_name"
    assert trace(world) == before


def test_what_may_not_share_a_frame_with_a_publish_ends_the_connection() -> None:
    for op in ("nack", "reject", "release", "extend", "begin"):
        world, client, (job,) = working(b"1")
        before = trace(world)
        part, columns = settle_part(op, "jobs", [job.run])
        step(client, publishes("new", b"x"), (part, columns, b"", b""))
        assert client.closed, op
        assert trace(world)[2:] == before[2:]  # that the session takes no more is a record
        assert "new" not in world.store.queues


def test_a_step_names_no_message_twice_and_has_no_more_messages_than_a_frame() -> None:
    world, client, (job,) = working(b"1")
    step(client, acks("jobs", job), publishes("new", b"x"), acks("jobs", job))
    assert client.closed
    other = world.hello()
    half = [b"x"] * (limits.MAX_MESSAGES_PER_FRAME // 2)
    assert step(other, publishes("new", *half), publishes("new", *half))["op"] == "confirm"
    step(other, publishes("new", *half), publishes("new", *half, b"x"))
    assert other.closed


def test_a_step_whose_records_are_no_batch_is_refused() -> None:
    small = sizes_of(64 * 1024)
    world, client, (job,) = working(b"1", sizes=small)
    before = trace(world)
    count = limits.MAX_PARTS_PER_FRAME - 1
    body = b"x" * ((small.frame_bytes - 4_096) // count)
    answer = step(client, acks("jobs", job), *(publishes("new", body) for _ in range(count)))
    assert answer["code"] == "too_large"
    assert trace(world) == before


def test_a_step_of_messages_in_memory_is_known_after_a_restart_only_if_something_of_it_is() -> None:
    world, client, (job,) = working(b"1")
    client.set("volatile", durability="memory")
    assert step(client, publishes("volatile", b"x"), acks("jobs", job))["op"] == "confirm"
    stored, answered = world.queue("volatile").count(), client.sequence
    assert stored == 1
    world.restart(clean=False)
    client2 = world.resume(client)
    assert client2.resend(answered, client)["results"][1] == {"lost": 0}
    assert world.queue("volatile").count() == 0
    pair = (publishes("volatile", b"y"), publishes("volatile", b"z"))
    client2.sequence = answered
    assert step(client2, *pair)["op"] == "confirm"
    world.restart(clean=False)
    client3 = world.resume(client2)
    assert client3.resend(client2.sequence, client2)["op"] == "confirm"
    assert world.queue("volatile").count() == 2


def test_the_step_of_the_worked_example_does_what_it_says() -> None:
    """protocol.md, section 9."""
    world = World()
    client = world.hello()
    client.publish("q", b"hi")
    client.consume("q")
    (message,) = client.messages()
    assert message.run == (2**40 + 2, 1, 0, 1)
    results = step(client, acks("q", message), publishes("r", b"ok"))["results"]
    assert results == [{"lost": 0}, {"origin": 2, "first": 0, "durability": "sync"}]
    assert [message.body for message in client.receive_all("r")] == [b"ok"]


def test_bytes_that_are_left_over_or_missing_end_the_connection() -> None:
    for columns, lengths, blob in ((b"x", b"", b""), (b"", bytes(8), b""), (b"", b"", b"x")):
        _, client, (job,) = working(b"1")
        part, column, length, body = publishes("new", b"body")
        step(client, acks("jobs", job), (part, column + columns, length + lengths, body + blob))
        assert client.closed
    _, client, (job,) = working(b"1")
    part, column, length, body = publishes("new", b"body")
    step(client, acks("jobs", job), (part, column, length, body[:-1]))
    assert client.closed


# -- unique keys and dedupe ids -----------------------------------------------------------------------


def named(queue: str, *bodies: bytes, **fields: Any) -> Piece:
    """Return a publish part; `unique_key` and `dedupe_id` have one name for each body, the rest are fields."""
    part, columns, lengths, blob = publishes(queue, *bodies)
    names = [name for name in ("unique_key", "dedupe_id") if name in fields]
    for name in names:
        columns += wire.pack_strings([text.encode() for text in fields.pop(name)])
    return part | fields | {"columns": names}, columns, lengths, blob


@pytest.mark.parametrize("digests", [False, True])
def test_what_a_step_says_of_its_follow_ups_is_the_same_after_a_crash(digests: bool) -> None:
    """By part and index: of the parts of one queue each is judged after those before it."""
    world, client, (job,) = working(b"order")
    client.publish("q", b"stands", uniques=["k"], delay_ms=60_000)
    answer = step(
        client,
        acks("jobs", job),
        named("q", b"0", b"1", unique_key=("k", "l"), dedupe_id=("", "1")),
        named("other", b"0", b"1", unique_key=("k", "k")),
        named("q", b"2", b"3", unique_key=("l", "k"), unique_mode="replace"),
        named("q", b"4", dedupe_id=("1",)),
    )
    assert [result.get("known", 0) for result in answer["results"]] == [0, 1, 1, 2, 1]
    q, other = (world.queue(name).number for name in ("q", "other"))
    replaces = 1 << 32
    assert answer["lost_runs"] == [
        (0, q, 0, 1),
        (1, other, 0, 1),
        (replaces, q, 2, 1), (replaces + 1, q, 0, 1),
        (0, q, 2, 1),
    ]  # fmt: skip
    found = [{each["body"] for each in client.peek(name)} for name in ("q", "other")]
    assert found == [{b"2", b"3"}, {b"0"}]
    world.check()
    for world.digests in (digests, False):
        world.restart(clean=False, lose_unsynced=False)
        again = world.resume(client).resend(client.sequence, client)
        assert (again["results"], again["lost_runs"]) == (answer["results"], answer["lost_runs"])
        looker = world.hello()
        assert [{m["body"] for m in looker.peek(name)} for name in ("q", "other")] == found
        world.check()


@pytest.mark.parametrize("acks_first", [True, False])
@pytest.mark.parametrize("mode", ["drop", "replace", "keep-latest"])
def test_the_key_of_a_message_is_free_for_what_stands_behind_its_ack(
    mode: str, acks_first: bool
) -> None:
    """It is the lock itself; before its ack it holds the key, and is what a worker has."""
    world = World()
    client = world.hello()
    client.publish("jobs", b"first", uniques=["k"])
    (job,) = client.receive_all("jobs")
    next_ones = named("jobs", b"2", b"3", unique_key=("k", "k"), unique_mode=mode)
    pieces = [acks("jobs", job), next_ones] if acks_first else [next_ones, acks("jobs", job)]
    answer = step(client, *pieces)
    left = [each["body"] for each in client.peek("jobs")]
    if mode == "drop":
        assert left == ([b"2"] if acks_first else [])
    else:
        assert left == [b"3"]
        assert answer["lost_runs"] == [(1 << 32 | 1, 1, 1, 1)]
    world.check()
    world.restart(clean=False, lose_unsynced=False)
    assert [each["body"] for each in world.hello().peek("jobs")] == left
    world.check()


def test_what_a_step_drops_takes_no_memory_and_no_room() -> None:
    """Dropped alone, beside others, or with its whole step as nothing but duplicates."""
    world, client, jobs = working(b"1", b"2")
    client.set("q", max_messages=2)
    held_bytes = -world.store.sums.held_bytes  # of the jobs
    client.publish("q", b"stands", uniques=["k"])
    held_bytes += world.store.sums.held_bytes
    for job in jobs:
        pieces = [acks("jobs", job), named("q", b"x" * 500, b"y", unique_key=("k", "l"))]
        assert step(client, *pieces)["op"] == "confirm"
        world.check()
    assert len(world.states("q")) == 2
    [_, second] = client.receive_all("q")
    client.settle("ack", second)
    assert world.store.sums.held_bytes == held_bytes
    world.check()


def test_a_refused_step_leaves_no_key_and_no_id_behind() -> None:
    world, client, (job,) = working(b"1")
    client.set("full", max_messages=1)
    client.publish("full", b"x")
    client.publish("q", b"waits", uniques=["k"])
    before = trace(world)
    pieces = (
        acks("jobs", job),
        named("q", b"a", unique_key=("k",), unique_mode="replace", dedupe_id=("1",)),
        publishes("full", b"y"),
    )
    assert step(client, *pieces)["code"] == "busy"
    assert trace(world) == before
    world.check()
    assert "known" not in client.publish("q", b"b", dedupes=["1"])["results"][0]


@pytest.mark.parametrize("acks_first", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_step_with_dedupe_ids_and_many_ends_is_one_batch_or_refused(
    acks_first: bool, waits: bool
) -> None:
    """What is noted of the one and of the other together must have room, in any order of the parts."""
    small = sizes_of(64 * 1024)
    found = set()
    for count in range(5, 140, 15):
        world, client, jobs = working(*[b"x"] * count, sizes=small)
        client.set("jobs", result_ms=3_600_000)
        if waits:
            for each in range(5):
                run = wire.pack_runs([(0, *jobs[each].id, 1)])
                client.publish("after", b"", after=run)
        batches = len(world.log)
        ids = tuple(f"{number:0255}" for number in range(40))
        pieces = [acks("jobs", *jobs), named("q", *[b""] * len(ids), dedupe_id=ids)]
        answer = step(client, *(pieces if acks_first else reversed(pieces)))
        found.add(answer.get("code", "done"))
        assert len(world.log) == batches + (answer["op"] == "confirm"), count
        world.check()
    assert found == {"done", "too_large"}
