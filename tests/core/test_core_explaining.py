"""protocol.md, `explain`: why a message is not running. A test for each reason of the table, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import START_UNIX_MS, World

from minibroker.contract import wire
from minibroker.contract.reasons import REASONS
from minibrokerd.core.durable import paging
from minibrokerd.core.model import endings
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Space
from minibrokerd.core.model.sums import Sums

FIRST = (1, 0)
RUN = wire.pack_runs([(0, *FIRST, 1)])


def told(
    client: Client, reason: str, id: tuple[int, int] = FIRST, queue: str = ""
) -> dict[str, Any]:
    """Return the answer of `explain`, which must name this reason, in a state of its row."""
    answer = client.explain(id, queue)
    assert answer["reason"] == reason, answer
    assert answer["state"] == REASONS[reason].states
    return answer


class SlowDisk(World):
    """A world that reads back what was asked for when the test says so."""

    def __init__(self, segment_batches: int) -> None:
        self.asked: list[ReadBack] = []
        super().__init__(segment_batches=segment_batches)

    def _load(self, asked: ReadBack) -> None:
        self.asked.append(asked)


def ready() -> tuple[World, Client]:
    """Return a world where `q` has one message that is ready."""
    world = World()
    client = world.hello("boss")
    client.publish("q", b"a")
    return world, client


def at(world: World, in_ms: int = 0) -> int:
    """Return a time by the wall clock, so far from now."""
    return START_UNIX_MS + world.now_ms - 1 + in_ms


def test_not_synced() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a")
    client.request({"op": "explain", "queue": "", "runs": 1}, RUN)
    (answer,) = [out.header for out in world.held if out.header["op"] == "reply"]
    assert (answer["value"]["state"], answer["value"]["reason"]) == ("ENTERING", "not_synced")
    world.sync()
    told(client, "no_consumer")


def test_delayed_until_it_is_due() -> None:
    world, client = ready()
    client.publish("q", b"later", delay_ms=60_000)
    due = at(world, 60_000)
    for passed_ms in (0, 30_000, 29_000):
        world.advance(passed_ms)
        assert told(client, "delayed", (1, 1))["until_unix_ms"] == due
    world.advance(1_008)
    told(client, "no_consumer", (1, 1))


def test_a_second_release_is_a_delay() -> None:
    world, client = ready()
    for _ in range(2):
        client.settle("release", *client.receive_all("q"))
    assert told(client, "delayed")["until_unix_ms"] == at(world, 1_000)


def test_retry_delay_names_the_error() -> None:
    world, client = ready()
    world.advance(500)
    client.settle(
        "nack", *client.receive_all("q"), delay_ms=5_000, error=("ValueError", "no\nmore")
    )
    answer = told(client, "retry_delay")
    assert answer["by"] == "failed, ValueError: no"
    assert (answer["since_unix_ms"], answer["until_unix_ms"]) == (at(world), at(world, 5_000))


def test_dlq_full() -> None:
    world, client = ready()
    client.publish("q", b"b")
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    client.settle("reject", *client.receive_all("q", 1))
    answer = told(client, "dlq_full", (1, 1))
    assert (answer["by"], answer["since_unix_ms"]) == ("q.dlq", at(world))


def test_no_space_while_the_disk_is_full() -> None:
    world, client = ready()
    told(client, "no_consumer")
    world.apply(Space(short=True, pause=True))
    client.consume("q")
    told(client, "no_space")
    world.apply(Space(short=False, pause=False))
    told(client, "held")


def test_starting_until_the_workers_are_back() -> None:
    world, client = ready()
    client.receive_all("q")
    client.publish("q", b"b")
    world.restart(clean=False, waits=True)
    client = world.hello()
    client.consume("q")
    answer = told(client, "starting", (1, 1))
    world.advance(answer["until_unix_ms"] - at(world) - 1)
    told(client, "starting", (1, 1))
    world.advance(9)
    told(client, "held", (1, 1))


def test_stopping() -> None:
    world, client = ready()
    world.core.hold()
    client.consume("q")
    told(client, "stopping")


def test_no_consumer_since_it_is_ready() -> None:
    world, client = ready()
    since = at(world)
    client.consume("other")
    world.advance(70_000)
    answer = told(client, "no_consumer")
    assert (answer["queue"], answer["since_unix_ms"]) == ("q", since)


def test_key_busy_names_the_message_and_who_has_it() -> None:
    _world, client = ready()
    client.set("q", key_concurrency=1)
    client.publish("q", b"b", b"c", keys=["k", "k"])
    client.consume("q", 10)
    assert told(client, "key_busy", (1, 2))["by"] == "1-1 at boss"
    client.settle("ack", client.messages()[1])
    told(client, "held", (1, 2))


def test_key_waits_for_the_retry_of_another() -> None:
    world, client = ready()
    client.set("q", key_concurrency=1)
    client.publish("q", b"b", b"c", keys=["k", "k"])
    client.consume("q", 10)
    client.settle("nack", client.messages()[1], delay_ms=5_000)
    answer = told(client, "key_waits", (1, 2))
    assert (answer["by"], answer["until_unix_ms"]) == ("1-1", at(world, 5_000))
    told(client, "retry_delay", (1, 1))


def test_key_paused_by_whom_until_when() -> None:
    world, client = ready()
    client.publish("q", b"b", key="k")
    part = {"op": "key_set", "queue": "q", "key": "k", "pause_ms": 5_000}
    client.request(part)
    answer = told(client, "key_paused", (1, 1))
    assert (answer["by"], answer["until_unix_ms"]) == ("boss", at(world, 5_000))


@pytest.mark.parametrize("reason", ["key_rate", "rate"])
def test_key_rate_and_rate_say_when_there_is_a_token(reason: str) -> None:
    world, client = ready()
    client.publish("q", b"b", b"c", keys=["k", "k"])
    client.set("q", **{reason: 1, f"{reason}_period_ms": 5_000})
    client.consume("q", 1 if reason == "rate" else 2)
    answer = told(client, reason, (1, 2))
    assert answer["until_unix_ms"] - at(world, 5_000) in range(-8, 1)
    assert answer["by"] == ""


@pytest.mark.parametrize("key", ["", "k"])
def test_outranked_and_outranked_until_count_what_is_before_it(key: str) -> None:
    world, client = ready()
    client.settle("ack", *client.receive_all("q"))
    for priority in (0, 5, 9, 9, 9):
        client.publish("q", b"x", priority=priority, key=key)
    client.consume("q", prefetch=1)
    assert told(client, "outranked", (1, 1))["by"] == "3 messages"
    assert told(client, "outranked", (1, 2))["by"] == "2 messages"
    told(client, "no_credit", (1, 4))
    world.advance(1_000)
    client.set("q", max_wait_ms=10_000)
    world.run_jobs()
    answer = told(client, "outranked_until", (1, 1))
    assert answer["until_unix_ms"] == at(world, 9_000)
    world.advance(8_999)
    assert told(client, "outranked_until", (1, 1)) == answer
    client.publish("q", b"x", priority=5, key=key)
    world.advance(1)
    told(client, "no_credit", (1, 1))  # and not the newest one of a higher priority goes before it
    assert told(client, "outranked_until", (1, 6))["by"] == "2 messages"


def test_no_credit_names_those_who_have_it() -> None:
    world, client = ready()
    client.publish("q", *[b"x"] * 8)
    for name in ("w1", "w2", "w3", "w4"):
        world.hello(name).consume("q", prefetch=2)
    assert told(client, "no_credit", (1, 8))["by"] == "w1, w2, w3, 1 more"


def test_not_reading() -> None:
    world, client = ready()
    worker = world.hello("stuck")
    world.flow(worker, paused=True)
    worker.consume("q")
    assert told(client, "not_reading")["by"] == "stuck"
    world.flow(worker, paused=False)
    told(client, "held")


def test_a_client_that_let_a_lease_end_is_not_reading() -> None:
    world, client = ready()
    worker = world.hello("silent")
    worker.consume("q", lease_ms=1_000)
    worker.begin(*worker.messages())
    world.advance(1_008)
    assert told(client, "not_reading")["by"] == "silent"


def test_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)
    world = SlowDisk(segment_batches=100)
    client = world.hello()
    for _ in range(12):
        client.publish("q", b"x")
    world.freeze()
    told(client, "no_consumer", (1, 11))
    client.consume("q", prefetch=20)
    told(client, "reading_back", (1, 11))
    while world.asked:
        World._load(world, world.asked.pop(0))
    told(client, "held", (1, 11))


def test_in_line_and_next() -> None:
    """A client that waits for a turn of the shell gets as much as it may have then."""
    for count, reason in ((3, "in_line"), (1, "next")):
        world = World()
        client = world.hello()
        world.store.connections[client.connection].room = 0
        client.consume("q", prefetch=2)
        client.publish("q", *[b"x"] * count)
        last = (1, count - 1)
        told(client, reason, last)
        world.store.connections[client.connection].room = 2**20
        client.consume("q", prefetch=2)
        world.run_jobs()
        told(client, "no_credit" if count == 3 else "held", last)


def test_held_then_running_until_its_lease_ends() -> None:
    world, client = ready()
    worker = world.hello("w")
    worker.consume("q", lease_ms=10_000)
    assert told(client, "held")["by"] == "w"
    world.advance(4_000)
    worker.begin(*worker.messages())
    answer = told(client, "running")
    assert (answer["by"], answer["since_unix_ms"]) == ("w", at(world))
    assert 0 <= answer["until_unix_ms"] - at(world, 10_000) < 8
    world.advance(5_000)
    assert told(client, "running") == answer


def test_worker_away() -> None:
    world, client = ready()
    worker = world.hello("w")
    worker.receive_all("q", lease_ms=10_000)
    world.disconnect(worker)
    answer = told(client, "worker_away")
    assert (answer["by"], answer["since_unix_ms"]) == ("w", at(world))
    assert 0 <= answer["until_unix_ms"] - at(world, 10_000) < 8


def test_after_a_crash_a_worker_has_the_name_that_the_log_knows() -> None:
    """As whoever has the message, and in its history once its lease is over."""
    world, client = ready()
    world.hello("w").receive_all("q", lease_ms=10_000)
    world.restart()
    client = world.hello()
    assert told(client, "worker_away")["by"] == "w"
    world.advance(60_000)
    (message,) = client.peek("q")
    assert [attempt["client"] for attempt in message["history"]] == ["w"]


def test_dead_where_it_died_and_waiting_in_its_dlq() -> None:
    world, client = ready()
    client.settle("reject", *client.receive_all("q"), error=("KeyError", "id"))
    answer = told(client, "dead", queue="q")
    assert (answer["queue"], answer["by"]) == ("q.dlq", "rejected, KeyError: id")
    assert answer["since_unix_ms"] == at(world)
    told(client, "dead")
    told(client, "no_consumer", queue="q.dlq")
    client.redrive("q.dlq")
    told(client, "no_consumer", queue="q")


def test_acked_by_whom_and_when() -> None:
    world, client = ready()
    worker = world.hello("w")
    message = worker.receive_all("q")
    world.advance(7)
    worker.settle("ack", *message)
    since = at(world)
    world.advance(60_000)
    answer = told(client, "acked")
    assert (answer["by"], answer["since_unix_ms"], answer["queue"]) == ("w", since, "q")


def test_purged_by_whom() -> None:
    _, client = ready()
    client.request({"op": "purge", "queue": "q", "runs": 1}, RUN)
    assert told(client, "purged")["by"] == "boss"


def test_cancelled_by_whom() -> None:
    _, client = ready()
    client.cancel_messages("q", FIRST)
    assert told(client, "cancelled")["by"] == "boss"


def test_ended_when_it_is_forgotten_how() -> None:
    world, client = ready()
    client.settle("ack", *client.receive_all("q"))
    told(client, "acked")
    world.restart()
    client = world.hello()
    assert told(client, "ended")["queue"] == "q"


def test_how_messages_ended_is_remembered_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest endings, by runs and by what a note costs."""
    monkeypatch.setattr(endings, "MOST_BYTES", 4 * (endings.NOTE_BYTES + 24))
    _, client = ready()
    client.publish("q", *[b"x"] * 5)
    for _ in range(6):
        client.settle("ack", *client.receive_all("q", 1))
    for sequence in range(6):
        told(client, "acked" if sequence >= 2 else "ended", (1, sequence))


