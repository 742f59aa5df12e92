"""All retained logs of a data directory, and what was read of them of late, for all who read.

Three groups at the same place read the disk once: what is read is kept as it came, up to a bound; the least used
of it goes first.
"""

from __future__ import annotations

import os
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, Protocol

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.compacting import MOST_KEYS, CompactionResult, KeysOf
from minibrokerd.retained.cutting import keys_of as keys_in
from minibrokerd.retained.files import SEGMENT_BYTES, RetainedFiles
from minibrokerd.retained.frames import Chunk, Frame

CACHE_BYTES: Final = 64 * 1024 * 1024
READ_BYTES: Final = 1024 * 1024  # of one read of the disk
# Behind the number, in the name of the directory of a log that a start did not know.
ASIDE: Final = ".aside"
_CHUNK_BYTES: Final = 1024  # that a chunk takes beside its frames


class Files(Protocol):
    """One retained log, on disk or in memory."""

    damaged: int
    has_failed: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of all that is there."""
        ...

    @property
    def messages(self) -> int:
        """Messages there are."""
        ...

    @property
    def first(self) -> int:
        """The offset of the first message there is; `stop` if there is none."""
        ...

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        ...

    def open(self) -> None:
        """Find out what there is."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...

    def append(self, frames: Sequence[Frame]) -> None:
        """Write frames behind all others; they are safe after `sync`."""
        ...

    def sync(self) -> None:
        """Return when all that was appended is on the disk."""
        ...

    def read(self, offset: int, most_bytes: int) -> Chunk:
        """Return frames from the one that holds `offset`, or the next there is."""
        ...

    def messages_from(self, offset: int) -> int:
        """Return about how many messages there are from an offset on."""
        ...

    def offset_at(self, unix_ms: int) -> int:
        """Return the first offset that was published at or after that time."""
        ...

    def retain(
        self, unix_ms: int, retention_ms: int, retention_bytes: int, retention_messages: int
    ) -> int:
        """Delete from the front what is not to be kept any more."""
        ...

    def trim(self, below: int) -> None:
        """Delete what is below an offset."""
        ...

    def work_ahead(self) -> bool:
        """Do a slice of the work that nobody waits for; False: nothing is left to do."""
        ...

    def seal_to_compact(self, unix_ms: int) -> int:
        """Let compaction have what was appended, if that pays; return below which offset it has all."""
        ...

    def begin_compaction(
        self,
        unix_ms: int,
        tombstone_ms: int,
        keys_of: KeysOf = keys_in,
        *,
        most_keys: int = MOST_KEYS,
        seal: bool = False,
    ) -> CompactionResult:
        """Have `work_ahead` keep the last message of each key."""
        ...


class Retained:
    """The retained logs in `<directory>`, by the numbers of their queues."""

    def __init__(
        self,
        ops: FileOps,
        directory: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        compress: bool = True,
        cache_bytes: int = CACHE_BYTES,
        make: Callable[[int], Files] | None = None,
    ) -> None:
        self._ops = ops
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._compress = compress
        self._make = make or self._on_disk
        self._logs: dict[int, Files] = {}
        self.cache = Cache(cache_bytes)

    def _on_disk(self, number: int) -> Files:
        return RetainedFiles(
            self._ops,
            self.path(number),
            segment_bytes=self._segment_bytes,
            compress=self._compress,
        )

    def path(self, number: int) -> str:
        """Return the directory of a log."""
        return os.path.join(self._directory, str(number))

    def numbers(self) -> list[int]:
        """Return the numbers of the logs on disk, ascending. OSError."""
        if not self._ops.exists(self._directory):
            return []
        names = self._ops.list_directory(self._directory)
        return sorted(int(name) for name in names if name.isdecimal())

    def get(self, number: int) -> Files:
        """Return the log of that number, opened; it is made if it is not there. OSError."""
        there = self._logs.get(number)
        if there is not None:
            return there
        files = self._make(number)
        files.open()
        self._logs[number] = files
        return files

    def read(self, number: int, offset: int, most_bytes: int = READ_BYTES) -> Chunk:
        """As `get(number).read`, out of what was read of late where it is there."""
        return self.cache.read(number, self.get(number), offset, most_bytes)

    def delete(self, number: int) -> None:
        """Delete a log with everything in it; there may be none. OSError."""
        files = self._logs.pop(number, None)
        if files is not None:
            files.close()
        self.cache.forget(number)
        path = self.path(number)
        if number in self.numbers():
            for name in sorted(self._ops.list_directory(path), reverse=True):
                self._ops.unlink(os.path.join(path, name))
            self._ops.remove_directory(path)
            self._sync()  # nobody knows it any more once its end is in the log no more

    def set_aside(self, number: int) -> str:
        """Take a log out of sight with everything in it: it keeps its files under another name, which is returned.

        Raises:
            OSError: it is where it was.
        """
        path = self.path(number)
        names = set(self._ops.list_directory(self._directory))
        aside = f"{number}{ASIDE}"
        for count in range(2, len(names) + 2):
            if aside not in names:
                break
            aside = f"{number}{ASIDE}-{count}"
        self._ops.rename(path, os.path.join(self._directory, aside))
        self._sync()
        return os.path.join(self._directory, aside)

    def _sync(self) -> None:
        """Return when the names of the logs are on the disk."""
        descriptor = self._ops.open_directory(self._directory)
        try:
            self._ops.sync_directory(descriptor)
        finally:
            self._ops.close(descriptor)

    def close(self) -> None:
        """Close all logs."""
        for files in self._logs.values():
            files.close()
        self._logs.clear()

    @property
    def size_bytes(self) -> int:
        """Bytes of all logs that are open."""
        return sum(files.size_bytes for files in list(self._logs.values()))

    @property
    def messages(self) -> int:
        """Messages in all logs that are open."""
        return sum(files.messages for files in list(self._logs.values()))

    @property
    def damaged(self) -> int:
        """Places that did not verify when they were read."""
        return sum(files.damaged for files in list(self._logs.values()))


