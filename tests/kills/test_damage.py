"""A bit flips in a sealed segment: the start goes on, the damage is told, no spoilt message leaves the broker."""

from __future__ import annotations

import minibroker
from support.broker import StartBroker
from support.processes import look_until

SEGMENT_BYTES = 256 * 1024
MESSAGES, FRAME = 2_000, 10
FLIPPED_BYTE = SEGMENT_BYTES // 2  # of the first segment, in the middle of some body


def body(number: int) -> bytes:
    return b"%06d" % number * 100


async def test_a_damaged_message_is_set_aside_and_the_others_are_delivered(
    start_broker: StartBroker,
) -> None:
    server = start_broker("--segment-bytes", str(SEGMENT_BYTES))
    async with minibroker.connect(server.url) as broker:
        for first in range(0, MESSAGES, FRAME):
            await broker.queue("q").publish_many([body(n) for n in range(first, first + FRAME)])
    server.kill()
    segment = min(server.data_dir.glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    data[FLIPPED_BYTE] ^= 0x10
    segment.write_bytes(data)
    server.restart()
    look_until(lambda: "damage_found" in server.output, server.process, "the scrub found it")
    got = set()
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("q")
        async with queue.consume(prefetch=100) as messages:
            async for message in messages:
                number = int(bytes(message.body)[:6])
                assert message.body == body(number), "a spoilt body left the broker"
                got.add(number)
                await message.ack()
                if len(got) == MESSAGES - FRAME:
                    break
        counters = (await queue.stats())["queues"]["q"]
    assert (counters["ready"], counters["damaged"]) == (0, FRAME)
    missing = sorted(set(range(MESSAGES)) - got)
    assert missing == list(range(missing[0], missing[0] + FRAME)), "one frame, and no other"
    (aside,) = server.data_dir.glob("damaged-1-*.bin")
    assert len(aside.read_bytes()) > FRAME * 600
    server.kill()
    server.restart()
    async with minibroker.connect(server.url) as broker:
        counters = (await broker.queue("q").stats())["queues"]["q"]
    assert counters["ready"] == 0, "what was set aside is not there again"