@pytest.mark.parametrize("id", [(1, 1), (1, 2**63), (7, 0), (0, 0)])
def test_unknown(id: tuple[int, int]) -> None:
    _, client = ready()
    told(client, "unknown", id)


def test_a_message_of_a_queue_that_was_deleted_has_ended() -> None:
    _, client = ready()
    client.delete("q", force=True)
    assert told(client, "deleted")["queue"] == ""


def test_one_that_was_moved_is_found() -> None:
    _, client = ready()
    client.request({"op": "move", "queue": "q", "target": "other"})
    for asked in ("", "q", "other"):
        assert told(client, "no_consumer", queue=asked)["queue"] == "other"


def test_what_is_refused() -> None:
    _, client = ready()
    for queue, run, code in (
        ("nowhere", RUN, "unknown_queue"),
        ("q", RUN[:-4] + b"\2\0\0\0", "bad_value"),
    ):
        answer = client.request({"op": "explain", "queue": queue, "runs": 1}, run)
        assert answer["code"] == code


def test_queue_paused() -> None:
    """Whether or not somebody consumes it; with the time and who did it."""
    world, client = ready()
    client.request({"op": "pause", "queue": "q", "for_ms": 60_000})
    answer = told(client, "queue_paused")
    assert (answer["by"], answer["since_unix_ms"]) == ("boss", at(world))
    assert answer["until_unix_ms"] == at(world, 60_000)