class Cache:
    """Chunks that were read of late; any thread may ask. `disk_reads` counts those that were not there."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._chunks: OrderedDict[tuple[int, int], tuple[Chunk, int]] = OrderedDict()
        self._starts: dict[int, list[int]] = {}
        self._lock = Lock()  # over looks at what is here; never over the disk
        self.disk_reads = 0
        self.hits = 0

    def read(self, number: int, files: Files, offset: int, most_bytes: int) -> Chunk:
        """Return what `files.read` would, or less of it."""
        while True:
            start = max(offset, files.first)
            with self._lock:
                chunk = self._find(number, start)
            if chunk is None:
                chunk = files.read(start, max(most_bytes, READ_BYTES))
                with self._lock:
                    self.disk_reads += 1
                    if chunk.frames:
                        self._keep(number, start, chunk)
            part = _part(chunk, start, most_bytes, files.stop)
            if part.frames or part.at_end or part.skipped_damage:
                return part
            offset = part.next_offset  # a gap at the end of what was kept

    def limit(self, most_bytes: int) -> None:
        """Keep no more than that from the next read on, nor more than `CACHE_BYTES`."""
        self._most_bytes = min(most_bytes, CACHE_BYTES)

    def forget(self, number: int) -> None:
        """Drop what was read of a log."""
        with self._lock:
            for start in self._starts.pop(number, []):
                self._bytes -= self._chunks.pop((number, start))[1]

    def _find(self, number: int, offset: int) -> Chunk | None:
        starts = self._starts.get(number, [])
        at = bisect_right(starts, offset) - 1
        if at < 0:
            return None
        chunk, _ = self._chunks[number, starts[at]]
        if offset >= chunk.next_offset:
            return None
        self._chunks.move_to_end((number, starts[at]))
        self.hits += 1
        return chunk

    def _keep(self, number: int, offset: int, chunk: Chunk) -> None:
        if (number, offset) in self._chunks:
            return  # two read it at the same time
        size = _CHUNK_BYTES + sum(frame.size for frame in chunk.frames)
        self._chunks[number, offset] = chunk, size
        insort(self._starts.setdefault(number, []), offset)
        self._bytes += size
        while self._bytes > self._most_bytes and self._chunks:
            (old, start), (_, size) = self._chunks.popitem(last=False)
            self._bytes -= size
            self._starts[old].remove(start)
            if not self._starts[old]:
                del self._starts[old]


def _part(chunk: Chunk, offset: int, most_bytes: int, stop: int) -> Chunk:
    """Return the frames of a chunk from an offset on, up to so many bytes, one at least."""
    frames = chunk.frames
    low = bisect_right(frames, offset, key=lambda frame: frame.stop)
    high, used = low, 0
    while high < len(frames) and (high == low or used + frames[high].size <= most_bytes):
        used += frames[high].size
        high += 1
    if high == len(frames):
        next_offset = chunk.next_offset
    else:
        next_offset = frames[high - 1].stop if high > low else frames[high].first
    skipped = 0 if low else chunk.skipped_damage
    return Chunk(frames[low:high], next_offset, next_offset >= stop, skipped)
