"""Taking a back-up: rounds over a data directory until what was copied is a log by itself.

While a server runs, segments are appended to, freed, zeroed in place under their old names, and used again under
others. Nothing holds it up for a back-up: the directory is read, and what was read is judged. A round copies the
sealed segments, oldest first, and the newest last, up to its last whole batch. It is believed when

- each segment ends with the batch that the header of the next one names;
- every segment is there from the log start on that the newest one states;
- the newest was not sealed or replaced while it was read, or ended as the one that followed it says.

A server syncs the marker with a new log start, or the name of a new segment, before it zeroes anything. So what
looks wrong because it was freed meanwhile is below the log start in the next round, and what looks wrong at the
same place in two rounds is damage.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from minibrokerd import __version__
from minibrokerd.backups.copying import Copy, Head, copy_of, read_head, scanned
from minibrokerd.backups.failures import OtherStore, Unsettled
from minibrokerd.backups.manifest import FORMAT, HASH_DIGITS, Manifest, Segment, SideFile
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.retaining import take_retained
from minibrokerd.backups.shelf import Shelf
from minibrokerd.log.directory import DataDirectory, SegmentName, State
from minibrokerd.log.failures import DamagedLog, NotWritable
from minibrokerd.log.fileops import FileOps, read_all
from minibrokerd.log.format import Kind

ROUNDS: Final = 50
SIDE_FILES: Final = ("key", "tokens")
SIDE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a back-up came to: its manifest, what of its bytes was written now, and which older ones made room."""

    manifest: Manifest
    copied_bytes: int
    rounds: int
    removed: list[int]


