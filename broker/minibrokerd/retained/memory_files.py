"""A retained log without a disk, for `memory://` and tests: frames in a list, for files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from minibrokerd.retained.compacting import MOST_KEYS, CompactionResult, KeysOf, Latest
from minibrokerd.retained.cutting import behind
from minibrokerd.retained.cutting import keys_of as keys_in
from minibrokerd.retained.frames import Chunk, Frame


class MemoryFiles:
    """One retained log in memory; it is gone with the process."""

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._low = self._stop = 0
        self.size_bytes = 0
        self.messages = 0
        self.damaged = 0
        self.has_failed = False

    def open(self) -> None:
        """Nothing is found."""

    def close(self) -> None:
        """Nothing is open."""

    def sync(self) -> None:
        """Memory is as safe as it gets."""

    @property
    def first(self) -> int:
        """The offset of the first message there is; `stop` if there is none."""
        return max(self._frames[0].first, self._low) if self._frames else self.stop

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        stop = max(self._low, self._stop)
        return max(self._frames[-1].stop, stop) if self._frames else stop

    def append(self, frames: Sequence[Frame]) -> None:
        """Take frames; those that came before are ignored. ValueError: as `RetainedFiles.append`."""
        for frame in frames:
            stop = self.stop
            if frame.stop <= stop:
                continue
            if frame.first < stop:
                frame = behind(frame, stop)
            self._frames.append(frame)
            self.size_bytes += frame.size
            self.messages += frame.count

    def read(self, offset: int, most_bytes: int) -> Chunk:
        """Return frames from the one that holds `offset`, or the next there is; see `RetainedFiles.read`."""
        found: list[Frame] = []
        frames, used = self._frames, 0
        offset = max(offset, self.first)
        at = bisect_right(frames, offset, key=lambda frame: frame.stop)
        for frame in frames[at:]:
            if found and used + frame.size > most_bytes:
                break
            found.append(frame)
            used += frame.size
            offset = frame.stop
        return Chunk(found, offset, offset >= self.stop)

    def messages_from(self, offset: int) -> int:
        """Return how many messages there are from an offset on."""
        return sum(
            frame.stop - max(frame.first, offset) for frame in self._frames if frame.stop > offset
        )

    def offset_at(self, unix_ms: int) -> int:
        """Return the first offset that was published at or after that time; `stop`: none was."""
        for frame in self._frames:
            if frame.unix_ms >= unix_ms:
                return max(frame.first, self._low)
        return self.stop

    def retain(
        self, unix_ms: int, retention_ms: int, retention_bytes: int, retention_messages: int
    ) -> int:
        """Delete frames from the front that are not to be kept any more; return how many messages went."""
        gone, size, messages = 0, self.size_bytes, self.messages
        for frame in self._frames:
            size, messages = size - frame.size, messages - frame.count
            if not (
                (retention_ms and frame.unix_ms < unix_ms - retention_ms)
                or (retention_bytes and size >= retention_bytes)
                or (retention_messages and messages >= retention_messages)
            ):
                break
            gone += 1
        before = self.messages
        self._drop(gone)
        return before - self.messages

    def trim(self, below: int) -> None:
        """Delete what is below an offset; `first` is at least that, and so is `stop`."""
        if below > self.first:
            self._drop(sum(frame.stop <= below for frame in self._frames))
            self._low = below
            self._count()

    def work_ahead(self) -> bool:
        """There is nothing that anybody would not wait for."""
        return False

    def seal_to_compact(self, unix_ms: int) -> int:
        """Return below which offset compaction has all: everything."""
        return self.stop

    def begin_compaction(
        self,
        unix_ms: int,
        tombstone_ms: int,
        keys_of: KeysOf = keys_in,
        *,
        most_keys: int = MOST_KEYS,
        seal: bool = False,
    ) -> CompactionResult:
        """Keep the last message of each key, at once; see `RetainedFiles.begin_compaction`."""
        result = CompactionResult()
        latest = Latest(keys_of, unix_ms - tombstone_ms)
        for frame in self._frames:
            latest.note(frame)
        before, stop = self.size_bytes, self.stop
        self._frames = [rest for frame in self._frames for rest in latest.rest_of(frame, result)]
        self._stop = stop
        self._count()
        result.freed_bytes, result.ended = before - self.size_bytes, True
        return result

    def _drop(self, count: int) -> None:
        if count:
            self._low = max(self._low, self._frames[count - 1].stop)
            self._frames = self._frames[count:]
            self._count()

    def _count(self) -> None:
        self.size_bytes = sum(frame.size for frame in self._frames)
        self.messages = sum(frame.stop - max(frame.first, self._low) for frame in self._frames)
