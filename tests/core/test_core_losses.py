"""Promises about settlements: what is lost is named exactly, and what makes no sense changes nothing."""

from __future__ import annotations

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.model.records import AckMeta, decode


def world_with(*bodies: bytes, **settings: int | str) -> tuple[World, Client]:
    world = World()
    client = world.hello("worker")
    client.set("q", **settings)
    client.publish("q", *bodies)
    return world, client


def only(messages: list[Delivered]) -> Delivered:
    (message,) = messages
    return message


def test_begin_and_settle_share_a_frame_and_the_settle_alone_is_enough() -> None:
    _world, client = world_with(b"a", b"b", lease_ms=1_000)
    client.consume("q", prefetch=2)
    first, second = client.messages()
    begin, run = settle_part("begin", "q", [first.run])
    nack, columns = settle_part("nack", "q", [first.run], delay_ms=0)
    client.consume("q", prefetch=0)
    answer = client.sequenced([begin, nack], run + columns)
    assert answer["results"] == [{"lost": 0}, {"lost": 0}]
    client.settle("ack", second)
    assert only(client.receive_all("q")).attempt == 2


def test_lost_messages_are_named_exactly_and_harm_no_other() -> None:
    world, client = world_with(*[bytes([i]) for i in range(10)])
    client.consume("q", prefetch=10)
    messages = client.messages()
    token = messages[0].token
    client.settle_runs("ack", "q", [(token, 1, 2, 2), (token, 1, 7, 1)])
    answer = client.settle_runs("ack", "q", [(token, 1, 0, 20), (token + 1, 1, 0, 1)])
    assert answer["results"] == [{"lost": 4}]
    assert answer["lost_runs"] == [
        (token, 1, 2, 2),
        (token, 1, 7, 1),
        (token, 1, 10, 10),
        (token + 1, 1, 0, 1),
    ]
    assert world.states("q") == {}
    assert client.stats("q")["acked"] == 10
    world.restart(clean=False)
    assert world.states("q") == {}


def test_an_ack_twice_in_one_frame_ends_the_message_for_good() -> None:
    world, client = world_with(b"a", b"b")
    first, second = client.receive_all("q")
    answer = client.settle("ack", first, first)
    assert answer["lost_runs"] == [first.run]
    world.restart(clean=False)
    assert world.states("q") == {second.id: "BEGUN"}


def test_only_what_really_ended_stands_in_the_log() -> None:
    world, client = world_with(b"a", b"b", b"c")
    client.consume("q", prefetch=3)
    messages = client.messages()
    client.settle("nack", messages[1], delay_ms=60_000)
    client.settle("ack", *messages)
    acks = [r for batch in world.log for r in batch.records if isinstance(decode(r), AckMeta)]
    ids = [run[2] for r in acks for run in wire.RUN.iter_unpack(r.tail)]
    assert ids == [0, 2]
    world.restart(clean=False)
    assert world.states("q") == {messages[1].id: "DELAYED"}


def test_another_session_cannot_settle_under_a_token() -> None:
    world, client = world_with(b"a")
    message = only(client.receive_all("q"))
    thief = world.hello("thief")
    for op in ("ack", "nack", "reject", "release", "extend", "begin"):
        if op == "begin":
            thief.begin(message)
        else:
            assert thief.settle(op, message)["lost_runs"] == [message.run], op
    assert client.settle("ack", message)["results"] == [{"lost": 0}]


def test_a_token_of_an_earlier_epoch_is_lost_unless_its_lease_was_recovered() -> None:
    world, client = world_with(b"begun", b"held")
    begun = only(client.receive_all("q", 1))
    client.consume("q")
    held = only(client.messages())
    world.restart(clean=False)
    client2 = world.resume(client, [begun])
    assert client2.settle("ack", begun, held)["lost_runs"] == [held.run]
    assert world.states("q") == {held.id: "READY"}


def test_a_settlement_of_another_queue_is_lost() -> None:
    _world, client = world_with(b"a")
    client.set("other")
    message = only(client.receive_all("q"))
    assert client.settle_runs("ack", "other", [message.run])["lost_runs"] == [message.run]
    assert client.settle_runs("ack", "none", [message.run])["lost_runs"] == [message.run]