def back_up(
    source: Path,
    shelf: Shelf,
    ops: FileOps,
    *,
    keep: int,
    pace: Pace,
    unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> BackedUp:
    """Add a back-up of `source` to an open shelf, and keep the newest `keep` of those that are there.

    All that was confirmed before this is called is in it.

    Raises:
        Unsettled: no round gave a whole copy.
        OtherStore: the shelf has back-ups of another log.
        DamagedLog: the source cannot be copied as a whole log.
        NotWritable: a file of the shelf could not be written; the back-ups that were there stand.
        OSError: something could not be read; likewise.
    """
    began_unix_ms, older = unix_ms(), shelf.manifests()
    taking = _Taking(source, shelf, ops, pace, older)
    side_files = taking.side_files()
    rounds = taking.run()
    # Behind the log: what it has given to the archive is there.
    retained, retained_bytes = take_retained(source, shelf, ops, pace, older)
    last = taking.chain[-1]
    manifest = Manifest(
        FORMAT if retained else 1, shelf.next_number(), __version__, taking.store_id.hex(), str(source.resolve()),
        last.last, last.epoch, began_unix_ms, unix_ms(), taking.chain, side_files, retained,
    )  # fmt: skip
    shelf.commit(manifest)
    return BackedUp(manifest, taking.copied_bytes + retained_bytes, rounds, shelf.tidy(keep))


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Where a round found something that does not fit."""

    path: str
    offset: int
    first_lost: int
    what: str

    def damage(self) -> DamagedLog:
        return DamagedLog(self.path, self.offset, self.first_lost, 0, self.what)


class _Taking:
    """One back-up under way; `chain` are its segments when `run` has returned."""

    def __init__(
        self, source: Path, shelf: Shelf, ops: FileOps, pace: Pace, older: list[Manifest]
    ) -> None:
        self.chain: list[Segment] = []
        self.store_id = b""
        self.copied_bytes = 0
        self._directory = DataDirectory(source, ops)
        self._shelf = shelf
        self._ops = ops
        self._pace = pace
        self._older = older
        # By name: what is on the shelf and may stand for a segment. Two lives of a log may have two of one name.
        self._rows: dict[SegmentName, list[Segment]] = {}
        for manifest in older:
            for row in manifest.segments:
                self._rows.setdefault(row.name, []).append(row)
        self._files = shelf.segments()  # that were there, also those that no manifest names

    def run(self) -> int:
        """Go round until a copy is whole; return how many rounds it took."""
        before: _Doubt | None = None
        for count in range(1, ROUNDS + 1):
            doubt = self._round()
            if doubt is None:
                return count
            if doubt == before:
                raise doubt.damage()
            before = doubt
        raise Unsettled(self._directory.path, ROUNDS)

    def side_files(self) -> dict[str, SideFile]:
        """Copy the small files that clients need after a restore."""
        found = {}
        for name in SIDE_FILES:
            if self._directory.has(name):
                descriptor = self._ops.open(self._directory.at(name), 0)
                try:
                    data = read_all(self._ops, descriptor, SIDE_BYTES)
                finally:
                    self._ops.close(descriptor)
                found[name] = self._shelf.put_side_file(name, data)
        return found

    def _round(self) -> _Doubt | None:
        """Copy what is there now; return what does not fit, None if all does and `chain` is whole."""
        state = self._directory.read_state()
        names = self._names()
        heads = {number: self._head(name) for number, name in names.items()}
        newest = self._newest(names, heads, state)
        if isinstance(newest, _Doubt):
            return newest
        head = heads[newest.number]
        assert head is not None
        self._take_store(head)
        rows: dict[int, Segment | _Doubt] = {}
        for number in range(head.info.log_start, newest.number):
            name = names.get(number)
            if name is None:
                rows[number] = self._doubt(SegmentName(number, 1), 0, "the segment is missing")
            else:
                rows[number] = self._sealed(name, heads[number], heads.get(number + 1))
        copy = copy_of(self._directory.at(newest), newest, self._ops, self._pace)
        if copy is None:
            return self._doubt(newest, 0, "its first batch is not as it was written")
        doubt = self._look_again(newest, copy, state)
        if doubt is not None:
            return doubt
        return self._join(rows, newest, copy)

    def _names(self) -> dict[int, SegmentName]:
        """Return the segments that are there by their numbers, of two generations the newer."""
        return {name.number: name for name in self._directory.listing().segments}

    def _newest(
        self, names: dict[int, SegmentName], heads: dict[int, Head | None], state: State | None
    ) -> SegmentName | _Doubt:
        """Return the newest segment; a file that is none yet, as a crash may leave it, is passed over."""
        begun = state.segment if state else 0
        for number in sorted(names, reverse=True):
            if heads[number] is not None:
                if number < begun:
                    return self._doubt(
                        SegmentName(begun, 1), 0, "the segment was begun and is missing"
                    )
                return names[number]
            if state is None or number <= begun:
                return self._doubt(names[number], 0, "its first batch is not as it was written")
        raise NotWritable(
            self._directory.path, "back up", "no segment is in it", "name a data directory"
        )

    def _take_store(self, head: Head) -> None:
        self.store_id = head.origin.store_id
        if any(manifest.store != self.store_id.hex() for manifest in self._older):
            raise OtherStore(str(self._shelf.path), self._directory.path)

    def _sealed(self, name: SegmentName, head: Head | None, after: Head | None) -> Segment | _Doubt:
        """Return a sealed segment that is on the shelf, or was put there."""
        if head is None:
            return self._doubt(name, 0, "its first batch is not as it was written")
        if head.origin.store_id != self.store_id:
            return self._doubt(name, 0, "it belongs to another data directory")
        if after is None:
            return self._doubt(name, 0, "the segment after it does not begin as one")
        for row in self._kept(name):
            if row.head == head.checksum and _ends_before(row.last, row.last_checksum, after):
                return row
        copy = copy_of(self._directory.at(name), name, self._ops, self._pace)
        if copy is None:
            return self._doubt(name, 0, "its first batch is not as it was written")
        if copy.head != head or not _ends_before(copy.last, copy.last_checksum, after):
            what = f"it does not go on to batch {after.info.previous_number}, which the next segment names"
            return self._doubt(name, copy.end, what, copy.last + 1)
        return self._put(name, copy)

    def _kept(self, name: SegmentName) -> list[Segment]:
        """Return what is on the shelf under a name of a segment: by a manifest, or whole without one."""
        rows = [row for row in self._rows.get(name, []) if self._shelf.has(row.file, row.bytes)]
        known = {row.file for row in rows}
        for file in self._files.pop(name, []):
            if file not in known and (row := self._leftover(name, file)) is not None:
                rows.append(row)
        self._rows[name] = rows
        return rows

    def _leftover(self, name: SegmentName, file: str) -> Segment | None:
        data = self._shelf.read(file)
        sha256 = hashlib.sha256(data).hexdigest()
        copy = scanned(data, name)
        if copy is None or copy.end != len(data) or f"-{sha256[:HASH_DIGITS]}." not in file:
            return None
        return copy.row(file, sha256)

    def _put(self, name: SegmentName, copy: Copy) -> Segment:
        data = memoryview(copy.data)[: copy.end]
        stem = str(name).removesuffix(".log")
        row = copy.row(*self._shelf.put(stem, ".log", data, self._pace))
        self.copied_bytes += copy.end
        self._rows.setdefault(name, []).append(row)
        return row

    def _look_again(self, name: SegmentName, copy: Copy, state: State | None) -> _Doubt | None:
        """Whether the newest segment was left alone while it was read, or ended as the one behind it says."""
        if not copy.whole:
            what = f"what stands there is not batch {copy.last + 1}, and later ones follow"
            return self._doubt(name, copy.end, what, copy.last + 1)
        names = self._names()
        if names.get(name.number) != name:
            return self._doubt(name, 0, "another file took its place")
        after = names.get(name.number + 1)
        head = self._head(after) if after is not None else None
        if head is not None and not _ends_before(copy.last, copy.last_checksum, head):
            return self._doubt(
                name, copy.end, "it goes on, and was not read to its end", copy.last + 1
            )
        if head is None and max(names) > name.number and not self._is_unborn(names):
            return self._doubt(name, copy.end, "what follows it does not begin as a segment")
        closed = state is not None and state.clean and self._directory.read_state() == state
        if closed and copy.last_kind is not Kind.FOOTER:
            what = "the log was closed, and does not end as it was closed"
            return self._doubt(name, copy.end, what, copy.last + 1)
        failed = self._directory.read_failed()
        if failed is not None and failed > copy.last:
            what = f"the file `failed` says that batch {failed} was confirmed"
            return self._doubt(name, copy.end, what, copy.last + 1)
        return None

    def _is_unborn(self, names: dict[int, SegmentName]) -> bool:
        state = self._directory.read_state()
        return state is not None and max(names) > state.segment

    def _join(
        self, rows: dict[int, Segment | _Doubt], newest: SegmentName, copy: Copy
    ) -> _Doubt | None:
        chain: list[Segment] = []
        for number in range(copy.log_start, newest.number):
            row = rows[number]
            if isinstance(row, _Doubt):
                return row
            chain.append(row)
        if chain and not _ends_before(chain[-1].last, chain[-1].last_checksum, copy.head):
            return self._doubt(newest, 0, f"it does not follow batch {chain[-1].last}")
        self.chain = [*chain, self._put(newest, copy)]
        return None

    def _head(self, name: SegmentName) -> Head | None:
        return read_head(self._directory.at(name), name, self._ops)

    def _doubt(self, name: SegmentName, offset: int, what: str, first_lost: int = 0) -> _Doubt:
        return _Doubt(self._directory.at(name), offset, first_lost, what)


def _ends_before(last: int, checksum: int, after: Head) -> bool:
    info = after.info
    return (last, checksum) == (info.previous_number, info.previous_checksum)
