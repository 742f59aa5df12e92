"""Bare fenced appends to a replicated stream: what a broker whose log is there cannot do without.

Each expects the sequence of the one before, and one is in flight. The option says who is to lead the stream, and
by which way, as NAME:WAY: `nats-py` (a request, as its documents show it) or `own` (that of the broker).
"""

from __future__ import annotations

import asyncio
import json

import nats
from benchmarks.peers.client import Seen

from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Acked
from minibrokerd.replicated.stream_address import parse

SETTLE_S = 0.2


class Client:
    """One connection, as the broker has it: to the first of the servers."""

    def __init__(self, url: str, option: str) -> None:
        self._leader, self._way = option.split(":")
        self._address = parse(f"{url}-{self._way}")
        self._stream = NatsStream(self._address)
        self._last = 0

    async def open(self) -> None:
        """Connect, and make the stream."""
        await self._stream.open()
        while (info := await self._stream.info()).leader != self._leader:
            if info.leader:
                await self._stream.step_down(self._leader)
            await asyncio.sleep(SETTLE_S)
        self._last = info.last
        self._nats = await nats.connect(f"nats://{self._address.servers[0]}", allow_reconnect=False)

    async def close(self) -> None:
        """Leave."""
        await self._stream.close()
        await self._nats.close()

    async def publish(self, body: bytes) -> None:
        """Append; returns when a majority has it."""
        if self._way == "own":
            outcome = await self._stream.append([body], self._last)
            assert isinstance(outcome, Acked), outcome
            self._last = outcome.sequence
        else:
            headers = {"Nats-Expected-Last-Sequence": str(self._last)}
            subject = self._address.record_subject
            answer = await self._nats.request(subject, body, timeout=5, headers=headers)
            self._last = json.loads(answer.data)["seq"]

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """One after the other: there is one in flight."""
        for _ in range(count):
            await self.publish(body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """One after the other."""
        await self.publish_single(body, count, window)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Nothing consumes a log."""
        raise NotImplementedError

    async def purge(self) -> None:
        """What is there disturbs nobody."""

    async def waiting(self) -> int:
        """Return the number of entries."""
        info = await self._stream.info()
        return info.last - info.first + 1

    async def server_bytes(self) -> int:
        """The servers do not say."""
        return 0
