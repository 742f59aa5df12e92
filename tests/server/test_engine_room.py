"""What the engine asks the log for room for, and what it does not; and what it writes before it ends."""

from __future__ import annotations

import asyncio
from typing import Any

from minibroker.contract import wire
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Hello
from minibrokerd.core.model.records import PublishMeta, decode
from minibrokerd.engine.engine import Engine
from minibrokerd.log.memorylog import MemoryLog
from minibrokerd.log.seam import Room
from minibrokerd.net.frames import read_frame

PART = {"op": "publish", "queue": "q", "count": 1}


class Inbox:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    def send(self, outgoing: Outgoing) -> None:
        self.headers.append(outgoing.header)
        self.news.set()

    def ahead(self, outgoing: Outgoing) -> None:
        """Nothing is sent ahead of its turn."""

    def flush(self) -> None:
        """Nothing is kept back."""

    def refused(self, code: str, text: str) -> None:
        raise AssertionError(text)

    def close(self) -> None:
        raise AssertionError

    drop = close

    async def next(self) -> dict[str, Any]:
        """Return the next frame."""
        while not self.headers:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 20)
        return self.headers.pop(0)


async def test_a_publish_that_came_before_is_answered_on_a_full_disk() -> None:
    """It was stored, and its client did not get the confirm: "nothing was stored" would be untrue."""
    log = MemoryLog()
    engine = Engine(Core(BodyStore()), log, asyncio.get_running_loop(), lambda error: None)
    assert list(log.recover()) == []
    engine.start(0)
    inbox = engine.sinks[1] = Inbox()
    engine.submit(Hello(1, "c"))
    assert (await inbox.next())["op"] == "welcome"
    header = {"parts": [PART], "sequence": 1, "answered_below": 1}
    payload = wire.pack_frame(header, b"", bytes([0, 0, 0, 0, 2, 0, 0, 0]), b"hi")[4:]
    engine.submit(read_frame(payload, 1, 0.0))
    confirm = await inbox.next()
    assert confirm["op"] == "confirm"
    log.room = Room.REFUSED
    engine.submit(read_frame(payload, 1, 0.0))
    assert await inbox.next() == confirm
    await engine.drain()
    engine.close()


async def test_a_stop_writes_what_was_confirmed_and_nobody_waits_for() -> None:
    """The confirm of a lazy publish comes before its sync: a clean stop may not lose the message."""
    log = MemoryLog()
    engine = Engine(Core(BodyStore()), log, asyncio.get_running_loop(), lambda error: None)
    engine.start(0)
    inbox = engine.sinks[1] = Inbox()
    engine.submit(Hello(1, "c"))
    assert (await inbox.next())["op"] == "welcome"
    lazy = {"op": "queue_set", "queue": "q", "settings": {"durability": "lazy"}}
    lengths = bytes([0, 0, 0, 0, 2, 0, 0, 0])
    one = {"parts": [PART], "answered_below": 1}
    for header in ({"parts": [lazy], "request": 1}, one | {"sequence": 1}, one | {"sequence": 2}):
        bins = (lengths, b"hi") if "sequence" in header else (b"", b"")
        engine.submit(read_frame(wire.pack_frame(header, b"", *bins)[4:], 1, 0.0))
        assert (await inbox.next())["op"] in ("reply", "confirm")
    await engine.drain()
    says = [decode(record) for batch in log.batches for record in batch.records]
    assert len([meta for meta in says if isinstance(meta, PublishMeta)]) == 2
    engine.close()
