"""A real server with a retained log is killed, and stopped, while producers publish and two groups read."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import minibroker
from support.broker import BrokerServer

LIVES = 2
PRODUCERS = 3


class Story:
    """What was confirmed, and what each group has seen."""

    def __init__(self) -> None:
        self.confirmed: dict[int, bytes] = {}
        self.seen: dict[str, dict[int, int]] = {"one": {}, "two": {}}
        self.number = 0
        self.enough, self.has_enough = 0, asyncio.Event()

    async def produce(self, broker: minibroker.Broker) -> None:
        """Publish until it is cancelled; note what was confirmed."""
        queue = broker.queue("log", kind="log")
        while True:
            self.number += 1
            body = b"%d" % self.number
            key = f"k{self.number % 5}"
            confirm = await queue.publish(body, key=key, timeout=60)
            assert confirm.sequence not in self.confirmed, "an offset names one message"
            self.confirmed[confirm.sequence] = body
            if len(self.confirmed) > self.enough:
                self.has_enough.set()

    async def consume(self, broker: minibroker.Broker, group: str) -> None:
        """Ack what the group gets, until it is cancelled."""
        async with broker.queue(f"log@{group}").consume(prefetch=50) as messages:
            async for message in messages:
                seen = self.seen[group]
                assert message.offset is not None
                seen[message.offset] = seen.get(message.offset, 0) + 1
                await message.ack()


async def read_all(broker: minibroker.Broker) -> dict[int, bytes]:
    """Return all that the log has."""
    found: dict[int, bytes] = {}
    start: int | str = "first"
    while True:
        page = await broker.log("log").read(start)
        for message in page:
            assert message.offset not in found
            found[message.offset] = message.raw
        if page.next >= page.stop:
            return found
        start = page.next


def stop(server: BrokerServer) -> None:
    """Stop it with work on the files under way; it ends in good order."""
    assert server.stop() == 0
    assert "xception" not in server.output


async def live(server: BrokerServer, story: Story, end: Callable[[], object]) -> None:
    """Let everybody work for a while, then end the server."""
    async with minibroker.connect(server.url, timeout=1) as broker:
        await broker.queue("log", kind="log").publish(b"first of a life", timeout=60)
        for group in story.seen:
            await broker.log("log").declare_group(group)
        tasks = [asyncio.ensure_future(story.produce(broker)) for _ in range(PRODUCERS)]
        tasks += [asyncio.ensure_future(story.consume(broker, group)) for group in story.seen]
        story.enough, story.has_enough = (
            len(story.confirmed) + random.randint(50, 300),
            asyncio.Event(),
        )
        enough = asyncio.ensure_future(story.has_enough.wait())
        done, _ = await asyncio.wait([enough, *tasks], return_when=asyncio.FIRST_COMPLETED)
        assert done == {enough}, done
        await asyncio.to_thread(end)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_nothing_confirmed_is_lost_and_no_group_skips(tmp_path: Path, how: str) -> None:
    """Offsets ascend and name one message; each group gets each of them, be it again."""
    story = Story()
    for _ in range(LIVES):
        server = BrokerServer(tmp_path)
        try:
            await live(server, story, server.kill if how == "kill" else partial(stop, server))
        finally:
            server.close()
    server = BrokerServer(tmp_path)
    try:
        async with minibroker.connect(server.url) as broker:
            tasks = [asyncio.ensure_future(story.consume(broker, group)) for group in story.seen]
            for group in story.seen:
                await broker.queue(f"log@{group}").join(timeout=120)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            found = await read_all(broker)
    finally:
        server.close()
    for offset, body in story.confirmed.items():
        assert found[offset] == body
    for group, seen in story.seen.items():
        assert found.keys() <= seen.keys(), f"{group} skipped some"
    assert list(found) == sorted(found)
