"""What a test does to a broker in memory at once, whichever client it has: its clock, its disk."""

from __future__ import annotations

from typing import Any


class Hand:
    """The part of `MemoryBroker` and `SyncMemoryBroker` that waits for nothing."""

    _inside: Any  # the broker: minibrokerd is not loaded before one is made

    @property
    def now_s(self) -> float:
        """The wall time of the broker, in seconds since 1970: its `advance` moves it."""
        now_ms: int = self._inside.clock.unix_ms()
        return now_ms / 1000

    def stop_clock(self) -> None:
        """Let the broker's time stand still: from now on nothing is due before `advance`."""
        self._inside.stop_clock()

    def hold_syncs(self) -> None:
        """Let nothing be synced: confirms of durability `sync` wait, and `crash` loses what comes from now on."""
        self._inside.hold_syncs(True)

    def release_syncs(self) -> None:
        """Sync what waits, and go on."""
        self._inside.hold_syncs(False)

    def fill_disk(self) -> None:
        """Refuse publishes with DiskFull, as on a full disk; acks go on."""
        self._inside.fill_disk(True)

    def free_disk(self) -> None:
        """Take publishes again."""
        self._inside.fill_disk(False)
