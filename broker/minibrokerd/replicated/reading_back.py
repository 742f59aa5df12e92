"""What left memory comes back: from the spool, or from the stream by direct get.

A place is a stretch and a byte in it (`places.py`). What the spool has is read there and verified; what it lacks
is fetched, entries from the first to the last that is needed, by whichever replica answers, as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from minibrokerd.log import format as layout
from minibrokerd.log.seam import Elsewhere, GivenUp, Record
from minibrokerd.process.logs import OwnText, events
from minibrokerd.replicated.failures import BodyGone, DamagedStream
from minibrokerd.replicated.places import Places
from minibrokerd.replicated.spool import Spool, has_record
from minibrokerd.replicated.stream import EntriesGone, Entry, Stream, StreamAway

AT_ONCE: Final = 4  # fetches; more would only share the connection
PAUSE_S: Final = 0.05
MOST_PAUSE_S: Final = 1.0
TRIES: Final = 3  # until what every replica says is believed, though it does not verify
MORE_BYTES: Final = 64 * 1024  # asked for beside what the entries have: headers count, too
Found = list[Record | None]
Ask = Callable[[Callable[[Stream], Coroutine[Any, Any, Found]]], Found]
MOST_BYTES: Final = 4 * 1024 * 1024


class ReadingBack:
    """Reads records at their places. `stream` returns a connection, once there is one."""

    def __init__(self, name: str, places: Places, spool: Spool | None) -> None:
        self.places = places
        self.spool = spool
        self.stream: Callable[[], Stream | None] = lambda: None
        self.ask: Ask = _nobody  # by the connection that reads the log, whoever waits for it
        self._name = name
        self._is_told = False
        self._turns = asyncio.Semaphore(AT_ONCE)

    def read(self, stretch: int, offsets: Sequence[int]) -> list[Record | None]:
        """Read what the spool has; in any thread.

        Raises:
            Elsewhere: it lacks some of it, or that does not verify.
        """
        found: list[Record | None] = [None] * len(offsets)
        if self.spool is not None:
            found = self.spool.read(stretch, offsets)
        if None in found:
            raise Elsewhere(partial(self._fetch_in_turn, stretch, offsets, found))
        return found

    def read_one(self, stretch: int, offset: int) -> Record:
        """Read one record that a replay needs, also from the stream; blocks.

        Raises:
            LogError: it is not there any more, or not as it was written.
        """
        found = None if self.spool is None else self.spool.read_one(stretch, offset)
        if found is None:
            try:
                (found,) = self.ask(lambda stream: self.fetch(stretch, [offset], stream))
            except (EntriesGone, GivenUp) as gone:
                raise BodyGone(self._name, stretch) from gone
        if found is None:
            raise DamagedStream(self._name, stretch, f"no record is at byte {offset} behind it")
        return found

    def give_up(self, log_start: int) -> None:
        """Nobody asks any more for what stands below this entry."""
        over = self.places.give_up(log_start)
        if self.spool is not None:
            self.spool.give_up(over)

    def close(self) -> None:
        """Let go of the spool."""
        if self.spool is not None:
            self.spool.close()

    async def _fetch_in_turn(
        self, stretch: int, offsets: Sequence[int], found: list[Record | None]
    ) -> list[Record | None]:
        if self.spool is not None and not self._is_told:
            self._is_told = True
            events.warning("spool_lacks", stream=OwnText(self._name), path=OwnText(self.spool.path))
        missing = [offset for offset, one in zip(offsets, found, strict=True) if one is None]
        async with self._turns:
            fetched = iter(await self.fetch(stretch, missing))
        return [next(fetched) if one is None else one for one in found]

    async def fetch(
        self, stretch: int, offsets: Sequence[int], stream: Stream | None = None
    ) -> list[Record | None]:
        """Read records from the stream; None: what each replica has there is no record.

        `stream` is the connection of a start; else there may be none for now.

        Raises:
            GivenUp: nobody needs that stretch any more.
            EntriesGone: by a start alone: another broker gave it up before what was said of it was known here.
        """
        for _ in range(TRIES):
            found = await self._fetched(stretch, offsets, stream)
            if None not in found:
                break
        return found

    async def _fetched(
        self, stretch: int, offsets: Sequence[int], stream: Stream | None
    ) -> list[Record | None]:
        places = self.places
        wanted = places.find(stretch, offsets[0], offsets[-1])
        if wanted is None:
            raise GivenUp(stretch)
        gathered, sequence = bytearray(), wanted.first
        last_at = offsets[-1] - wanted.offset
        while not has_record(gathered, last_at):
            most_bytes = min(
                places.bytes_of(stretch, sequence, wanted.last) + MORE_BYTES, MOST_BYTES
            )
            if places.size_of(stretch, sequence) is None:
                break  # there is no more in it: the head names too much
            for entry in await self._some(stretch, sequence, most_bytes, stream):
                if places.size_of(
                    stretch, entry.sequence
                ):  # else it is none of ours, or of the next stretch
                    gathered += entry.body
                sequence = entry.sequence + 1
        data = bytes(gathered)
        return [layout.decode_record(data, offset - wanted.offset) for offset in offsets]

    async def _some(
        self, stretch: int, first: int, most_bytes: int, stream: Stream | None
    ) -> list[Entry]:
        """Ask until some replica has the entry."""
        pause_s = PAUSE_S
        while self.places.has(stretch):  # what was given up may be purged, and is asked for no more
            known = stream or self.stream()
            try:
                found = await known.read(first, most_bytes) if known is not None else []
            except StreamAway:
                found = []
            except EntriesGone:  # somebody else leads, which the next append finds out
                if stream is not None:
                    raise
                found = []
            if found:
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_PAUSE_S)
        raise GivenUp(stretch)


def _nobody(question: object) -> Found:
    raise AssertionError("it is read where it is replayed")
