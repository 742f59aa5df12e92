"""A log without a disk, for tests and `memory://`: batches in a list, synced in the next turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence

from minibrokerd.log.failures import LogError
from minibrokerd.log.seam import RESERVE_SEGMENTS, Batch, Meanwhile, Place, Record, Room
from minibrokerd.log.sizes import LARGEST


class MemoryLog:
    """Keeps batches in memory; `batches` given at construction are what a restart finds.

    With `hold` set, appended batches wait until `sync_one` is called, so that a test decides when a confirm may
    leave. Without `keep` a batch is dropped once it is synced: nothing will start from it. `call_soon` is that of
    the loop that the engine has; None: of the loop that runs.
    """

    def __init__(
        self,
        batches: list[Batch] | None = None,
        *,
        epoch: int = 0,
        hold: bool = False,
        keep: bool = True,
        call_soon: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        self.sizes = LARGEST
        self.disk_bytes = self.segment_bytes = 0
        self.reserve_segments = RESERVE_SEGMENTS
        self.lacks_space = False
        self.oldest_upto: int | None = None
        self.epoch = epoch
        self.store_id = os.urandom(16)
        self.session_key = os.urandom(32)
        self.clean = True
        self.batches = batches if batches is not None else []
        self.hold = hold
        self._keep = keep
        self._call_soon = call_soon
        self.room = Room.GRANTED
        self.now_ms = max((batch.now_ms for batch in self.batches), default=0)
        self.next_number = 1
        self.pending: Batch | None = None
        self._on_synced: Callable[[int], None] | None = None
        self._on_room: Callable[[], None] | None = None

    def recover(self) -> Iterator[Batch]:
        """Yield the batches given at construction."""
        yield from list(self.batches)

    def start(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Raise the epoch; nothing here can fail."""
        self.epoch += 1
        self.next_number = 1 + max((batch.number for batch in self.batches), default=0)
        self._on_synced, self._on_room = on_synced, on_room

    def append(self, batch: Batch) -> None:
        """Take one batch; it is synced in the next turn of the loop, or by `sync_one`."""
        assert self.pending is None, "one batch at a time"
        self.next_number = batch.number + 1
        self.pending = batch
        if not self.hold:
            call_soon = self._call_soon or asyncio.get_running_loop().call_soon
            call_soon(self.sync_one)

    def append_now(self, batch: Batch, wait_us: int, meanwhile: Meanwhile) -> bool:
        """Take one batch and have it synced at once, unless batches are held."""
        if self.hold:
            self.append(batch)
            return False
        self.next_number = batch.number + 1
        self._synced(batch)
        then = meanwhile()
        if then is not None:
            then()
        return True

    def sync_one(self) -> None:
        """Sync the pending batch and say so."""
        batch, self.pending = self.pending, None
        assert batch is not None, "nothing to sync"
        assert self._on_synced is not None, "not started"
        self._synced(batch)
        self._on_synced(batch.number)

    def _synced(self, batch: Batch) -> None:
        if self._keep:
            self.batches.append(batch)

    def room_for(self, size_bytes: int, waiting_bytes: int = 0) -> Room:
        """Answer `room`."""
        return self.room

    @property
    def rest_bytes(self) -> int:
        """Memory has no segments."""
        return 0

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        """Memory has no reserve."""
        return True

    def set_room(self, room: Room) -> None:
        """Change the answer of `room_for` and say so."""
        self.room = room
        assert self._on_room is not None, "not started"
        self._on_room()

    def free(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Do nothing: memory has no segments."""

    @property
    def last_place(self) -> Place | None:
        """Nowhere."""
        return None

    def scrub(self) -> Iterator[LogError | None]:
        """Nothing was taken on trust."""
        return iter(())

    @property
    def recovered_percent(self) -> int:
        """All of it: it is there."""
        return 100

    def keep_digest(self, segment: int, payload: bytes) -> None:
        """Do nothing: memory has no segments."""

    def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Nothing ever leaves memory, so nobody asks."""
        raise AssertionError("memory has no segments")

    def read_one(self, segment: int, offset: int) -> Record:
        """As `read`."""
        raise AssertionError("memory has no segments")

    def mark(self, now_ms: int, unix_ms: int) -> None:
        """Do nothing: memory needs no marker."""

    def look(self) -> None:
        """Nobody takes it away."""

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Do nothing: memory needs no footer."""