def test_a_part_for_a_queue_that_is_gone_does_not_harm_the_others_of_its_frame() -> None:
    world, client = world_with(b"a")
    message = only(client.receive_all("q"))
    parts, columns = zip(
        *(settle_part("ack", queue, [message.run]) for queue in ("none", "q")), strict=True
    )
    answer = client.sequenced(list(parts), b"".join(columns))
    assert answer["results"] == [{"lost": 1}, {"lost": 0}]
    assert world.states("q") == {}


@pytest.mark.parametrize(
    ("op", "runs", "columns"),
    [
        ("ack", 2, wire.pack_runs([(1, 1, 0, 1)])),
        ("ack", 1, wire.pack_runs([(1, 1, 0, 1)]) + b"x"),
        ("ack", 1, wire.pack_runs([(1, 1, 0, 2**32 - 1)])),
        ("ack", 1, wire.pack_runs([(1, 1, 2**64 - 1, 2)])),
        ("nack", 1, wire.pack_runs([(1, 1, 0, 1)])),
        ("nack", 1, wire.pack_runs([(1, 1, 0, 1)]) + b"\xff" * 8),
        ("publish", 1, b""),
    ],
)
def test_settle_columns_that_do_not_add_up_change_nothing(
    op: str, runs: int, columns: bytes
) -> None:
    world, client = world_with(b"a")
    message = only(client.receive_all("q"))
    good, run = settle_part("ack", "q", [message.run])
    bad: dict[str, object] = {"op": op, "queue": "q", "runs": runs}
    if op == "publish":
        bad = {"op": op, "queue": "q", "count": 1}
    client.sequenced([good, bad], run + columns)
    assert client.closed
    assert list(world.states("q").values()) == ["BEGUN"]


def test_a_frame_names_no_more_than_its_limit_over_all_parts() -> None:
    _world, client = world_with(b"a")
    half = limits.MAX_RUNS_PER_FRAME // 2
    parts, columns = zip(
        *(settle_part("ack", "q", [(1, 1, 0, half)]) for _ in range(2)), strict=True
    )
    assert client.sequenced(list(parts), b"".join(columns))["op"] == "confirm"
    client.sequenced([*parts, parts[0]], b"".join(columns) + columns[0])
    assert client.closed


def test_error_texts_are_bounded_in_bytes_each_and_together() -> None:
    world, client = world_with(b"a", max_attempts=50, retry_delay_ms=0, retry_jitter_percent=0)
    for _ in range(12):
        message = only(client.receive_all("q"))
        client.settle("nack", message, delay_ms=0, error=("É" * 300, "é" * 2_000))
    (entry,) = client.peek("q")
    texts = [len(e["error_text"].encode()) for e in entry["history"]]
    assert max(texts) == limits.MAX_ERROR_TEXT_BYTES
    assert sum(texts) <= limits.MAX_HISTORY_TEXT_BYTES
    assert all(
        len(e["error_class"].encode()) <= limits.MAX_ERROR_CLASS_BYTES for e in entry["history"]
    )
    assert len(entry["history"]) == limits.HISTORY_FIRST + limits.HISTORY_LAST
    assert entry["history_dropped"] == 2
    world.restart(clean=False)
    assert world.hello().peek("q") == [entry]


def test_a_settlement_of_a_lazy_queue_is_confirmed_without_a_sync() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.set("q", durability="lazy")
    client.take_from("q")
    client.publish("q", b"a")
    world.sync()
    message = only(client.receive_all("q"))
    assert client.settle("ack", message)["results"] == [{"lost": 0}]
    world.sync()
    world.restart(clean=False)
    assert world.states("q") == {}


def test_a_confirm_that_tells_of_a_loss_rests_on_what_ended_the_message() -> None:
    world = World(auto_sync=False)
    one, two = world.hello("one"), world.hello("two")
    one.take_from("q")
    one.publish("q", b"a")
    world.sync()
    message = only(one.receive_all("q"))
    world.sync()
    two.purge("q")
    assert one.settle("ack", message) is None
    world.sync()
    assert one.answer(sequence=2)["lost_runs"] == [message.run]


def test_a_lease_lost_at_the_same_moment_as_its_ack_counts_for_the_ack() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    message = only(client.receive_all("q"))
    world.now_ms += 60_000  # the process was stopped; what was received is applied before the tick
    assert client.settle("ack", message)["results"] == [{"lost": 0}]
    world.advance(0)
    assert world.states("q") == {}
