"""`batches`: many messages taken, worked on and acknowledged together, by both clients."""

from __future__ import annotations

import pytest

import minibroker
from minibroker import LeaseLost, sync
from minibroker.contract.errors import BadValue

pytestmark = pytest.mark.asyncio


async def test_what_is_there_makes_a_batch_and_ends_together() -> None:
    """In order, up to so many; nothing of it is left at the server."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("q")
        await queue.publish_many(range(2_500))
        seen: list[int] = []
        sizes: list[int] = []
        async with queue.consume(prefetch=2_000) as messages:
            async for batch in messages.batches(1_000):
                assert isinstance(batch, minibroker.Batch)
                seen += [message.body for message in batch]
                sizes.append(len(batch))
                await batch.ack()
                if len(seen) == 2_500:
                    break
        assert seen == list(range(2_500))
        assert max(sizes) <= 1_000
        assert max(sizes) > 1
        counts = (await queue.stats())["queues"]["q"]
        assert (counts["acked"], counts["ready"], counts["begun"], counts["held"]) == (
            2_500,
            0,
            0,
            0,
        )


async def test_one_that_was_settled_by_itself_is_left_alone_and_told() -> None:
    """All others are acknowledged."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("q")
        await queue.publish_many(range(5))
        async with queue.consume(prefetch=5) as messages:
            async for batch in messages.batches():
                assert len(batch) == 5
                await batch[2].reject("no")
                with pytest.raises(LeaseLost):
                    await batch.ack()
                break
        counts = (await queue.stats())["queues"]["q"]
        assert (counts["acked"], counts["rejected"], counts["begun"]) == (4, 1, 0)
        assert len(await broker.queue("q.dlq").peek()) == 1


async def test_what_a_batch_has_not_settled_comes_again() -> None:
    """The block ends: what was taken and not ended is as with single messages, begun until its lease ends."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("q")
        await queue.publish_many(range(3))
        async with queue.consume(prefetch=3) as messages:
            async for batch in messages.batches(2):
                assert [message.attempt for message in batch] == [1, 1]
                for message in batch:
                    await message.nack(delay=0)
                break
        async with queue.consume(prefetch=3) as messages:
            async for batch in messages.batches():
                assert {(message.body, message.attempt) for message in batch} <= {
                    (0, 2),
                    (1, 2),
                    (2, 1),
                }
                await batch.ack()
                if not (await queue.stats())["queues"]["q"]["ready"]:
                    break


async def test_it_is_asked_for_inside_of_the_block() -> None:
    """And for 1 to 10,000."""
    async with minibroker.connect("memory://") as broker:
        consumption = broker.queue("q").consume()
        with pytest.raises(RuntimeError, match="async with"):
            consumption.batches()
        async with consumption as messages:
            with pytest.raises(BadValue):
                messages.batches(0)


async def test_the_blocking_client_has_the_same() -> None:
    """In order, together, and told of what was settled before."""
    with sync.connect("memory://") as broker:
        queue = broker.queue("q")
        queue.publish_many(range(700))
        seen: list[int] = []
        with pytest.raises(RuntimeError, match="with"):
            queue.consume().batches()
        with queue.consume(prefetch=500) as messages:
            for batch in messages.batches(200):
                assert 0 < len(batch) <= 200
                seen += [message.body for message in batch]
                if not batch[0].body:
                    batch[0].ack()
                    with pytest.raises(LeaseLost):
                        batch.ack()
                else:
                    batch.ack()
                if len(seen) == 700:
                    break
        assert seen == list(range(700))
        assert queue.stats()["queues"]["q"]["acked"] == 700
