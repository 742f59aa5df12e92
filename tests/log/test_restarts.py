"""Starts without traffic, again and again: no file grows, nothing is counted twice."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from minibroker.contract import wire
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.inputs import Hello
from minibrokerd.engine.engine import Engine
from minibrokerd.log.filelog import FileLog
from minibrokerd.net.frames import read_frame

STARTS = int(os.environ.get("STARTS") or 80)
SEGMENT_BYTES = 8 * 1024  # one is full after some forty starts
BOUND_SEGMENTS = 3  # what lives is less than one; two are to spare
MOST_SEGMENTS = 4  # the footer, or the header of the next start, may begin one
PATIENCE_S = 20.0


class FreeingLog(FileLog):
    """A log that tells when a segment was given up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, segment_bytes=SEGMENT_BYTES, digests=True)
        self.freed = asyncio.Event()

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Free, and tell."""

        def told() -> None:
            self.freed.set()
            done()

        super().trim(upto, now_ms, unix_ms, told)


class Life:
    """One life of a broker without its sockets."""

    def __init__(self, path: Path) -> None:
        self.log = FreeingLog(path)
        self.core = Core(BodyStore(self.log.segments.read_one), sizes=self.log.sizes)
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = loop.create_future()
        self.engine = Engine(self.core, self.log, loop, self.failed.set_exception)
        base_ms = 0
        for part in self.log.recover():
            self.engine.replay(part)
            base_ms = max(base_ms, part.now_ms)
        self.engine.start(base_ms)

    async def end(self, *, clean: bool) -> None:
        """Stop as a server does, or as a crash would, when the log is as short as it should be.

        A life that ends before that leaves it to the next one.
        """
        while self.log.disk_bytes > BOUND_SEGMENTS * SEGMENT_BYTES:
            self.log.freed.clear()
            await asyncio.wait_for(self.log.freed.wait(), PATIENCE_S)
        await self.engine.drain()
        if clean:
            self.engine.close()
        else:
            self.log.abandon()
        assert not self.failed.done()


async def fill(path: Path) -> None:
    """Let a first life leave some messages in two queues."""
    life = Life(path)
    life.engine.submit(Hello(1, "c"))
    for number in range(1, 9):
        part = {"op": "publish", "queue": f"q{number % 2}", "count": 1}
        header = {"parts": [part], "sequence": number, "answered_below": number}
        payload = wire.pack_frame(header, b"", bytes([0, 0, 0, 0, 2, 0, 0, 0]), b"hi")[4:]
        life.engine.submit(read_frame(payload, 1, 0.0))
    await life.end(clean=True)


def counted(life: Life) -> dict[str, tuple[int, int]]:
    """Return of each queue its messages, and where its sequences go on."""
    queues = life.core.store.queues
    return {name: (queue.count(), queue.next_sequence) for name, queue in queues.items()}


def kinds(path: Path) -> Counter[str]:
    """Return how many files of each kind there are."""
    return Counter(f"{item.name.split('-')[0]}{item.suffix}" for item in path.iterdir())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("clean", [True, False], ids=["stops", "crashes"])
async def test_starts_without_traffic_leave_everything_as_it_was(
    tmp_path: Path, clean: bool
) -> None:
    path = tmp_path / "d"
    await fill(path)
    life = Life(path)
    before, epoch, segments = counted(life), life.log.epoch, 0
    await life.end(clean=clean)
    for number in range(1, STARTS):
        life = Life(path)
        assert counted(life) == before
        assert life.log.epoch == epoch + number
        await life.end(clean=clean)
        found = kinds(path)
        segments = max(segments, found["segment.log"])
        assert found["segment.log"] <= MOST_SEGMENTS, (number, found)
        assert found["segment.index"] <= found["segment.log"], (number, found)
        assert found["reserve.log"] <= 3 + MOST_SEGMENTS, (number, found)
        assert sum(found.values()) <= 20, (number, found)
        assert all(item.stat().st_size <= SEGMENT_BYTES for item in path.iterdir())
    if clean:
        assert segments > 1, "the log never came to a second segment"
