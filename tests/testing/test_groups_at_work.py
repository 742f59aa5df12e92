"""A handler of a group of a retained log, in a test of an application."""

from __future__ import annotations

import minibroker
from minibroker.session.joining import Joining
from minibroker.testing import MemoryBroker


async def test_what_a_log_has_is_handled_before_the_block_ends() -> None:
    """What is on its way into the log, and from there to the group, counts as work."""
    for count in (1, 100):
        handled: list[int | None] = []

        async def handle(message: minibroker.Message, into: list[int | None] = handled) -> None:
            into.append(message.offset)

        with MemoryBroker() as broker:
            events = broker.queue("events", kind="log")
            await events.declared()
            await broker.log("events").declare_group("audit")
            async with broker.working("events@audit", handle):
                await events.publish_many([b""] * count)
            assert handled == list(range(count))


def test_a_group_that_was_not_fed_yet_is_not_done() -> None:
    """Its queue is empty, and messages stand behind its position."""
    joining = Joining("events@audit", None, delayed=False, now_s=0.0)
    counters = {"ready": 0, "held": 0, "begun": 0, "group_of": {"log": "events", "lag": 3}}
    stats = {"queues": {"events@audit": counters}}
    assert not joining.is_done(stats)
    counters["group_of"] = {"log": "events", "lag": 0}
    assert joining.is_done(stats)
