"""What is set for a key over both clients, on a server and on a broker in process."""

from __future__ import annotations

from typing import Any

import pytest

import minibroker


async def test_a_key_has_a_weight_and_pauses(queue: Any) -> None:
    await queue.publish(b"a", key="k")
    set_to = await queue.set_key_weight("k", 3)
    assert (set_to.key, set_to.weight, set_to.paused) == ("k", 3, False)
    paused = await queue.pause_key("k")
    assert (paused.paused, paused.until, paused.weight) == (True, None, 3)
    assert await queue.receive() == []
    assert (await queue.pause_key("k", 60)).until is not None
    assert [each.key for each in await queue.keys()] == ["k"]
    assert not (await queue.resume_key("k")).paused
    (message,) = await queue.receive(wait=5)
    await message.nack("too many requests", delay=0, key_delay=60, confirmed=True)
    (told,) = await queue.keys()
    assert told.paused
    assert told.until is not None
    assert await queue.receive() == []
    with pytest.raises(minibroker.BadValue):
        await queue.set_key_weight("k", 0)
    with pytest.raises(minibroker.BadValue):
        await queue.pause_key("")


async def test_a_key_has_a_circuit_of_its_own(queue: Any) -> None:
    wants = {"circuit_failures_percent": 50, "circuit_attempts": 2, "circuit_by": "key"}
    await queue.set(retry_delay_ms=0, **wants)
    await queue.publish_many([b"a"] * 3, key="a")
    for _ in range(2):
        (message,) = await queue.receive(wait=5)
        await message.nack(ConnectionError("no answer"), confirmed=True)
    waits = await queue.publish(b"a", key="a")
    await queue.publish(b"b", key="b")
    (other,) = await queue.receive(10, wait=5)
    assert other.key == "b"
    why = await queue.explain(waits.id)
    assert why.reason == "key_circuit_open"
    (told,) = await queue.keys()
    assert (told.key, told.weight, told.paused, told.circuit.state) == ("a", 1, False, "open")
    assert told.circuit.why == "2 of 2 attempts failed, the last one with ConnectionError"
    assert told.circuit.since < told.circuit.until
    assert (await queue.resume_key("a")).circuit is None
    assert len(await queue.receive(10, wait=5)) == 4