def test_worker_paused() -> None:
    """The one who could take it is named; another one takes it."""
    world, client = ready()
    client.request({"op": "pause", "client": "w"})
    world.hello("w").consume("q")
    assert told(client, "worker_paused")["by"] == "w"
    world.hello("other").consume("q")
    told(client, "held")


def test_it_changes_nothing() -> None:
    """No record is written, no queue made: not the DLQ that a reason names either."""
    world, client = ready()
    before = [batch.records for batch in world.log]
    for id in (FIRST, (1, 1), (3, 3)):
        client.explain(id, "q")
    assert [batch.records for batch in world.log] == before
    assert list(world.store.queues) == ["q"]


def test_replaced() -> None:
    world = World()
    client = world.hello("ann")
    client.publish("q", b"old", uniques=["k"])
    client.publish("q", b"new", uniques=["k"], unique_mode="replace")
    why = client.explain((1, 0))
    assert (why["state"], why["reason"], why["by"]) == ("ENDED", "replaced", "1-1 (ann)")
    assert why["since_unix_ms"] == world.unix_ms


def test_dropped() -> None:
    client = World().hello()
    client.set("q", max_messages=1, overflow="drop-oldest")
    client.publish("q", b"oldest")
    client.publish("q", b"newest")
    why = client.explain((1, 0))
    assert (why["state"], why["reason"], why["queue"]) == ("ENDED", "dropped", "q")


def test_duplicate() -> None:
    """Of one that was not stored beside others: a confirm names the message that stands."""
    client = World().hello()
    client.publish("q", b"stands", uniques=["k"])
    client.publish("q", b"duplicate", b"stored", uniques=["k", ""])
    why = client.explain((1, 1))
    assert (why["reason"], why["by"]) == ("duplicate", "1-0")


def test_ttl_expired() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", ttl_ms=5_000)
    told(client, "no_consumer")
    world.advance(6_000)
    assert abs(told(client, "ttl_expired")["since_unix_ms"] - at(world, -1_000)) <= 8


def test_every_reason_has_a_test() -> None:
    """Named after it."""
    names = [name for name in globals() if name.startswith("test_")]
    elsewhere = {"circuit_open", "circuit_probing"}  # test_core_circuits.py
    elsewhere |= {"key_circuit_open", "key_circuit_probing"}  # test_core_key_circuits.py
    elsewhere |= {"damaged", "waits_for"}  # test_core_ends.py, test_core_chains.py
    elsewhere |= {"not_active"}  # test_core_single.py
    assert not [r for r in REASONS if not any(r in name for name in names) and r not in elsewhere]
