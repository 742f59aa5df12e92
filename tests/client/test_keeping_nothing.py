"""What the client has done with, it does not keep: names of queues, deadlines, bodies, outcomes."""

from __future__ import annotations

import asyncio
import gc

import pytest
from fake_server import FakeServer
from steps import settle_loop

import minibroker
from minibroker.contract import limits
from minibroker.session.deadlines import SLOT_MS, Deadlines


async def test_queues_that_were_used_are_not_looked_at_again(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    for number in range(300):
        queue = broker.queue(f"tenant-{number}")
        await queue.publish(b"x")
        [message] = await queue.receive()
        await message.ack(confirmed=True)
    del message
    gc.collect()
    session = broker._driver.session
    assert not session.owing
    assert not session.outbox.open
    assert len(session._settlements) == 0


def test_deadlines_that_were_discarded_leave_no_slots() -> None:
    """A call each 8 ms with a time-out of an hour, all answered at once."""
    deadlines: Deadlines[object] = Deadlines()
    for number in range(20_000):
        item = object()
        slot = deadlines.add(item, 3_600_000 + number * SLOT_MS)
        deadlines.discard(item, slot)
    assert len(deadlines) < 100
    assert deadlines.next_ms() is None


def test_a_slot_that_is_used_again_is_due_once() -> None:
    deadlines: Deadlines[str] = Deadlines()
    slot = deadlines.add("a", 80)
    deadlines.add("far", 8_000)
    deadlines.discard("a", slot)
    deadlines.add("b", 80)
    assert deadlines.next_ms() == 80
    assert deadlines.pop_due(100) == ["b"]
    assert deadlines.pop_due(100) == []
    assert deadlines.pop_due(8_000) == ["far"]


async def test_bodies_go_when_their_messages_have_ended(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    queue = broker.queue("q")
    for _ in range(60):
        await queue.publish(b"x" * 1_000)
        [message] = await queue.receive()
        await message.ack(confirmed=True)
    assert len(broker._driver.session.deliveries) == 0


async def test_a_publish_unanswered_for_too_long_is_unknown_and_not_resent(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have forgotten its outcome: sent again, it could be stored twice."""
    server.withhold = True
    old = asyncio.ensure_future(broker.queue("q").publish(b"old", timeout=3_600))
    await settle_loop()
    [sent] = broker._driver.session.window
    sent.written_ms -= limits.FRAME_OUTCOME_MS
    server.links[-1].fail(ConnectionResetError("cut"))
    with pytest.raises(minibroker.OutcomeUnknown):
        await asyncio.wait_for(old, 30)
    server.withhold = False
    await broker.queue("q").publish(b"new")
    assert [stored[2] for stored in server.queue("q").ready] == [b"old", b"new"]
    assert len(server.parts("publish")) == 2
