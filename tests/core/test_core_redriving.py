"""protocol.md, `redrive_start`: a redrive that goes on by itself, at a rate, after a canary, over restarts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from core_client import Client, Id
from harness import World
from looks import MOST, counted, small_budget

from minibroker.contract import wire
from minibrokerd.core.model import index, places, walks
from minibrokerd.core.model.inputs import Space
from minibrokerd.core.model.kept import REDRIVE
from minibrokerd.core.model.redrives import REMEMBERED_MS

__all__ = ["small_budget"]
SECOND_MS = 1_000


def dead(count: int, error: str = "E") -> tuple[World, Client]:
    """Return a world in which so many messages of `q` died."""
    world = World()
    client = world.hello("operator")
    client.publish("q", *[b"x"] * count)
    client.settle("reject", *client.receive_all("q", count), error=(error, "e"))
    return world, client


def start(client: Client, *ids: Id, **fields: Any) -> dict[str, Any]:
    """Begin a redrive of `q.dlq`; return how it stands, or the error."""
    part = {"op": "redrive_start", "queue": "q.dlq", "runs": len(ids), **fields}
    answer = client.request(part, wire.pack_runs((0, *id, 1) for id in ids))
    client.world.sync()
    return _said(answer or client.answer(request=client.requests))


def stands(client: Client, op: str = "redrive_show") -> dict[str, Any]:
    """Return how the redrive of `q.dlq` stands."""
    answer = client.request({"op": op, "queue": "q.dlq"})
    client.world.sync()
    return _said(answer or client.answer(request=client.requests))


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = answer.get("value", answer)
    said: dict[str, Any] = value.get("redrive", value)
    return said


def ready(client: Client, queue: str = "q") -> int:
    """Return how many messages of a queue are ready."""
    return client.stats(queue)["ready"]


def worked(client: Client, count: int = 1_000, op: str = "ack") -> int:
    """Receive messages of `q` and end them; return how many."""
    got = client.receive_all("q", count)
    if got:
        client.settle(op, *got)
    return len(got)


@pytest.mark.parametrize(("rate", "seconds"), [(1, 12), (7, 12), (30, 4), (250, 2)])
def test_no_second_has_more_than_its_rate(rate: int, seconds: int) -> None:
    """Nor less: after s seconds it is s times the rate, and one."""
    world, client = dead(rate * seconds + rate)
    assert start(client, rate=rate)["state"] == "sending"
    for second in range(1, seconds + 1):
        world.advance(SECOND_MS)
        # What falls into one tenth of a second goes together, and timers have ticks of 8 ms.
        least = rate * second - rate // 8 - 1
        assert least <= ready(client) <= rate * second + 1
    world.check()


def test_without_a_rate_it_goes_as_fast_as_it_can() -> None:
    world, client = dead(300)
    start(client)
    world.run_jobs()
    assert ready(client) == 300
    said = stands(client)
    assert (said["state"], said["redriven"], said["by"]) == ("done", 300, "operator")
    assert said["ended_unix_ms"] == world.unix_ms
    assert client.stats("q.dlq")["redriven"] == 300


def test_the_others_follow_when_the_canary_has_ended() -> None:
    world, client = dead(50)
    start(client, canary=5)
    world.advance(SECOND_MS)
    assert ready(client) == 5
    assert stands(client)["state"] == "watching"
    assert worked(client, 4) == 4
    (last,) = client.receive_all("q")
    world.advance(10 * SECOND_MS)
    assert stands(client)["why"] == "1 of the 5 sent first have not ended"
    assert client.stats("q.dlq")["ready"] == 45
    client.settle("ack", last)
    world.advance(2 * SECOND_MS)
    assert ready(client) == 45
    assert stands(client) | {"state": "done", "redriven": 50, "why": ""} == stands(client)


@pytest.mark.parametrize("seen", ["in the DLQ", "ended there", "with a consumer of it", "no room"])
def test_one_of_the_canary_that_dies_again_stops_it(seen: str) -> None:
    """Whatever became of it in the DLQ; and it says why."""
    world, client = dead(20)
    start(client, canary=3)
    world.advance(SECOND_MS)
    if seen == "no room":
        client.set("q.dlq", max_messages=17)
    one, *others = client.receive_all("q")
    client.settle("ack", *others)
    client.settle("reject", one, error=("KeyError", "no such account"))
    if seen == "ended there":
        got = [each for each in client.receive_all("q.dlq", 30) if each.id == one.id]
        client.settle("ack", *got)
    elif seen == "with a consumer of it":
        client.receive_all("q.dlq", 30)
    world.advance(3 * SECOND_MS)
    said = stands(client)
    assert (said["state"], said["redriven"]) == ("stopped", 3)
    assert "1-0, one of the 3 sent first, died again" in said["why"]
    assert ("KeyError: no such account" in said["why"]) == (seen != "ended there")
    assert ready(client) == 0


def test_a_canary_that_a_restart_cut_short_is_made_whole_and_no_longer() -> None:
    world, client = dead(9)
    assert start(client, rate=1, canary=4)["state"] == "canary"
    world.advance(SECOND_MS)
    sent = ready(client)
    assert 0 < sent < 4
    world.restart()
    client = world.hello("operator")
    world.advance(60 * SECOND_MS)
    assert ready(client) == 4, "nobody has worked on them: nothing else follows"
    world.check()


def test_a_retry_of_the_canary_is_waited_for() -> None:
    """It has not ended."""
    world, client = dead(10)
    start(client, canary=1)
    world.advance(SECOND_MS)
    client.settle("nack", *client.receive_all("q"), delay_ms=20 * SECOND_MS)
    world.advance(15 * SECOND_MS)
    assert stands(client)["state"] == "watching"
    world.advance(6 * SECOND_MS)
    assert worked(client) == 1
    world.advance(2 * SECOND_MS)
    assert stands(client)["state"] == "done"


@pytest.mark.parametrize("how", ["clean", "crash", "forwarded", "digests"])
@pytest.mark.parametrize("at_s", [0, 1, 3, 6])
def test_a_restart_goes_on_and_sends_none_twice(how: str, at_s: int) -> None:
    """In each of its states: 40 messages, of which 4 go first, then ten a second."""
    world, client = dead(40)
    start(client, canary=4, rate=10, error_class="E")
    acked: Counter[Id] = Counter()
    for second in range(14):
        world.advance(SECOND_MS)
        if second == at_s:
            if how in ("forwarded", "digests"):
                world.free(world.core.synced)
                world.digests = how == "digests"
            world.restart(clean=how != "crash")
            client = world.hello("operator")
            world.advance(SECOND_MS)
        if second >= 2:
            got = client.receive_all("q")
            acked.update(message.id for message in got)
            if got:
                client.settle("ack", *got)
    assert acked == Counter({(1, sequence): 1 for sequence in range(40)})
    said = stands(client)
    assert (said["state"], said["redriven"], said["by"]) == ("done", 40, "operator")
    world.check()


def test_what_was_not_kept_when_it_crashed_is_looked_for_again() -> None:
    """The newest steps are gone with the batch that had them: the messages are dead as before, and go again."""
    world, client = dead(30)
    start(client, rate=10)
    world.advance(SECOND_MS)
    world.auto_sync = False
    world.advance(SECOND_MS)
    world.restart(clean=False)
    world.auto_sync = True
    client = world.hello()
    world.advance(5 * SECOND_MS)
    assert ready(client) == 30
    assert {each["redriven"] for each in client.peek("q")} == {1}


def test_one_that_is_stopped_sends_no_more_and_another_may_begin() -> None:
    world, client = dead(100)
    start(client, rate=10)
    assert start(client)["code"] == "limit_reached"
    world.advance(3 * SECOND_MS)
    said = stands(client, "redrive_stop")
    sent = ready(client)
    assert (said["state"], said["redriven"], said["why"]) == (
        "stopped",
        sent,
        "operator stopped it",
    )
    assert start(client, rate=10)["state"] == "sending"
    world.advance(2 * SECOND_MS)
    assert stands(client)["redriven"] == ready(client) - sent
    assert ready(client) <= sent + 22, "the one that was stopped went on"
    assert stands(client, "redrive_stop")["why"] == stands(client, "redrive_stop")["why"]


def test_what_ended_is_known_for_a_day() -> None:
    world, client = dead(1)
    start(client)
    world.advance(REMEMBERED_MS - SECOND_MS)
    assert stands(client)["state"] == "done"
    world.advance(2 * SECOND_MS)
    assert stands(client) == stands(client, "redrive_stop") == {}
    world.advance(10 * SECOND_MS)
    assert not list(world.store.kept.of(REDRIVE))


def test_some_go_by_their_ids_and_what_is_no_filter_is_refused() -> None:
    world, client = dead(10)
    ids = [(1, 7), (1, 3), (1, 99), (1, 5)]
    start(client, *ids, rate=1)
    world.advance(10 * SECOND_MS)
    assert [each["sequence"] for each in client.peek("q")] == [3, 5, 7]
    assert stands(client)["redriven"] == 3
    assert start(client, *ids, key="k")["code"] == "bad_value"
    answer = client.request({"op": "redrive_start", "queue": "q"})
    assert answer["code"] == "bad_value"
    client.publish("other", b"x")
    part = {"op": "redrive_start", "queue": "other.dlq"}
    assert client.request(part)["value"]["redrive"]["state"] == "done"


def test_what_dies_meanwhile_is_left() -> None:
    """Also what it sent back itself: it never goes round."""
    world, client = dead(10)
    start(client, rate=2)
    for _ in range(10):
        client.publish("q", b"new")
        worked(client, op="reject")
        world.advance(SECOND_MS)
    said = stands(client)
    assert (said["state"], said["redriven"]) == ("done", 10)
    assert client.stats("q.dlq")["ready"] == 20


@pytest.mark.parametrize("lack", ["room", "disk"])
def test_it_waits_for_room_and_says_so(lack: str) -> None:
    world, client = dead(10)
    if lack == "room":
        client.set("q", max_messages=4)
    else:
        world.apply(Space(short=True, pause=False))
    start(client)
    world.advance(5 * SECOND_MS)
    assert "full" in stands(client)["why"]
    assert ready(client) == (4 if lack == "room" else 0)
    if lack == "room":
        worked(client)
        client.set("q", max_messages=0)
    else:
        world.apply(Space(short=False, pause=False))
    world.advance(2 * SECOND_MS)
    assert stands(client) | {"state": "done", "why": "", "redriven": 10} == stands(client)


@pytest.mark.parametrize("restart", [False, True])
def test_it_ends_with_its_queue(restart: bool) -> None:
    world, client = dead(10)
    start(client, rate=1)
    world.advance(SECOND_MS)
    client.delete("q", force=True)
    if restart:
        world.restart(clean=False)
    world.advance(5 * SECOND_MS)
    assert not [entry for entry in world.store.kept if entry.kind is REDRIVE]


@pytest.mark.usefixtures("small_budget")
def test_very_many_go_back_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No apply looks at more than its number of items."""
    monkeypatch.setattr(walks, "LOOKS", 100)
    monkeypatch.setattr(places, "MOST", 50)
    monkeypatch.setattr(index, "SHELF_BITS", 5)
    world, client = dead(600)
    with counted(world, world.store.queues["q.dlq"].group.lanes.index) as looks:
        start(client, error_class="E", canary=5)
        world.advance(SECOND_MS)
        assert worked(client) == 5
        world.advance(2 * SECOND_MS)
    assert ready(client) == 595
    assert looks.most <= MOST, looks.applies
    assert len(looks.applies) > 30, "one step is no test"
