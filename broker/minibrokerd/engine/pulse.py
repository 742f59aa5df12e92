"""How the broker does, in histograms: its batches, their syncs, and how late its loop is."""

from __future__ import annotations

from typing import Final

from minibrokerd.core.model.histogram import Histogram

US: Final = 1_000_000


class Pulse:
    """What the engine and the once-a-second look note; the HTTP port reads it."""

    __slots__ = ("batch_bytes", "batch_records", "lags_us", "syncs_us")

    def __init__(self) -> None:
        self.syncs_us = (
            Histogram()
        )  # from the moment a batch is handed to the log until its sync is known
        self.batch_bytes = Histogram()
        self.batch_records = Histogram()
        self.lags_us = (
            Histogram()
        )  # of the loop, behind the time that it was to look after something

    def synced(self, seconds: float, size_bytes: int, records: int) -> None:
        """Note that a batch is safe."""
        self.syncs_us.note(int(seconds * US))
        self.batch_bytes.note(size_bytes)
        self.batch_records.note(records)

    def late(self, seconds: float) -> None:
        """Note by how much the loop was late."""
        self.lags_us.note(int(seconds * US))
