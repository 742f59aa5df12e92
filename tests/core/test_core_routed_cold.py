"""What was routed to several queues by one record, and left memory: each queue gets its own back."""

from __future__ import annotations

import pytest
from harness import World
from test_core_routing import asked, bind, make, reached, route

from minibrokerd.core.durable import paging
from minibrokerd.core.model.sums import Sums


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_what_several_queues_had_begun_outlives_a_start(ahead: int) -> None:
    """One record has the message of each; `b` has other sequences than `a`, or the same."""
    world = World(segment_batches=50)
    world.digests = True
    client = world.hello()
    make(client, "e", "fanout")
    for name in "ab":
        bind(client, "e", name)
    for _ in range(ahead):
        client.publish("b", b"ahead")
        client.settle("ack", *client.receive_all("b"))
    reached(route(client, "e", "", b"1", b"2"))
    for name in "ab":
        for message in client.receive_all(name):
            client.begin(message)
    ids = {
        name: [(each["origin"], each["sequence"]) for each in client.peek(name)] for name in "ab"
    }
    for _ in range(60):  # the segment is not the last one any more
        client.publish("else", b"y")
    world.restart()
    client = world.hello()
    assert {
        name: [(each["origin"], each["sequence"], each["state"]) for each in client.peek(name)]
        for name in "ab"
    } == {name: [(*id, "BEGUN") for id in some] for name, some in ids.items()}
    world.advance(120_000)
    for name in "ab":
        got = client.receive_all(name)
        assert [each.id for each in got] == ids[name]
        assert [each.body for each in got] == [b"1", b"2"]
        client.settle("ack", *got)
        assert client.receive_all(name) == []


@pytest.mark.parametrize("restarts", [False, True])
def test_queues_of_several_lifetimes_leave_memory_and_come_back(
    restarts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time to live has a record of its own, and what is in memory alone has none."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)
    world = World(segment_batches=1_000)
    client = world.hello()
    make(client, "e", "fanout")
    lifetimes = {"a": 0, "b": 60_000, "c": 120_000, "d": 0}
    for name, ttl_ms in lifetimes.items():
        bind(client, "e", name)
        asked(client, "queue_set", queue=name, settings={"message_ttl_ms": ttl_ms})
    bind(client, "e", "memory")
    asked(client, "queue_set", queue="memory", settings={"durability": "memory"})
    for number in range(12):
        client.answered_below = client.sequence + 1
        assert len(reached(route(client, "e", "", b"%d" % number))) == 5
    world.freeze()
    assert world.queue("a").group.lanes.default.cold
    assert not world.queue("memory").group.lanes.default.cold
    if restarts:
        world.restart()
        client = world.hello()
    for name in [*lifetimes, *([] if restarts else ["memory"])]:
        got: list[bytes] = []
        while some := client.receive_all(name):
            got += [each.body for each in some]
            client.settle("ack", *some)
        assert got == [b"%d" % number for number in range(12)], name
