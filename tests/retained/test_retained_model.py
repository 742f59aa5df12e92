"""A retained log beside a plain list: whatever is done to both, each says what the other does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from retained_world import bodies_in, body_of, frame_with

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained import points
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.memory_files import MemoryFiles
from minibrokerd.retained.shelf import Cache, Files

Make = Callable[[], Files]


class Beside:
    """A log, the list of (offset, key, body) that it should hold, and who reads it through a cache."""

    def __init__(self, random: Random, make: Make) -> None:
        self.random = random
        self.make = make
        self.files = make()
        self.files.open()
        self.cache = Cache(3_000)
        self.model: list[tuple[int, bytes, bytes]] = []
        self.next_offset = 0
        self.now_ms = 1_000

    def append(self) -> None:
        """Some frames; now and then some that came before."""
        frames = []
        for _ in range(self.random.randint(1, 5)):
            self.next_offset += self.random.choice((0, 0, 4))
            self.now_ms += self.random.choice((0, 3, 900, 5_000))
            key = b"key %d" % self.random.randrange(9) if self.random.random() < 0.8 else b""
            offsets = range(self.next_offset, self.next_offset + self.random.choice((1, 1, 3, 12)))
            bodies = [
                b"" if self.random.random() < 0.1 else body_of(offset, self.random.randint(10, 90))
                for offset in offsets
            ]
            frames.append(frame_with(self.next_offset, bodies, self.now_ms, key=key))
            self.model += zip(offsets, [key] * len(bodies), bodies, strict=True)
            self.next_offset = offsets.stop
        self.files.append(frames)
        if self.random.random() < 0.3:
            self.files.append(frames[-2:])

    def again(self) -> None:
        """A stop and a start."""
        if isinstance(self.files, RetainedFiles):
            self.files.sync()
            self.files.close()
            self.files = self.make()
            self.files.open()

    def retain(self) -> None:
        """By one of the bounds, which says at the least what stays."""
        keep = max(len(self.model) // 2, 1)
        before = self.files.messages
        gone = self.files.retain(self.now_ms, 0, 0, keep)
        assert self.files.messages == before - gone >= min(keep, before)
        self._went_below(self.files.first)

    def trim(self) -> None:
        """Somewhere, beyond the end as well."""
        below = self.random.randint(self.files.first, self.files.stop + 2)
        self.files.trim(below)
        self.next_offset = max(self.next_offset, below)
        self._went_below(below)

    def _went_below(self, offset: int) -> None:
        self.model = [each for each in self.model if each[0] >= offset]

    def tidy(self) -> None:
        """Some slices of it."""
        for _ in range(self.random.randint(1, 40)):
            self.files.work_ahead()

    def compact(self) -> None:
        """All of it; what is left is the last of each key."""
        result = self.files.begin_compaction(self.now_ms, 2_000, seal=True)
        while not result.ended:
            self.files.work_ahead()
        last = {key: offset for offset, key, _ in self.model}
        times = {}
        for offset, key, body in self.model:
            if not key or last[key] == offset:
                times[offset] = key, body
        left = {offset for offset, _, _ in self.said()}
        assert all(offset in times for offset in left)
        # A tombstone may be gone: how old it was says its frame, which may be joined with younger ones.
        assert all(not body and key for offset, (key, body) in times.items() if offset not in left)
        self.model = [each for each in self.model if each[0] in left]
        self.cache.forget(1)

    def check(self) -> None:
        """Sums, all of it, and what is read from some offset."""
        files = self.files
        assert files.messages == len(self.model)
        assert (files.size_bytes > 0) >= bool(self.model)
        assert files.first == (self.model[0][0] if self.model else files.stop) or (
            files.first <= self.model[0][0]
        )
        assert self.said() == self.model
        offset = self.random.randint(0, self.next_offset + 3)
        chunk = self.cache.read(1, files, offset, self.random.randint(1, 400))
        expected = [each[0] for each in self.model if each[0] >= offset][:1]
        found = [at for frame in chunk.frames for at in range(frame.first, frame.stop)]
        assert [at for at in found if at >= max(offset, files.first)][:1] == expected
        at = files.offset_at(self.random.randint(0, self.now_ms + 10))
        assert files.first <= at <= files.stop

    def said(self) -> list[tuple[int, bytes, bytes]]:
        """Return what the log holds."""
        known = {offset: (offset, key, body) for offset, key, body in self.model}
        found, offset = [], 0
        while True:
            chunk = self.files.read(offset, 500)
            for frame in chunk.frames:
                for index, body in enumerate(bodies_in(frame)):
                    if frame.first + index >= self.files.first:
                        each = known.get(frame.first + index, (-1, b"", b""))
                        assert body == each[2]
                        found.append(each)
            offset = chunk.next_offset
            if chunk.at_end:
                return found


@pytest.mark.parametrize("kind", ["disk", "memory"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("WORLDS", "4"))))
def test_a_log_says_what_a_list_says(
    seed: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over some hundred operations, in the order that the seed gives."""
    monkeypatch.setattr(points, "STEP_BYTES", 300)
    random = Random(seed)

    def make() -> Files:
        if kind == "memory":
            return MemoryFiles()
        return RetainedFiles(FileOps(), str(tmp_path), segment_bytes=2_000)

    beside = Beside(random, make)
    steps = [beside.append] * 6 + [beside.again, beside.retain, beside.trim, beside.tidy]
    for turn in range(150):
        random.choice(steps if turn % 25 else [beside.compact])()
        beside.check()
