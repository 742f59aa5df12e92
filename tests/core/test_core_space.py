"""Promises about a disk that is nearly full: what is left of it is for the ends of messages."""

from __future__ import annotations

from harness import World

from minibrokerd.core.model.inputs import Space

LEASES = (5, 6)  # BEGIN, EXTEND: docs/architecture.md, section 6


def lease_records(world: World) -> int:
    return sum(record.type in LEASES for batch in world.log for record in batch.records)


def test_nothing_is_handed_out_while_space_is_made_and_acks_go_on() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b")
    client.consume("q")
    (held,) = client.messages()
    world.apply(Space(short=True, pause=True))
    assert client.settle("ack", held)["results"] == [{"lost": 0}]
    assert client.messages() == []
    assert client.receive_all("q") == []
    world.apply(Space(short=True, pause=False))
    (held,) = client.messages()
    assert held.body == b"b"
    world.check()


def test_what_a_crash_may_forget_is_not_logged_while_space_is_short() -> None:
    """Leases and the texts of errors; the attempt itself counts."""
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    world.apply(Space(short=True, pause=False))
    (begun,) = client.receive_all("q")
    client.settle("nack", begun, delay_ms=0, error=("E", "a long text"))
    (shown,) = client.peek("q")
    (attempt,) = shown["history"]
    assert (attempt["cause"], attempt["error_text"]) == ("failed", "")
    world.sync()
    assert lease_records(world) == 0
    world.check()
