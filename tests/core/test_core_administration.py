"""Promises about redrive, purge, settings that change, and counters that add up."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.state import REST_MS
from minibrokerd.core.model.walks import STEP_BYTES


def dead(world: World, count: int, **fields: object) -> Client:
    """Return a client whose queue `q` has so many dead messages."""
    client = world.hello()
    client.set("q", max_attempts=1)
    while count:
        some = min(count, 1_000)
        client.publish("q", *[b"%d" % i for i in range(some)], **fields)
        while messages := client.receive_all("q"):
            client.settle("reject", *messages, error=("E", "e"))
        client.answered_below = client.sequence + 1
        count -= some
    return client


# -- redrive ------------------------------------------------------------------------------------


def test_redrive_sends_back_ready_with_attempts_at_zero_and_the_history_kept() -> None:
    world = World()
    client = dead(world, 2)
    assert client.redrive("q.dlq")["value"] == {"redriven": 2}
    world.restart(clean=False)
    world.advance(1_000)
    client = world.hello()
    first, second = client.peek("q")
    assert first["attempts"] == {"failed": 0, "expired": 0, "worker_lost": 0}
    assert (first["redriven"], len(first["history"])) == (1, 1)
    assert [m.attempt for m in client.receive_all("q")] == [1, 1]
    assert world.states("q.dlq") == {}
    assert second["state"] == "READY"


def test_redrive_of_named_ids_takes_those_and_counts_what_it_found() -> None:
    world = World()
    client = dead(world, 10, key="k")
    answer = client.redrive("q.dlq", ids=[(1, 3), (1, 7), (1, 3), (1, 99), (9, 1)])
    assert answer["value"] == {"redriven": 2, "left": {"missing": 3}}
    assert sorted(world.states("q")) == [(1, 3), (1, 7)]
    world.check()
    assert len(client.receive_all("q.dlq")) == 8


def test_what_changed_nothing_leaves_no_event() -> None:
    world = World()
    client = dead(world, 1)
    notes: list[tuple[str, object]] = []
    apply = world.core.apply

    def noting(*args: object) -> object:
        effects = apply(*args)  # type: ignore[arg-type]
        notes.extend((note.event, note.fields["messages"]) for note in effects.notes)
        return effects

    world.core.apply = noting  # type: ignore[assignment]
    for _ in range(2):
        client.redrive("q.dlq")
    for _ in range(2):
        client.purge("q")
    assert notes == [("messages_redriven", 1), ("queue_purged", 1)]


def test_redrive_of_a_count_takes_the_oldest() -> None:
    world = World()
    client = dead(world, 5)
    assert client.redrive("q.dlq", count=2)["value"] == {"redriven": 2}
    assert sorted(world.states("q")) == [(1, 0), (1, 1)]
    assert client.redrive("q.dlq", count=99)["value"] == {"redriven": 3}
    assert client.redrive("q.dlq")["value"] == {"redriven": 0}


@pytest.mark.parametrize("named", [True, False])
def test_a_large_redrive_goes_in_steps_and_is_answered_once_after_the_last(named: bool) -> None:
    world = World()
    count = 2_500
    client = dead(world, count)
    ids = [(1, sequence) for sequence in range(count)] if named else []
    assert client.redrive("q.dlq", ids=ids) is None
    assert (
        0 < len(world.states("q")) <= STEP_BYTES // 24
    )  # a step writes little: segments may be small
    assert world.core.next_deadline_ms() == world.now_ms
    assert world.run_jobs() >= 2
    assert client.answer(request=client.requests)["value"] == {"redriven": count}
    assert client.inbox == []
    assert [m.sequence for m in client.receive_all("q", 3)] == [0, 1, 2]
    world.check()


def test_redrive_of_a_queue_that_is_no_dlq_is_refused() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    assert client.redrive("q")["code"] == "bad_value"
    assert client.redrive("q.dlq")["value"] == {"redriven": 0}
    assert client.redrive("other.dlq")["code"] == "unknown_queue"


def test_the_answer_to_a_redrive_waits_for_its_records() -> None:
    world = World()
    client = dead(world, 1)
    world.auto_sync = False
    assert client.redrive("q.dlq") is None
    client.receive("q", wait_ms=1_000)
    assert client.inbox == []  # the move that the delivery reveals is not safe either
    world.sync()
    assert {frame["op"] for frame in client.inbox} == {"reply", "deliver"}


def test_a_redriven_message_dies_again_with_the_whole_history() -> None:
    world = World()
    client = dead(world, 1)
    for times in range(1, 4):
        client.redrive("q.dlq")
        client.settle("nack", *client.receive_all("q"))
        (entry,) = client.peek("q.dlq")
        assert (entry["redriven"], len(entry["history"])) == (times, times + 1)


# -- delete -------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_a_deleted_queue_is_gone_with_its_dlq_and_its_number_is_never_used_again(
    clean: bool,
) -> None:
    world = World()
    client = dead(world, 2)
    client.publish("q", b"ready", b"begun")
    client.publish("q", b"delayed", delay_ms=100)
    begun = client.receive_all("q", 1)
    assert client.delete("q", force=True)["value"] == {"purged": 5}
    world.run_jobs()
    assert client.queue_names() == []
    assert (world.core.next_deadline_ms() or REST_MS) >= REST_MS  # no delay is left,
    world.advance(2 * REST_MS)
    assert world.core.next_deadline_ms() is None  # and no lease
    assert client.settle("ack", *begun)["lost_runs"] == [m.run for m in begun]
    world.restart(clean=clean)
    world.advance(1_000)
    client = world.hello()
    assert client.queue_names() == []
    assert client.publish("q", b"new")["results"][0]["origin"] == 3  # q and q.dlq were 1 and 2
    world.check()


def test_the_answer_to_a_delete_waits_for_its_record() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    world.auto_sync = False
    assert client.delete("q", force=True) is None
    world.restart(clean=False)
    assert list(world.states("q").values()) == ["READY"]


def test_nobody_learns_of_a_delete_before_it_is_safe() -> None:
    """A crash would bring the queue back, and what was said of it would not be true."""
    world = World()
    client, other, worker = world.hello(), world.hello(), world.hello()
    client.publish("q", b"a")
    begun = worker.receive_all("q", 1)
    world.disconnect(worker)
    world.auto_sync = False
    assert client.delete("q", force=True) is None
    assert (other.delete("q"), other.request({"op": "stats"})) == (None, None)
    worker = world.resume(worker, begun)
    assert worker.inbox == []
    world.auto_sync = True
    world.sync()
    assert worker.pop("welcome")["lost_runs"] == [begun[0].run]
    assert other.answer(request=other.requests - 1)["code"] == "unknown_queue"
    assert other.answer(request=other.requests)["value"]["queues"] == {}


@pytest.mark.parametrize("force", [True, False])
def test_a_queue_with_consumers_is_not_deleted(force: bool) -> None:
    world = World()
    client = world.hello()
    client.consume("q")
    assert client.delete("q", force=force)["code"] == "queue_in_use"
    client.cancel()
    client.receive("q", wait_ms=1_000)
    assert client.delete("q", force=force)["code"] == "queue_in_use"
    world.advance(2_000)
    assert client.delete("q", force=force)["value"] == {"purged": 0}


def test_without_force_neither_live_nor_dead_messages_are_deleted() -> None:
    world = World()
    client = dead(world, 1)
    assert client.delete("q")["code"] == "queue_in_use"
    assert len(world.states("q.dlq")) == 1
    client.purge("q.dlq")
    assert client.delete("q.dlq")["code"] == "bad_value"
    assert client.delete("q")["value"] == {"purged": 0}
    assert client.delete("q")["code"] == "unknown_queue"


# -- purge --------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [True, False])
def test_purge_ends_messages_of_every_state(clean: bool) -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"ready", b"held", b"begun")
    client.publish("q", b"delayed", delay_ms=100)
    client.publish("q", b"keyed", key="k")
    begun = client.receive_all("q", 1)
    client.consume("q", prefetch=1)
    held = client.messages()
    world.auto_sync = False
    client.publish("q", b"entering")
    assert client.purge("q") is None
    world.auto_sync = True
    world.sync()
    assert client.answer(request=client.requests)["value"] == {"purged": 6}
    world.check()
    assert world.states("q") == {}
    answer = client.settle("ack", *begun, *held)
    assert answer["lost_runs"] == [m.run for m in (*begun, *held)]
    world.run_jobs()
    world.advance(100_000)
    client.publish("q", b"new")
    assert [m.body for m in client.messages()] == [b"new"]  # the consumer has its credit back
    world.restart(clean=clean)
    assert len(world.states("q")) == 1


def test_a_large_purge_frees_what_it_took_in_steps() -> None:
    world = World()
    client = world.hello()
    for number in range(5):
        client.publish("q", *[b""] * 1_000, keys=[f"{number}-{i}" for i in range(1_000)])
        client.publish("q", *[b""] * 1_000, delays=[10**9 + i for i in range(1_000)])
    client.publish("q", *[b""] * 1_000)
    assert client.purge("q")["value"] == {"purged": 11_000}
    assert world.run_jobs() >= 5
    assert world.core.next_deadline_ms() is None
    world.check()


# -- settings -----------------------------------------------------------------------------------


def test_settings_changed_while_running_hold_from_then_on_and_over_restarts() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    message = client.receive_all("q")[0]
    client.set("q", max_attempts=1, lease_ms=5_000)
    client.settle("nack", message)
    assert list(world.states("q.dlq")) == [message.id]
    world.restart(clean=False)
    client = world.hello()
    shown = client.request({"op": "queue_show", "queue": "q"})["value"]["settings"]
    assert (shown["max_attempts"], shown["lease_ms"], shown["durability"]) == (1, 5_000, "sync")


@pytest.mark.parametrize(
    "settings", [{"nope": 1}, {"lease_ms": 1}, {"lease_ms": "x"}, {"durability": "x"}]
)
def test_settings_that_are_not_allowed_change_nothing(settings: dict[str, int | str]) -> None:
    world = World()
    client = world.hello()
    assert client.set("q", **settings)["code"] == "bad_value"
    assert world.store.queues == {}
    client.set("q")
    before = dict(world.queue("q").settings)
    assert client.set("q", max_attempts=2, **settings)["code"] == "bad_value"
    assert world.queue("q").settings == before


def test_the_durability_of_messages_is_the_one_they_were_published_under() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"sync")
    client.set("q", durability="memory")
    client.publish("q", b"memory")
    world.restart(clean=False)
    world.advance(1_000)
    assert [m.body for m in world.hello().receive_all("q")] == [b"sync"]


# -- counters -----------------------------------------------------------------------------------


def test_counters_add_up_over_a_life() -> None:
    world = World()
    client = world.hello()
    client.set("q", max_attempts=2, retry_delay_ms=0, retry_jitter_percent=0)
    client.publish("q", *[b""] * 20)
    client.publish("q", b"", delay_ms=10**6)
    client.consume("q", prefetch=10)
    messages = client.messages()
    client.settle("ack", *messages[:3])
    client.settle("nack", *messages[3:5])
    client.settle("reject", messages[5])
    client.settle("release", messages[6])
    client.begin(messages[7])
    counts = client.stats("q")
    live = sum(counts[name] for name in ("ready", "delayed", "held", "begun"))
    assert counts["published"] == 21
    assert live + counts["acked"] + counts["dead_lettered"] + counts["purged"] == 21
    assert (counts["acked"], counts["failed"], counts["released"]) == (3, 2, 1)
    assert counts["rejected"] == 1
    assert (counts["dead_lettered"], counts["begun"], counts["consumers"]) == (1, 1, 1)
    world.check()


def test_an_unknown_queue_is_told_how_it_would_come_to_be() -> None:
    world = World()
    one = world.hello("one")
    assert "a publish to it" in one.request({"op": "queue_show", "queue": "q"})["text"]
    assert "as soon as its source is" in one.request({"op": "queue_show", "queue": "q.dlq"})["text"]
