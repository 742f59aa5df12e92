"""How the broker does, in histograms: its batches, their syncs, and how late its loop is."""

from __future__ import annotations

from typing import Final

from minibrokerd.core.model.histogram import Histogram

US: Final = 1_000_000
MOST_NOTED: Final = 600  # numbers, of 200 batches


class Pulse:
    """What the engine and the once-a-second look note; the HTTP port reads it."""

    __slots__ = ("_batch_bytes", "_batch_records", "_synced", "_syncs_us", "lags_us")

    def __init__(self) -> None:
        self._syncs_us = Histogram()
        self._batch_bytes = Histogram()
        self._batch_records = Histogram()
        self._synced: list[float] = []  # three numbers of each batch that is in no histogram yet
        # Of the loop, behind the time that it was to look after something.
        self.lags_us = Histogram()

    def synced(self, seconds: float, size_bytes: int, records: int) -> None:
        """Note that a batch is safe; counted with others, as three calls for each cost a lone publish 2 %."""
        synced = self._synced
        synced += (seconds * US, size_bytes, records)
        if len(synced) >= MOST_NOTED:
            self._count()

    @property
    def syncs_us(self) -> Histogram:
        """From the moment a batch is handed to the log until its sync is known."""
        self._count()
        return self._syncs_us

    @property
    def batch_bytes(self) -> Histogram:
        """Of the records of a batch."""
        self._count()
        return self._batch_bytes

    @property
    def batch_records(self) -> Histogram:
        """How many records a batch has."""
        self._count()
        return self._batch_records

    def _count(self) -> None:
        synced, self._synced = self._synced, []
        for at, its in enumerate((self._syncs_us, self._batch_bytes, self._batch_records)):
            its.note_all([*map(int, synced[at::3])])

    def late(self, seconds: float) -> None:
        """Note by how much the loop was late."""
        self.lags_us.note(int(seconds * US))
