"""A log without a disk, for tests and `memory://`: batches in a list, synced in the next turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from minibrokerd.log.failures import Deposed
from minibrokerd.log.seam import (
    Batch,
    Leadership,
    Meanwhile,
    Place,
    Record,
    Room,
    SegmentStore,
    nothing,
)
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
        self.segments: SegmentStore | None = None
        self.leadership: Leadership | None = None
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
        self._on_failed: Callable[[BaseException], None] | None = None
        self._is_over = False  # another log appended to these batches

    def recover(self) -> Iterator[Batch]:
        """Yield the batches given at construction."""
        yield from list(self.batches)

    def lead(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Raise the epoch; nothing here can fail, until another log appends to the same batches."""
        self.epoch += 1
        self.next_number = 1 + max((batch.number for batch in self.batches), default=0)
        self._on_synced, self._on_room, self._on_failed = on_synced, on_room, on_failed

    def append(
        self,
        batch: Batch,
        expected: int,
        wait_us: int = 0,
        meanwhile: Meanwhile = nothing,
        *,
        is_small: bool = False,
    ) -> bool:
        """Take one batch: it is synced at once if that may be waited for, else in the next turn."""
        assert self.pending is None, "one batch at a time"
        assert batch.number >= self.next_number, "numbers grow"
        if self._is_over or expected != self._last_number():
            self._depose(expected)
            return False
        self.next_number = batch.number + 1
        if self.hold or not wait_us:
            self.pending = batch
            if not self.hold:
                self._soon(self.sync_one)
            return False
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

    def _soon(self, callback: Callable[[], None]) -> None:
        (self._call_soon or asyncio.get_running_loop().call_soon)(callback)

    def _last_number(self) -> int:
        others = self.batches[-1].number if self.batches else 0
        return max(others, self.next_number - 1)

    def _depose(self, expected: int) -> None:
        assert self._on_failed is not None, "not started"
        if not self._is_over:
            self._is_over = True
            self._soon(
                partial(self._on_failed, Deposed("in memory", expected, self._last_number()))
            )

    def _synced(self, batch: Batch) -> None:
        if self._keep:
            self.batches.append(batch)

    def room_for(self, size_bytes: int, waiting_bytes: int = 0) -> Room:
        """Answer `room`."""
        return self.room

    def set_room(self, room: Room) -> None:
        """Change the answer of `room_for` and say so."""
        self.room = room
        assert self._on_room is not None, "not started"
        self._on_room()

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Do nothing: memory has no segments."""

    @property
    def last_place(self) -> Place | None:
        """Nowhere."""
        return None

    @property
    def recovered_percent(self) -> int:
        """All of it: it is there."""
        return 100

    def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Nothing ever leaves memory, so nobody asks."""
        raise AssertionError("memory has no segments")

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Do nothing: memory needs no footer."""
