"""Each way out of a queue, as the table of ends has them: those who wait for the message are told it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client, Id
from harness import World
from test_core_results import ask, later

from minibroker.contract import wire
from minibroker.contract.ends import ENDS, Outcome
from minibroker.contract.reasons import REASONS
from minibrokerd.bodies.shelves import stands
from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import Effects, Outgoing
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.verbs import results

HOUR_MS = 3_600_000
FIRST = (1, 0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two messages of a queue stay in memory, others may leave it; one is asked for before it is published."""
    monkeypatch.setattr(results, "_never_was", lambda store, id: False)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)


Story = Callable[
    [World, Client], dict[str, Any]
]  # what ends the message, and what is told beside the state


def completed(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    [message] = client.receive_all("q")
    columns = wire.pack_runs([message.run]) + wire.pack_strings([b"\x07"])
    client.sequenced([{"op": "complete", "queue": "q", "runs": 1}], columns)
    return {"result": b"\x07"}


def acked(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.settle("ack", *client.receive_all("q"))
    return {}


def acked_in_the_middle(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", b"y", b"z")
    client.receive_all("q")
    token = max(world.queue("q").group.deliveries)
    client.settle_runs("ack", "q", [(token, 1, 1, 1), (token, 1, 0, 1)])
    return {}


def rejected(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.settle("reject", *client.receive_all("q"), error=("ValueError", "no"))
    return {"error_class": "ValueError", "error_text": "no"}


def rejected_beside_a_full_dlq(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", b"y")
    client.set("q.dlq", max_messages=1)
    client.settle("reject", *reversed(client.receive_all("q")), error=("ValueError", "no"))
    assert client.explain(FIRST)["reason"] == "dlq_full"
    return {"error_class": "ValueError", "error_text": "no"}


def failed(world: World, client: Client) -> dict[str, Any]:
    client.set("q", max_attempts=1)
    client.publish("q", b"x")
    client.settle("nack", *client.receive_all("q"), error=("ValueError", "no"))
    return {"error_class": "ValueError", "error_text": "no"}


def leased_too_long(world: World, client: Client) -> dict[str, Any]:
    client.set("q", max_attempts=1)
    client.publish("q", b"x")
    client.begin(*client.receive_all("q", lease_ms=1_000))
    world.advance(1_016)
    return {"error_class": "expired", "error_text": ""}


def expired_and_dead(world: World, client: Client) -> dict[str, Any]:
    client.set("q", message_ttl_ms=1_000, on_expired="dead-letter")
    client.publish("q", b"x")
    world.advance(1_016)
    world.run_jobs()
    return {"error_class": "ttl_expired", "error_text": "its time to live of 1000 ms was over"}


def overflowed_and_dead(world: World, client: Client) -> dict[str, Any]:
    client.set("q", max_messages=1, overflow="dead-letter")
    client.publish("q", b"x")
    client.publish("q", b"y")
    text = "it holds 1 of its 1 max_messages"
    return {"error_class": "QueueFull", "error_text": text}


def expired(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", ttl_ms=1_000)
    world.advance(1_016)
    world.run_jobs()
    return {}


def expired_while_held(world: World, client: Client) -> dict[str, Any]:
    client.consume("q")
    client.publish("q", b"x", ttl_ms=1_000)
    world.advance(1_016)
    world.run_jobs()
    return {}


def dropped(world: World, client: Client) -> dict[str, Any]:
    client.set("q", max_messages=1, overflow="drop-oldest")
    client.publish("q", b"x")
    client.publish("q", b"y")
    return {"by": "q"}


def replaced(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", uniques=["k"])
    client.publish("q", b"y", uniques=["k"], unique_mode="replace")
    return {"by": "1-1 (worker)"}


def kept_latest(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", uniques=["k"], delay_ms=5_000)
    client.publish("q", b"y", uniques=["k"], unique_mode="keep-latest")
    return {"by": "1-1 (worker)"}


def replaced_in_its_frame(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", b"y", uniques=["k", "k"], unique_mode="replace")
    return {"by": "1-1"}


def doubled_in_its_frame(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"w", b"x", b"y", uniques=["j", "k", "j"])
    return {"by": "1-0"}


def cancelled(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.cancel_messages("q", FIRST)
    return {"by": "worker"}


def cancelled_at_work(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.begin(*client.receive_all("q"))
    client.cancel_messages("q", FIRST)
    return {"by": "worker"}


def purged(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    columns = wire.pack_runs([(0, *FIRST, 1)])
    client.request({"op": "purge", "queue": "q", "runs": 1}, columns)
    return {"by": "worker"}


def all_purged(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.purge("q")
    return {"by": "worker"}


def all_purged_at_work(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", b"y")
    client.begin(*client.receive_all("q", 1))
    client.purge("q")
    return {"by": "worker"}


def all_purged_delayed(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", delay_ms=5_000)
    client.purge("q")
    return {"by": "worker"}


def deleted(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x")
    client.delete("q", force=True)
    return {"by": "q"}


def deleted_where_it_was_moved(world: World, client: Client) -> dict[str, Any]:
    client.publish("q", b"x", b"y")
    client.request({"op": "move", "queue": "q", "target": "elsewhere", "count": 1})
    world.run_jobs()
    client.purge("q")  # of the other one alone
    client.delete("elsewhere", force=True)
    return {"by": "elsewhere"}


def damaged(world: World, client: Client) -> dict[str, Any]:
    for body in (b"x", b"y", b"z"):
        client.publish("q", body)
    world.freeze()
    world._read = lambda asked: [None] * len(stands(asked)[1])  # type: ignore[method-assign]
    world.thaw()
    world.sync()
    assert client.explain((1, 2))["reason"] == "damaged"
    return {}


STORIES: dict[Outcome, tuple[Story, ...]] = {
    Outcome.DONE: (completed,),
    Outcome.ACKED: (acked, acked_in_the_middle),
    Outcome.DEAD: (
        rejected, rejected_beside_a_full_dlq, failed, leased_too_long, expired_and_dead, overflowed_and_dead,
    ),
    Outcome.CANCELLED: (cancelled, cancelled_at_work),
    Outcome.PURGED: (purged, all_purged, all_purged_at_work, all_purged_delayed),
    Outcome.DELETED: (deleted, deleted_where_it_was_moved),
    Outcome.EXPIRED: (expired, expired_while_held),
    Outcome.DROPPED: (dropped,),
    Outcome.REPLACED: (replaced, kept_latest, replaced_in_its_frame),
    Outcome.DUPLICATE: (doubled_in_its_frame,),
    Outcome.DAMAGED: (damaged,),
}  # fmt: skip
ALL = [(outcome, story) for outcome, stories in STORIES.items() for story in stories]
IDS = [story.__name__ for _, story in ALL]
ID_OF: dict[Story, Id] = {doubled_in_its_frame: (1, 2), damaged: (1, 2)}
# Their messages are not named one by one in the log: nothing of each is kept.
ALL_AT_ONCE = (
    all_purged,
    all_purged_at_work,
    all_purged_delayed,
    deleted,
    deleted_where_it_was_moved,
)


def test_each_row_has_a_story_and_a_reason() -> None:
    assert set(STORIES) == set(Outcome)
    assert [end.reason for end in ENDS.values() if end.reason not in REASONS] == []


@pytest.mark.parametrize("result_ms", [0, HOUR_MS])
@pytest.mark.parametrize(("outcome", "story"), ALL, ids=IDS)
def test_who_waits_is_told_how_it_ended(outcome: Outcome, story: Story, result_ms: int) -> None:
    world = World(segment_batches=100)
    client, caller = world.hello("worker"), world.hello("caller")
    client.set("q", result_ms=result_ms)
    id = ID_OF.get(story, FIRST)
    assert ask(caller, id, queue="q", wait_ms=HOUR_MS) is None
    more = story(world, client)
    is_done = outcome is Outcome.ACKED and result_ms
    state = "DONE" if is_done else outcome.name
    world.run_jobs()
    value = later(caller)
    assert value == {"state": state, "ended_unix_ms": value["ended_unix_ms"], **more}
    assert world.unix_ms - 100 < value["ended_unix_ms"] <= world.unix_ms
    world.check()
    if not result_ms or story in ALL_AT_ONCE:
        return
    for restarts in (False, True):
        if restarts:
            world.restart()
        assert ask(world.hello(), id, queue="q") == value, "also who asks later"


@pytest.mark.parametrize("result_ms", [0, HOUR_MS])
@pytest.mark.parametrize(("outcome", "story"), ALL, ids=IDS)
def test_nobody_hears_of_an_end_that_a_crash_would_undo(
    outcome: Outcome, story: Story, result_ms: int
) -> None:
    world = World(segment_batches=100)
    client, caller = world.hello("worker"), world.hello("caller")
    client.set("q", result_ms=result_ms)
    ask(caller, ID_OF.get(story, FIRST), queue="q", wait_ms=HOUR_MS)
    answers: list[Outgoing] = []
    route = world._route

    def watched(effects: Effects) -> None:
        mine = [each for each in effects.outgoing if each.connection == caller.connection]
        answers.extend(mine)
        route(effects)

    world._route = watched  # type: ignore[method-assign]
    story(world, client)
    world.run_jobs()
    assert [each.rests_on > 0 for each in answers] == [True]


def test_of_messages_in_memory_nothing_is_logged() -> None:
    """What is kept of them does not outlive them."""
    world = World()
    client, caller = world.hello("worker"), world.hello("caller")
    client.set("q", durability="memory", result_ms=HOUR_MS, max_messages=1, overflow="drop-oldest")
    client.publish("q", b"x")
    records = len(world.log)
    for end in (
        lambda: client.publish("q", b"y"),
        lambda: client.cancel_messages("q", (1, 1)),
        lambda: client.publish("q", b"z", ttl_ms=1_000),
        lambda: world.advance(1_016),
    ):
        end()
        world.run_jobs()
    states = [ask(caller, (1, sequence), queue="q")["state"] for sequence in range(3)]
    assert states == ["DROPPED", "CANCELLED", "EXPIRED"]
    assert len(world.log) == records
