"""Acks one by one of small messages on a full disk: an engine and its log, on a disk in memory."""

from __future__ import annotations

import asyncio
import errno
import struct
from random import Random
from typing import Any

from minibroker.contract import wire
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Hello
from minibrokerd.engine.engine import Engine
from minibrokerd.log.filelog import FileLog
from minibrokerd.net.frames import read_frame
from support.simulated_disk import SimulatedDisk

Run = tuple[int, int, int, int]
DISK_BYTES = 1024 * 1024
SEGMENT_BYTES = 64 * 1024


class SmallDisk(SimulatedDisk):
    """Gives so many bytes and no more."""

    limit_bytes = DISK_BYTES

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Give physical space, if there is any."""
        used_bytes = sum(len(file.data) for file in self.entries.values())
        if used_bytes + size_bytes > self.limit_bytes:
            raise OSError(errno.ENOSPC, "no space")
        super().allocate(descriptor, size_bytes)


class Client:
    """A sink that is a client, too: it waits for each answer."""

    def __init__(self, engine: Engine) -> None:
        self.held: list[Run] = []
        self._engine = engine
        self._sequence = 0
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(self) -> dict[str, Any]:
        """Return the next frame that is no delivery."""
        return await asyncio.wait_for(self._answers.get(), 20)

    async def sequenced(self, part: dict[str, Any], *bins: bytes) -> dict[str, Any]:
        """Send a frame and return its answer."""
        self._sequence += 1
        return await self.send(part, *bins, sequence=self._sequence, answered_below=self._sequence)

    async def send(self, part: dict[str, Any], *bins: bytes, **numbers: int) -> dict[str, Any]:
        """Send a frame of one part and return its answer."""
        columns, lengths, blob = bins or (b"", b"", b"")
        payload = wire.pack_frame({"parts": [part], **numbers}, columns, lengths, blob)[4:]
        self._engine.submit(read_frame(payload, 1, 0.0))
        return await self.answer()

    def send_out(self, outgoing: Outgoing) -> None:
        """Take what the engine sends."""
        header = outgoing.header
        if header["op"] != "deliver":
            self._answers.put_nowait(header)
            return
        for index in range(header["runs"]):
            origin, first, count = struct.unpack_from("<IQI", outgoing.columns, 30 * index)
            self.held += [(header["token"], origin, first + n, 1) for n in range(count)]


class Outlet:
    """The sink of the client."""

    def __init__(self, client: Client) -> None:
        self.send = client.send_out

    def ahead(self, outgoing: Outgoing) -> None:
        """Nothing is sent ahead of its turn."""

    def flush(self) -> None:
        """Nothing is kept back."""

    def refused(self, code: str, text: str) -> None:
        raise AssertionError(text)

    def close(self) -> None:
        raise AssertionError


async def test_600_small_messages_are_acked_one_by_one_on_a_full_disk() -> None:
    """One segment is for settlements, and 400 of these fill it: what they ended has to be given back in time.

    And the copies of what lives among it may not cost that.
    """
    disk, random = SmallDisk(), Random(1)
    log = FileLog("/log", segment_bytes=SEGMENT_BYTES, ops=disk)
    assert list(log.recover()) == []
    engine = Engine(Core(BodyStore()), log, asyncio.get_running_loop(), lambda error: None)
    engine.start(0)
    client = Client(engine)
    engine.sinks[1] = Outlet(client)
    engine.submit(Hello(1, "c"))
    assert (await client.answer())["op"] == "welcome"
    publish = {"op": "publish", "queue": "q", "count": 16}
    bins = b"", struct.pack("<II", 0, 100) * 16, bytes(1_600)
    while (await client.sequenced(publish, *bins))["op"] == "confirm":
        continue
    disk.limit_bytes = 0  # somebody else has what is freed
    await client.send({"op": "consume", "queue": "q", "consumer": 1, "prefetch": 1_000}, request=1)
    for _ in range(600):
        run = client.held.pop(random.randrange(len(client.held)))
        answer = await client.sequenced(
            {"op": "ack", "queue": "q", "runs": 1}, struct.pack("<QIQI", *run), b"", b""
        )
        assert answer["op"] == "confirm", answer
    await engine.drain()
    engine.close()
