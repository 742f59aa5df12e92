"""What bodies take of memory: all bytes of a publish, from the publish until no message of it is in memory."""

from __future__ import annotations

import pytest
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model.sums import Sums

BODY = b"x" * 1_000
COUNT = 50
FRAME_BYTES = COUNT * len(BODY)


def test_a_publish_takes_its_bytes_as_long_as_one_message_of_it_is_there() -> None:
    """An estimate by message says a fiftieth of it; `--memory-limit` goes by what is taken."""
    world = World()
    client = world.hello()
    client.publish("q", *[BODY] * COUNT)
    got = client.receive_all("q", COUNT)
    client.settle("ack", *got[:-1])
    world.check()
    assert world.core.hot_bytes() < FRAME_BYTES // 10
    assert FRAME_BYTES < world.core.held_bytes() < world.core.memory_bytes()
    client.settle("release", got[-1])  # it waits, and is another kind of item now
    world.check()
    assert world.core.held_bytes() > FRAME_BYTES
    (last,) = client.receive_all("q")
    assert last.body == BODY
    client.settle("ack", last)
    world.check()
    assert world.core.held_bytes() == 0


def test_a_copy_takes_the_bytes_of_what_was_copied() -> None:
    """The rest of its publish goes with the old record, from memory and from the log."""
    world = World()
    client = world.hello()
    client.publish("q", *[BODY] * COUNT)
    got = client.receive_all("q", COUNT)
    client.settle("ack", *got[1:])
    world.free(world.core.synced)
    world.check()
    assert len(BODY) < world.core.held_bytes() < 2 * len(BODY)


@pytest.mark.parametrize("end", ["purge", "queue_delete"])
def test_a_purge_lets_go_wherever_messages_are(end: str) -> None:
    """Ready, returned, with a key, delayed, held, begun, and published a moment ago."""
    world = World()
    client, other = world.hello(), world.hello()
    client.publish("q", *[BODY] * COUNT)
    client.publish("q", *[BODY] * COUNT, key="k")
    client.publish("q", *[BODY] * COUNT, delay_ms=60_000)
    client.receive_all("q", 5)
    other.consume("q", prefetch=5)
    released = client.receive_all("q", 5)
    client.settle("release", *released)
    runs = wire.pack_runs([(0, released[3].origin, released[3].sequence, 1)])
    client.request({"op": "purge", "queue": "q", "runs": 1}, runs)  # out of the middle
    world.auto_sync = False
    client.publish("q", *[BODY] * COUNT)
    world.check()
    assert world.core.held_bytes() > 4 * FRAME_BYTES
    part: dict[str, object] = {"op": end, "queue": "q"}
    if end == "queue_delete":
        world.disconnect(other)  # a queue with consumers is not deleted
        part["force"] = 1
    client.request(part)
    world.sync()
    world.auto_sync = True
    world.run_jobs()
    world.check()
    assert world.core.held_bytes() == 0


def test_what_left_memory_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes its own again when it comes back."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    monkeypatch.setattr(Sums, "large_bytes", 0)
    world = World()
    client = world.hello()
    for _ in range(4):
        client.publish("q", *[BODY] * COUNT)
    world.freeze()
    world.check()
    assert FRAME_BYTES < world.core.held_bytes() < 2 * FRAME_BYTES
    world.thaw()
    world.check()
    assert world.core.held_bytes() > 4 * FRAME_BYTES
