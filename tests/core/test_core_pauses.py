"""protocol.md, `pause`: a queue hands nothing out, a client gets nothing, until it is resumed or a time comes."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World
from looks import counted

from minibroker.contract import wire
from minibrokerd.core.model.inputs import Hello, Resume
from minibrokerd.core.model.pauses import version_of

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def asked(by: Client, op: str, /, **fields: Any) -> dict[str, Any]:
    """Return the value that a request is answered with, or the error."""
    answer = by.request({"op": op, **fields})
    if answer is None:  # to look through very many clients takes steps
        by.world.run_jobs()
        answer = by.answer(request=by.requests)
    value: dict[str, Any] = answer.get("value", answer)
    return value


def named(world: World, name: str, version: str = "") -> Client:
    """Return a new client of this name and version."""
    client = world._client(name)
    world.apply(Hello(client.connection, name, None, version))
    client.session = client.pop("welcome")["session"]
    return client


def bodies(client: Client) -> list[bytes]:
    """Return the bodies that were delivered to a consumer."""
    return [message.body for message in client.messages()]


def test_a_pause_looks_at_no_other_pause() -> None:
    """Whatever their number: one of a client is found by its name, a time is compared with times."""
    world = World()
    boss = world.hello("boss")
    for number in range(300):
        asked(boss, "pause", client=f"worker-{number}")
    worker = world.hello("worker-7")
    with counted(world) as looks:
        asked(boss, "pause", client="worker-300")
        asked(boss, "pause", client="worker-7", below="2.0")
        asked(boss, "unpause", client="worker-8")
        worker.consume("q")
    assert looks.most < 30


def test_clients_are_looked_through_once_for_all_pauses() -> None:
    """Each of 1,000 pauses looked at all of 2,000 clients: a quarter of a second, for everybody."""
    world = World()
    boss, workers = world.hello("boss"), [world.hello(f"worker-{at}") for at in range(150)]
    for at in range(150):
        asked(boss, "pause", client=f"worker-{at}", for_ms=MINUTE_MS, deadline_ms=MINUTE_MS // 2)
    with counted(world) as looks:
        assert len(asked(boss, "pauses")["pauses"]) == 150
        world.advance(2 * MINUTE_MS)
        assert asked(boss, "pauses") == {"pauses": []}
    assert sum(count for _, count, _ in looks.applies) < 40 * 150
    workers[7].consume("q")
    boss.publish("q", b"0")
    assert bodies(workers[7]) == [b"0"]


def test_pauses_that_end_together_end_in_steps() -> None:
    """Each has a record and a line of the log."""
    world = World()
    boss = world.hello("boss")
    for at in range(250):
        asked(boss, "pause", client=f"worker-{at}", until_unix_ms=world.unix_ms + MINUTE_MS)
    lines = []
    apply = world.core.apply
    with pytest.MonkeyPatch.context() as patch:

        def counting(*args: Any) -> Any:
            effects = apply(*args)
            lines.append(len(effects.notes))
            return effects

        patch.setattr(world.core, "apply", counting)
        world.advance(2 * MINUTE_MS)
    assert (sum(lines), max(lines)) == (250, 100)
    assert asked(boss, "pauses") == {"pauses": []}


def test_a_paused_queue_takes_and_hands_nothing_out() -> None:
    """Publishes go on; what waits is handed out as soon as it is resumed, in its order."""
    world = World()
    client, worker = world.hello("boss"), world.hello()
    client.publish("q", b"0", b"1")
    worker.consume("q", prefetch=2)
    held = worker.messages()
    worker.begin(held[0])
    answer = asked(client, "pause", queue="q")
    assert (answer["queue"], answer["by"], answer["until_unix_ms"]) == ("q", "boss", 0)
    assert (answer["held"], answer["begun"]) == (1, 1)
    client.publish("q", b"2", b"3")
    worker.settle("ack", *held)  # what is in hand ends
    assert bodies(worker) == []
    assert client.receive_all("q") == []
    assert [each["body"] for each in client.peek("q")] == [b"2", b"3"]
    assert asked(client, "unpause", queue="q") == {"resumed": 1}
    assert bodies(worker) == [b"2", b"3"]
    assert asked(client, "unpause", queue="q") == {"resumed": 0}
    world.check()


def test_a_receive_of_a_paused_queue_ends_with_its_wait() -> None:
    """Empty, though messages are ready; one that waits when it is resumed gets them."""
    world = World()
    client = world.hello()
    client.publish("q", b"0")
    asked(client, "pause", queue="q")
    assert client.receive("q", wait_ms=1_000) is None
    world.advance(1_100)
    assert client.answer(request=client.requests)["count"] == 0
    assert client.receive("q", wait_ms=1_000) is None
    request = client.requests
    asked(client, "unpause", queue="q")
    assert client.answer(request=request)["count"] == 1


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("how", ["for", "until", "ever"])
def test_a_pause_ends_at_its_time_over_restarts(how: str, clean: bool) -> None:
    """To a tick by the wall clock; time in which the server was down counts."""
    world = World()
    client = world.hello()
    client.publish("q", b"0")
    until_unix_ms = world.unix_ms + 10 * MINUTE_MS
    when = {"for": {"for_ms": 10 * MINUTE_MS}, "until": {"until_unix_ms": until_unix_ms}}
    answer = asked(client, "pause", queue="q", **when.get(how, {}))
    assert answer["until_unix_ms"] == (0 if how == "ever" else until_unix_ms)
    world.restart(clean=clean, wall_ms=5 * MINUTE_MS)
    worker = world.hello()
    worker.consume("q")
    world.advance(until_unix_ms - world.unix_ms - 1)
    assert bodies(worker) == []
    world.advance(9)
    assert bodies(worker) == ([] if how == "ever" else [b"0"])
    shown = asked(worker, "pauses")["pauses"]
    assert [each["queue"] for each in shown] == (["q"] if how == "ever" else [])
    world.restart(clean=clean, wall_ms=-10 * MINUTE_MS)  # set back, it does not come again
    assert len(asked(world.hello(), "pauses")["pauses"]) == (how == "ever")


def test_a_clock_that_is_set_forward_ends_a_pause() -> None:
    """Within ten seconds."""
    world = World()
    client = world.hello()
    client.publish("q", b"0")
    asked(client, "pause", queue="q", for_ms=10 * MINUTE_MS)
    client.consume("q")
    world.unix_ms += 11 * MINUTE_MS
    world.advance(10_100)
    assert bodies(client) == [b"0"]


def test_a_queue_that_is_deleted_takes_its_pause_along() -> None:
    """One of that name is another queue; also when only the log knows."""
    world = World()
    client = world.hello()
    client.publish("q", b"0")
    asked(client, "pause", queue="q")
    client.delete("q", force=True)
    client.publish("q", b"1")
    assert [message.body for message in client.receive_all("q")] == [b"1"]
    assert asked(client, "pauses") == {"pauses": []}
    world.restart(clean=False)
    assert asked(world.hello(), "pauses") == {"pauses": []}


def test_a_paused_client_gets_nothing_more() -> None:
    """Nor does another connection of that name, before or after; others go on with its queue."""
    world = World()
    boss, worker, other = world.hello("boss"), world.hello("w1"), world.hello("w2")
    worker.consume("q", prefetch=1)
    boss.publish("q", b"0")
    (mine,) = worker.messages()
    answer = asked(boss, "pause", client="w1")
    assert (answer["client"], answer["in_hand"], answer["clients"]) == ("w1", 1, 1)
    boss.publish("q", b"1")
    worker.begin(mine)
    worker.settle("ack", mine)
    assert bodies(worker) == []
    late = world.hello("w1")
    late.consume("q")
    assert bodies(late) == []
    assert late.receive_all("q") == []
    assert boss.explain((1, 1))["reason"] == "worker_paused"
    other.consume("q")
    assert bodies(other) == [b"1"]
    boss.publish("q", b"2")
    world.restart(clean=False)
    world.advance(2_000)
    boss, worker = world.hello("boss"), world.hello("w1")
    worker.consume("q")
    assert bodies(worker) == []
    assert asked(boss, "unpause", client="w1") == {"resumed": 1}
    assert bodies(worker) == [b"1"]
    world.check()


def test_clients_below_a_version_get_nothing() -> None:
    """Of one name or of all; who says no version is below each."""
    world = World()
    boss = named(world, "boss", "9")
    clients = {
        (name, version): named(world, name, version)
        for name in ("a", "b")
        for version in ("", "1.9", "1.10", "2.0")
    }
    asked(boss, "pause", client="a", below="1.10")
    for client in clients.values():
        client.consume("q")
    boss.publish("q", *[b"%d" % at for at in range(8)])
    got = {who for who, client in clients.items() if bodies(client)}
    assert clients.keys() - got == {("a", ""), ("a", "1.9")}
    asked(boss, "pause", client="", below="2")
    asked(boss, "unpause", client="a")
    boss.publish("r", b"x")
    for client in clients.values():
        client.consume("r", consumer=2)
    boss.publish("r", *[b"x"] * 8)
    got = {who for who, client in clients.items() if bodies(client)}
    assert got == {("a", "2.0"), ("b", "2.0")}


@pytest.mark.parametrize("how", ["connected", "restart", "away"])
def test_at_the_deadline_what_a_worker_still_has_goes_back(how: str) -> None:
    """Uncharged, to others; the worker is told, what it says is lost, and it gets nothing more."""
    world = World()
    boss, old = world.hello("boss"), named(world, "w", "1.0")
    other = named(world, "w", "2.0")
    boss.set("q", lease_ms=HOUR_MS)
    old.consume("q", prefetch=3)
    boss.publish("q", b"0", b"1", b"2")
    mine = old.messages()
    old.begin(mine[0])
    answer = asked(boss, "pause", client="w", below="2", deadline_ms=MINUTE_MS)
    assert (answer["in_hand"], answer["deadline_unix_ms"]) == (3, world.unix_ms + MINUTE_MS)
    old.settle("ack", mine[1])
    world.advance(MINUTE_MS - 10)
    assert world.states("q") == {(1, 0): "BEGUN", (1, 2): "HELD"}
    if how == "restart":
        world.restart(clean=False, wall_ms=2 * MINUTE_MS)
        world.advance(2_000)
    elif how == "away":
        world.disconnect(old)
    world.advance(30)
    if how != "connected":
        old = resumed(world, old, "1.0", mine[:1])
        world.run_jobs()
        boss, other = world.hello("boss"), named(world, "w", "2.0")
    told = [frame for frame in old.inbox if frame["op"] in ("cancelled", "welcome")]
    cancelled = [run for frame in told for run in frame["lost_runs"]]
    assert mine[0].run in cancelled
    assert (mine[2].run in cancelled) == (how == "connected")
    assert world.states("q") == {(1, 0): "READY", (1, 2): "READY"}
    assert old.settle("ack", mine[0])["results"] == [{"lost": 1}]
    assert bodies(old) == []
    other.consume("q", prefetch=3)
    got = other.messages()
    assert [(each.body, each.attempt) for each in got] == [(b"0", 1), (b"2", 1)]
    world.check()
    world.restart(clean=False)
    assert set(world.states("q")) == {(1, 0), (1, 2)}


@pytest.mark.parametrize("crash", [False, True])
def test_nobody_goes_on_with_what_went_back_at_a_deadline(crash: bool) -> None:
    """Not when the pause is over, nor after a crash: others may have it by then."""
    world = World()
    boss, old = world.hello("boss"), named(world, "w")
    boss.set("q", lease_ms=HOUR_MS)
    old.consume("q")
    boss.publish("q", b"0")
    mine = old.messages()
    old.begin(*mine)
    asked(boss, "pause", client="w", deadline_ms=MINUTE_MS)
    world.advance(MINUTE_MS + 20)
    assert world.states("q") == {(1, 0): "READY"}
    asked(boss, "unpause", client="w")
    if crash:
        world.restart(clean=False)
    else:
        asked(boss, "pause", queue="q")  # it stays where it is
        world.disconnect(old)
    assert world.states("q") == {(1, 0): "READY"}
    old = resumed(world, old, "", mine)
    assert old.pop("welcome")["lost_runs"] == [mine[0].run]
    assert world.states("q") == {(1, 0): "READY"}


def resumed(world: World, old: Client, version: str, begun: list[Delivered]) -> Client:
    """Return a new connection of a session, of a client that says its version."""
    client = world._client(old.name)
    client.session, client.sequence = old.session, old.sequence
    column = memoryview(wire.pack_runs(each.run for each in begun))
    world.apply(Resume(client.connection, old.session, old.name, column, None, version))
    return client


def test_versions_are_numbers() -> None:
    """Compared one by one; what is no version ends the login."""
    order = ["", "0", "0.1", "0.9", "0.10", "1", "1.0.1", "2024.11.29"]
    assert sorted(set(order), key=version_of) == order
    assert version_of("1") == version_of("1.0.0")
    world = World()
    for text in ("v1", "1.", "1..2", "1_0", "\u0661", "1" * 10, "1.2-rc1"):
        client = world._client("x")
        world.apply(Hello(client.connection, "x", None, text))
        assert client.pop("error")["code"] == "bad_value"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_value"),
        ({"queue": "q", "client": "c"}, "bad_value"),
        ({"queue": "nowhere"}, "unknown_queue"),
        ({"queue": "q.dlq"}, "unknown_queue"),
        ({"queue": "q", "for_ms": 1, "until_unix_ms": 2**50}, "bad_value"),
        ({"queue": "q", "until_unix_ms": 5}, "bad_value"),
        ({"queue": "q", "deadline_ms": 5}, "bad_value"),
        ({"client": "c", "below": "v1"}, "bad_value"),
    ],
)
def test_what_can_be_no_pause_is_refused(fields: dict[str, Any], code: str) -> None:
    """And nothing is changed."""
    world = World()
    client = world.hello()
    client.publish("q", b"0")
    batches = len(world.log)
    assert asked(client, "pause", **fields)["code"] == code
    assert len(world.log) == batches
    assert asked(client, "pauses") == {"pauses": []}
