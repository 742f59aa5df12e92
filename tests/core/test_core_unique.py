"""protocol.md, 5.9 and 5.10: one message of a unique key at a time, which is the lock; an id is stored once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from core_client import Client, Id, settle_part
from harness import World

from minibroker.contract import wire
from minibrokerd.core.model import unique_keys

HOUR_MS = 3_600_000


def told(answer: dict[str, Any]) -> dict[int, tuple[str, Id]]:
    """Return what a confirm says of single messages: by index, whether it is a duplicate, and of which."""
    ways = ("duplicate", "replaces")
    count = answer["results"][0].get("known", 0)
    assert count == len(answer["lost_runs"])
    return {
        word & 0xFFFF_FFFF: (ways[word >> 32], (origin, sequence))
        for word, origin, sequence, _ in answer["lost_runs"]
    }


def publish(client: Client, body: bytes = b"body", key: str = "k", **fields: Any) -> Any:
    return client.publish("q", body, uniques=[key], **fields)


def bodies(client: Client, queue: str = "q") -> list[bytes]:
    return [each["body"] for each in client.peek(queue)]


# -- drop -------------------------------------------------------------------------------------------


def test_a_duplicate_is_not_stored_and_the_confirm_names_the_message_that_stands() -> None:
    world = World()
    client = world.hello()
    publish(client, b"first")
    assert told(publish(client, b"second")) == {0: ("duplicate", (1, 0))}
    assert told(publish(client, b"other", key="l")) == {}
    assert bodies(client) == [b"first", b"other"]
    counters = client.stats("q")
    assert (counters["published"], counters["duplicates"]) == (2, 1)
    world.check()


def test_two_in_one_frame_beside_messages_without_a_key() -> None:
    """Also of what is not stored beside others nothing is left after a start, and its outcome is known."""
    world = World()
    client = world.hello()
    answer = client.publish("q", b"a", b"b", b"c", b"d", uniques=["k", "", "k", "l"])
    assert told(answer) == {2: ("duplicate", (1, 0))}
    assert bodies(client) == [b"a", b"b", b"d"]
    world.check()
    for digests in (False, True):
        old, world.digests = client, digests
        world.restart(clean=False, lose_unsynced=False)
        client = world.resume(old)
        client.inbox.clear()
        again = client.resend(1, old)
        assert (told(again), again["results"]) == (told(answer), answer["results"])
        assert sorted(bodies(client)) == [b"a", b"b", b"d"]
        client.sent = old.sent
        world.check()


def test_two_in_one_batch_that_is_not_synced() -> None:
    """The second is confirmed when the first is safe: it would stand for nothing before."""
    world = World(auto_sync=False)
    client = world.hello()
    assert publish(client) is None
    assert publish(client) is None
    world.close_batch()
    assert publish(client) is None
    world.sync()
    answers = [client.answer(sequence=sequence) for sequence in (1, 2, 3)]
    assert [told(each) for each in answers] == [{}, *[{0: ("duplicate", (1, 0))}] * 2]
    assert len(world.states("q")) == 1
    world.check()


def test_a_crash_before_the_sync_leaves_neither_message_nor_lock() -> None:
    world = World()
    world.hello()
    world.auto_sync = False
    publish(world.hello())
    world.restart(clean=False)
    world.auto_sync = True
    assert told(publish(world.hello())) == {}


def ack(world: World, client: Client) -> None:
    client.settle("ack", *client.receive_all("q"))


def dead_letter(world: World, client: Client) -> None:
    client.settle("reject", *client.receive_all("q"))


def purge(world: World, client: Client) -> None:
    client.purge("q")


def cancel(world: World, client: Client) -> None:
    client.cancel_messages("q", *world.states("q"))


def cancel_running(world: World, client: Client) -> None:
    client.receive_all("q")
    client.cancel_messages("q", *world.states("q"))


def purge_one(world: World, client: Client) -> None:
    (id,) = world.states("q")
    client.request({"op": "purge", "queue": "q", "runs": 1}, wire.pack_runs([(0, *id, 1)]))


def move(world: World, client: Client) -> None:
    client.request({"op": "move", "queue": "q", "target": "elsewhere"})


def delete(world: World, client: Client) -> None:
    client.delete("q", force=True)


@pytest.mark.parametrize(
    "end", [ack, dead_letter, purge, purge_one, cancel, cancel_running, move, delete]
)
@pytest.mark.parametrize("restart", [False, True])
def test_the_lock_ends_with_the_message_in_any_way(
    end: Callable[[World, Client], None], restart: bool
) -> None:
    world = World()
    client = world.hello()
    publish(client)
    end(world, client)
    world.check()
    if restart:
        world.restart()
        world.advance(2_000)
        client = world.hello()
    assert told(publish(client, b"next")) == {}
    world.check()


@pytest.mark.parametrize(
    "state", ["READY", "DELAYED", "HELD", "BEGUN", "retry", "released", "expired"]
)
@pytest.mark.parametrize("digests", [False, True])
def test_the_lock_holds_in_every_state_and_a_retry_never_meets_its_own(
    state: str, digests: bool
) -> None:
    """Also over restarts, out of records, digests and copies."""
    world = World(segment_batches=3)
    client = world.hello()
    client.set("q", retry_delay_ms=500, lease_ms=1_000)
    publish(client, delay_ms=60_000 if state == "DELAYED" else 0)
    if state == "HELD":
        client.consume("q")
    elif state not in ("READY", "DELAYED"):
        (message,) = client.receive_all("q")
        if state == "retry":
            client.settle("nack", message)
        elif state == "released":
            client.settle("release", message)
        elif state == "expired":
            world.advance(1_100)
    world.digests = digests
    for freed in (False, True):
        assert told(publish(client, b"again")) == {0: ("duplicate", (1, 0))}
        if freed:
            world.free(world.segment_end(world.core.synced))
        world.freeze()
        world.check()
        world.restart(clean=False, lose_unsynced=False)
        world.advance(100)
        client = world.hello()
    assert told(publish(client, b"again")) == {0: ("duplicate", (1, 0))}
    world.advance(70_000)
    (message,) = client.receive_all("q")
    client.settle("nack", message, delay_ms=0)
    (message,) = client.receive_all("q")
    client.settle("ack", message)
    assert told(publish(client, b"again")) == {}
    world.check()


def test_a_redrive_is_no_publish_and_is_never_dropped() -> None:
    """It holds the key again, beside one that took it meanwhile; the key is free when both have ended."""
    world = World()
    client = world.hello()
    publish(client, b"dead")
    dead_letter(world, client)
    publish(client, b"next")
    client.redrive("q.dlq")
    assert sorted(bodies(client)) == [b"dead", b"next"]
    world.check()
    first, second = client.receive_all("q")
    client.settle("ack", first)
    assert told(publish(client)) == {0: ("duplicate", second.id)}
    client.settle("ack", second)
    assert told(publish(client)) == {}


def test_a_full_queue_confirms_a_duplicate() -> None:
    """What is there already needs no room."""
    client = World().hello()
    client.set("q", max_messages=1)
    publish(client)
    assert told(publish(client)) == {0: ("duplicate", (1, 0))}
    assert publish(client, key="other")["code"] == "busy"


def test_a_queue_in_memory_knows_its_duplicates_until_a_restart() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="memory")
    publish(client)
    assert told(publish(client)) == {0: ("duplicate", (1, 0))}
    world.check()
    world.restart()
    assert told(publish(world.hello())) == {}


def test_peek_shows_the_key() -> None:
    client = World().hello()
    client.publish("q", b"1", b"2", uniques=["k", ""])
    assert [each.get("unique_key") for each in client.peek("q")] == ["k", None]


def test_keys_belong_to_their_queue() -> None:
    client = World().hello()
    client.publish("a", b"1", uniques=["k"])
    assert told(client.publish("b", b"2", uniques=["k"])) == {}


def test_a_step_that_acks_a_message_may_publish_its_key_again() -> None:
    world = World()
    client = world.hello()
    publish(client)
    (message,) = client.receive_all("q")
    acks, columns = settle_part("ack", "q", [message.run])
    columns += wire.pack_strings([b"k", b"k"])
    part = {"op": "publish", "queue": "q", "count": 2, "columns": ["unique_key"]}
    lengths = b"\0\0\0\0\1\0\0\0" * 2
    answer = client.sequenced([acks, part], columns, lengths, b"xy")
    assert answer["results"][1]["known"] == 1
    assert answer["lost_runs"] == [(1, 1, 1, 1)]
    assert bodies(client) == [b"x"]
    world.check()


def test_a_mode_that_is_none_is_refused_and_nothing_is_stored() -> None:
    world = World()
    client = world.hello()
    assert publish(client, unique_mode="sometimes")["code"] == "bad_value"
    assert world.store.queues == {}


# -- replace and keep-latest ------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "ready_after_ms"), [("replace", 15_000), ("keep-latest", 10_000)])
@pytest.mark.parametrize("restart", [False, True])
def test_what_waits_is_replaced_with_its_delay_anew_or_at_its_time(
    mode: str, ready_after_ms: int, restart: bool
) -> None:
    world = World()
    client = world.hello()
    publish(client, b"old", delay_ms=10_000)
    world.advance(5_000)
    answer = publish(client, b"new", delay_ms=10_000, unique_mode=mode)
    assert told(answer) == {0: ("replaces", (1, 0))}
    assert bodies(client) == [b"new"]
    assert client.stats("q")["replaced"] == 1
    world.check()
    if restart:
        world.restart(clean=False, lose_unsynced=False)
        client = world.hello()
    world.advance(ready_after_ms - 5_000 - 20)
    assert list(world.states("q").values()) == ["DELAYED"]
    world.advance(50)
    assert list(world.states("q").values()) == ["READY"]
    (message,) = client.receive_all("q")
    assert (message.body, message.id) == (b"new", (1, 1))
    world.check()


@pytest.mark.parametrize("mode", ["replace", "keep-latest"])
@pytest.mark.parametrize("state", ["HELD", "BEGUN"])
def test_what_a_worker_has_is_not_touched_and_one_more_waits(mode: str, state: str) -> None:
    world = World()
    client = world.hello()
    publish(client, b"running")
    if state == "HELD":
        client.consume("q")
    else:
        client.receive_all("q")
    assert told(publish(client, b"1", unique_mode=mode)) == {}
    assert told(publish(client, b"2", unique_mode=mode)) == {0: ("replaces", (1, 1))}
    assert told(publish(client, b"3", unique_mode=mode)) == {0: ("replaces", (1, 2))}
    assert told(publish(client, b"4", unique_mode="drop")) == {0: ("duplicate", (1, 3))}
    assert sorted(bodies(client)) == [b"3", b"running"]
    world.check()


@pytest.mark.parametrize("mode", ["replace", "keep-latest"])
def test_a_retry_that_waits_is_replaced_as_anything_that_waits(mode: str) -> None:
    world = World()
    client = world.hello()
    publish(client, b"fails")
    (message,) = client.receive_all("q")
    publish(client, b"waits", unique_mode=mode)
    client.settle("nack", message, delay_ms=5_000)
    assert sorted(bodies(client)) == [b"fails", b"waits"], "coming back, it meets no lock"
    answer = publish(client, b"latest", unique_mode=mode)
    assert len(answer["lost_runs"]) == 2
    assert bodies(client) == [b"latest"]
    world.check()


@pytest.mark.parametrize("mode", ["replace", "keep-latest"])
def test_the_last_of_a_frame_stays_and_the_last_of_a_batch_that_is_not_synced(mode: str) -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a", b"b", b"c", uniques=["k", "l", "k"], unique_mode=mode)
    client.publish("q", b"d", b"e", uniques=["l", "m"], unique_mode=mode)
    world.check()
    world.sync()
    assert told(client.answer(sequence=1)) == {2: ("replaces", (1, 0))}
    assert told(client.answer(sequence=2)) == {0: ("replaces", (1, 1))}
    assert sorted(bodies(client)) == [b"c", b"d", b"e"]
    world.check()
    world.restart(clean=False)
    assert sorted(bodies(world.hello())) == [b"c", b"d", b"e"]
    world.check()


@pytest.mark.parametrize("mode", ["replace", "keep-latest"])
def test_a_replacement_is_whole_or_not_at_all(mode: str) -> None:
    """The new one, the end of the old one and the outcome stand in one batch."""
    world = World()
    client = world.hello()
    publish(client, b"old")
    batches = len(world.log)
    publish(client, b"new", unique_mode=mode)
    assert len(world.log) == batches + 1
    world.log.pop()
    world.restart(clean=False)
    assert bodies(world.hello()) == [b"old"]


def test_a_message_without_a_history_keeps_its_place_in_the_line() -> None:
    world = World()
    client = world.hello()
    publish(client, b"old")
    world.advance(100)
    client.publish("q", b"behind")
    world.advance(100)
    publish(client, b"new", unique_mode="keep-latest")
    assert [m.body for m in client.receive_all("q")] == [b"new", b"behind"]


# -- dedupe ids -------------------------------------------------------------------------------------


def test_the_same_dedupe_id_within_the_window_is_confirmed_with_the_first_id() -> None:
    """Whether the first one is still there or not."""
    world = World()
    client = world.hello()
    client.publish("q", b"first", dedupes=["order-1"])
    again = {0: ("duplicate", (1, 0))}
    assert told(client.publish("q", b"again", dedupes=["order-1"])) == again
    ack(world, client)
    assert told(client.publish("q", b"again", dedupes=["order-1"])) == again
    assert told(client.publish("q", b"other", dedupes=["order-2"])) == {}
    assert bodies(client) == [b"other"]
    world.advance(HOUR_MS - 10)
    assert told(client.publish("q", b"again", dedupes=["order-1"])) == again
    world.advance(10)
    assert told(client.publish("q", b"late", dedupes=["order-1"])) == {}
    world.check()


@pytest.mark.parametrize("digests", [False, True])
def test_dedupe_ids_outlive_crashes_and_the_segments_of_their_records(digests: bool) -> None:
    world = World(segment_batches=2)
    client = world.hello()
    client.publish("q", b"first", b"second", dedupes=["1", "2"])
    ack(world, client)
    world.digests = digests
    for _ in range(3):
        client.publish("q", b"more")
        world.free(world.segment_end(world.core.synced))
        world.restart(clean=False, lose_unsynced=False)
        client = world.hello()
        world.advance(2_000)
        answer = client.publish("q", b"again", b"again", dedupes=["2", "1"])
        assert told(answer) == {0: ("duplicate", (1, 1)), 1: ("duplicate", (1, 0))}


@pytest.mark.parametrize("own_ms", [0, 2_000])
def test_the_window_is_that_of_the_publish_or_of_the_queue(own_ms: int) -> None:
    world = World()
    client = world.hello()
    client.set("q", dedupe_window_ms=1_000)
    window_ms = own_ms or 1_000
    client.publish("q", b"first", dedupes=["1"], dedupe_window_ms=own_ms)
    world.advance(window_ms - 1)
    assert told(client.publish("q", b"again", dedupes=["1"])) != {}
    world.advance(1)
    assert told(client.publish("q", b"again", dedupes=["1"])) == {}


def test_an_id_of_a_duplicate_names_what_stood_then() -> None:
    """A repeat is answered as the first time, though the key is free by then."""
    world = World()
    client = world.hello()
    publish(client, b"stands")
    once = publish(client, b"once", dedupes=["1"])
    assert told(once) == {0: ("duplicate", (1, 0))}
    ack(world, client)
    assert told(publish(client, b"once", dedupes=["1"])) == told(once)
    assert world.states("q") == {}


def test_ids_twice_in_one_frame_and_in_other_queues() -> None:
    client = World().hello()
    answer = client.publish("q", b"a", b"b", b"c", dedupes=["1", "1", ""])
    assert told(answer) == {1: ("duplicate", (1, 0))}
    assert told(client.publish("p", b"a", dedupes=["1"])) == {}
    assert len(client.peek("q")) == 2


def test_a_refused_publish_remembers_no_id() -> None:
    client = World().hello()
    client.set("q", max_messages=1)
    client.publish("q", b"full")
    assert client.publish("q", b"refused", dedupes=["1"])["code"] == "busy"
    client.purge("q")
    assert told(client.publish("q", b"now", dedupes=["1"])) == {}


@pytest.mark.parametrize("mode", ["replace", "keep-latest"])
def test_what_is_replaced_before_its_sync_takes_no_memory(mode: str) -> None:
    """Its publish is still under way, with nothing in it."""
    world = World(auto_sync=False)
    client = world.hello("p")
    publish(client, b"1", unique_mode=mode)
    publish(client, b"2", unique_mode=mode)
    sums = world.store.sums
    world.check()
    (first, second) = [block.extent for _, _, block, _, _ in world.store.entering]
    assert (first.refs, second.refs, sums.held_bytes) == (0, 1, second.size)


def test_very_many_that_hold_one_key_are_not_walked_for_each_other() -> None:
    """A job that dies each time leaves its key to each dead message; to redrive 3,000 took steps of 0.1 s."""
    world = World()
    client = world.hello()
    client.set("q", max_attempts=1)
    steps = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        steps += frame.f_code.co_filename == unique_keys.__file__
        return count if frame.f_code.co_filename == unique_keys.__file__ else None

    def die() -> None:
        publish(client)
        client.settle("reject", *client.receive_all("q", 1), error=("E", "e"))

    for _ in range(200):
        die()
    before = sys.gettrace()
    sys.settrace(count)
    try:
        die()
        client.redrive("q.dlq")
        world.run_jobs()
    finally:
        sys.settrace(before)
    assert client.stats("q")["ready"] == 201
    assert steps < 60 * 201
    assert told(publish(client)) == {0: ("duplicate", (1, 200))}
    world.check()
