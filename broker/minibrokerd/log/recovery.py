"""Reading the log back: which files count, how they chain, and where the log ends. It writes
nothing.

The one question is whether bytes that do not verify are *torn* (the last batch ever started, whose
sync never returned: nobody was told, the log ends before it) or *damaged* (they had been synced:
refuse, and say where). Batch n+1 is written after the sync of n returned, so a bad batch is damage
when anything newer exists. What proves that: a valid later header, a next segment, `state` saying
that the log was closed or had a newer segment, `failed` naming a higher number.

What is read is no proof that it is on the disk: the pages of a failed sync are clean and gone. Only `state`
saying `clean` proves it, for that is written after the sync of the footer returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

from minibrokerd.log import format as layout
from minibrokerd.log.directory import DataDirectory, Listing, SegmentName, State
from minibrokerd.log.failures import DamagedLog, NewerFormat, NotWritable
from minibrokerd.log.fileops import FileOps, read_all
from minibrokerd.log.format import Found, Header, Kind, SegmentInfo
from minibrokerd.log.index import Region, Slice, decode_slices
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch, Digested, Place
from minibrokerd.log.tail import Sealed

_WHOLE: Final = layout.LARGEST_SEGMENT_BYTES
_FIRST_BATCH: Final = 4096  # has the header batch of a segment


@dataclass(slots=True)
class RecoveryReport:
    """What a recovery found, for one line in the server's log.

    `torn_bytes` counts from `torn_offset` of `torn_segment`; `torn_kept` names the side file that
    keeps them after `start` (None: nothing torn, or no space for it). `ignored` are leftovers of
    ours, `foreign` files that are not ours and were left alone. `copied_from` is the path of the data directory
    that this one is a copy of (empty: it is none).
    """

    segments: int = 0
    batches: int = 0
    clean: bool = True
    torn_segment: int = 0
    torn_offset: int = 0
    torn_bytes: int = 0
    torn_kept: str | None = None
    ignored: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    copied_from: str = ""


@dataclass(slots=True)
class Segment:
    """One segment file in memory: its name, first batch, how far it was verified, and its bytes, without
    the zeros behind what was ever written.
    """

    name: SegmentName
    path: str
    data: bytes
    header: Header
    info: SegmentInfo
    slices: list[Slice] = field(default_factory=list)
    end: int = 0


class Recovery:
    """One pass over a data directory; `batches()` to its end first, then the attributes count.

    `last` is the newest segment (None: a new log), verified up to its `end`; `last_number` and
    `last_checksum` name the last batch; `epoch` and `now_ms` are the highest found. `clean` says that a clean
    stop closed the log: all that was read is on the disk.
    """

    def __init__(self, directory: DataDirectory, ops: FileOps, *, digests: bool = False) -> None:
        """`digests`: let side indexes stand for the batches that they are about."""
        self._digests = digests
        self.report = RecoveryReport()
        self.store_id = b""
        self.epoch = 0
        self.now_ms = 0
        self.log_start = 1
        self.format_version = 1  # of the last segment
        self.last: Segment | None = None
        self.sealed: list[Sealed] = []  # the segments before it
        self.last_number = 0
        self.last_checksum = 0
        self.clean = True
        self.percent = 0  # of the segments that are read
        self.names: dict[int, SegmentName] = {}  # of the segments, by number
        self.ended: dict[int, Region] = {}  # what of the sealed ones is in no whole index
        # What was taken on trust: stretches of sealed segments that stand in a whole index.
        self.unread: list[tuple[SegmentName, Region]] = []
        self.indexes: dict[int, int] = {}  # the sizes of the whole indexes, by segment
        self.temporary: list[str] = []  # files that were being made ready: nothing of the log
        self.replaced: list[
            str
        ] = []  # segments that another generation replaced, or that are none yet
        self.freed: list[str] = []  # segments below the log start
        self._directory = directory
        self._ops = ops
        self._kind = Kind.FOOTER

    def batches(self) -> Iterator[Batch | Digested]:
        """Yield every batch of data, or digests instead of some, oldest first.

        Raises:
            DamagedLog: bytes that had been synced are not as they were written.
            NewerFormat: a newer release wrote this.
            NotWritable: a file cannot be read.
        """
        listing, state = self._directory.listing(), self._directory.read_state()
        self.report.foreign = listing.foreign
        names = self._newest_generations(listing)
        last = self._open_last(names, state)
        self.names = names
        if last is not None:
            self.last = last
            self.store_id = last.header.origin.store_id
            last.slices = self._whole_slices(last)
            self.log_start = _newest_log_start(last)
            self.format_version = last.info.format_version
            yield from self._read_chain(names, last)
            self._judge_end(last, closed=state is not None and state.clean)
        self._compare_failed()

    def _newest_generations(self, listing: Listing) -> dict[int, SegmentName]:
        newest = {name.number: name for name in listing.segments}  # sorted: the highest stays
        older = [str(name) for name in listing.segments if newest[name.number] != name]
        self.report.ignored, self.temporary = older, listing.temporary
        self.replaced = older.copy()
        return newest

    def _open_last(self, names: dict[int, SegmentName], state: State | None) -> Segment | None:
        """Return the newest segment; a file whose header batch was torn is no segment yet."""
        begun = state.segment if state else 0
        number = max(names, default=0)
        last = self._open(names[number]) if names else None
        if names and last is None:
            self._ignore_unborn(names.pop(number), begun)
            number = max(names, default=0)
            last = self._open_valid(names[number]) if names else None
        if number < begun:
            path = self._directory.at(SegmentName(begun, 1))
            raise DamagedLog(path, 0, 1, 0, f"segment {begun} was begun and is missing")
        return last

    def _ignore_unborn(self, name: SegmentName, begun: int) -> None:
        path = self._directory.at(name)
        data = read_file(path, self._ops)
        later = layout.later_header(data, 0, None, 0)
        spread = layout.last_nonzero(data, 0) > layout.OWN_BATCH_BYTES
        older = any(
            other.startswith(f"segment-{name.number:010d}-") for other in self.report.ignored
        )
        if later or spread or older or name.generation > 1 or name.number <= begun:
            raise _bad_header(path, later)
        self.report.ignored.append(str(name))
        self.replaced.append(str(name))

    def region_of(self, segment: Segment, checksum: int | None = None) -> Region:
        """Return all of a segment that was read last as one region; `checksum` if it is known already."""
        if checksum is None:
            checksum = crc32(memoryview(segment.data)[: segment.end])
        return Region(
            0,
            segment.end,
            checksum,
            self.last_number,
            self.last_checksum,
            self.epoch,
            self.log_start,
            self.now_ms,
            self._kind,
        )

    def _open_valid(self, name: SegmentName, size_bytes: int = _WHOLE) -> Segment:
        segment = self._open(name, size_bytes)
        if segment is None:
            path = self._directory.at(name)
            raise _bad_header(path, layout.later_header(read_file(path, self._ops), 0, None, 0))
        return segment

    def _open(self, name: SegmentName, size_bytes: int = _WHOLE) -> Segment | None:
        """Read a segment and verify its first batch; None if that is not valid."""
        path = self._directory.at(name)
        data = read_file(path, self._ops, size_bytes)
        header = layout.decode_header(data, 0)
        records = layout.decode_records(data, 0, header) if header else None
        if header is None or records is None:
            if _is_newer(data):
                raise NewerFormat(path, int(data[3:4]), FORMAT_VERSION)
            return None
        info = layout.decode_segment_info(records)
        if info is not None and info.format_version > FORMAT_VERSION:
            raise NewerFormat(path, info.format_version, FORMAT_VERSION)
        if header.kind is not Kind.SEGMENT or info is None:
            raise DamagedLog(path, 0, header.number, 0, "its first batch is no segment header")
        if (header.origin.segment, header.origin.generation) != (name.number, name.generation):
            where = f"segment {header.origin.segment}, generation {header.origin.generation}"
            raise DamagedLog(path, 0, header.number, 0, f"its header says that it is {where}")
        return Segment(name, path, data, header, info)

    def _slices(self, name: SegmentName) -> list[Slice]:
        """Return what the side index of a segment has, as far as it verifies."""
        path = self._directory.at(name.index)
        if not self._digests or not self._directory.has(name.index):
            return []
        slices = decode_slices(read_file(path, self._ops), name.number, name.generation)
        return [part for store_id, part in slices if store_id == self.store_id]

    def _whole_slices(self, last: Segment) -> list[Slice]:
        """Return the slices for which the segment has the bytes that it had; those are its beginning."""
        whole, view = [], memoryview(last.data)
        for part in self._slices(last.name):
            region = part.region
            stretch = view[region.start : region.stop]
            if len(stretch) != region.stop - region.start or crc32(stretch) != region.checksum:
                break
            whole.append(part)
        return whole

    def _read_chain(
        self, names: dict[int, SegmentName], last: Segment
    ) -> Iterator[Batch | Digested]:
        self.freed = [str(names[number]) for number in names if number < self.log_start]
        self.report.ignored += self.freed
        count = last.name.number - self.log_start + 1
        for number in range(self.log_start, last.name.number):
            self.percent = 100 * (number - self.log_start) // count
            if number not in names:
                path = self._directory.at(SegmentName(number, 1))
                raise DamagedLog(path, 0, self.last_number + 1, 0, f"segment {number} is missing")
            slices = self._slices(names[number])
            if slices and slices[-1].complete:
                sealed = self._open_valid(names[number], _FIRST_BATCH)
                sealed.slices = slices
                self.unread += [(sealed.name, part.region) for part in slices]
                yield from self._read_digests(sealed)
                self._require_whole(sealed)
                self.indexes[number] = self._ops.size(self._directory.at(names[number].index))
            else:
                sealed = self._open_valid(names[number])
                yield from self._read_segment(sealed)
                self._judge_sealed(sealed)
                self.ended[number] = self.region_of(sealed)
            self.sealed.append(Sealed(sealed.name, sealed.info.segment_bytes, self.last_number))
        yield from self._read_segment(last)

    def _read_digests(self, segment: Segment) -> Iterator[Digested]:
        """Yield the slices of a segment, and go on behind the last of them."""
        self._enter(segment)
        self._check_begin(segment)
        complete = segment.slices[-1].complete and segment is not self.last
        number = segment.slices[-1].region.last_number
        for part in segment.slices:
            region = part.region
            self.report.batches += region.last_number - self.last_number
            self.epoch, self._kind = region.epoch, region.kind
            self.now_ms = max(self.now_ms, region.now_ms)
            self.last_number, self.last_checksum = region.last_number, region.last_checksum
            segment.end = region.stop
            yield Digested(segment.name.number, number, region.now_ms, part.payload, complete)

    def _check_begin(self, segment: Segment) -> None:
        """Whether a segment follows what was read so far, as its header says."""
        info = segment.info
        before = (self.last_number, self.last_checksum)
        if (info.previous_number, info.previous_checksum) != before:
            raise self._unchained(segment)

    def _enter(self, segment: Segment) -> None:
        """Go on with a segment, which is of this log."""
        header, info = segment.header, segment.info
        if header.origin.store_id != self.store_id:
            what = "it belongs to another data directory"
            raise DamagedLog(segment.path, 0, header.number, 0, what)
        if segment.name.number == self.log_start:  # what came before it was freed
            self.last_number, self.last_checksum = info.previous_number, info.previous_checksum

    def _unchained(self, segment: Segment) -> DamagedLog:
        what = f"it does not follow batch {self.last_number} of the segment before it"
        return DamagedLog(segment.path, 0, self.last_number + 1, segment.header.number, what)

    def _read_segment(self, segment: Segment) -> Iterator[Batch | Digested]:
        if segment.slices:
            yield from self._read_digests(segment)
        else:
            self._enter(segment)
        self.report.segments += 1
        yield from self._scan(segment)
        if self._fill_hole(segment):
            yield from self._scan(segment)
        if segment.end == 0:
            raise self._unchained(segment)

    def _scan(self, segment: Segment) -> Iterator[Batch]:
        origin, number = segment.header.origin, segment.name.number
        for found in layout.scan(segment.data, origin, self.last_number + 1, segment.end):
            self._follow(segment, found)
            if found.header.kind is Kind.DATA:
                head = found.header
                place = Place(number, found.offset + BATCH_HEADER_BYTES)
                yield Batch(head.number, found.records, head.now_ms, head.unix_ms, place)

    def _fill_hole(self, segment: Segment) -> bool:
        """Whether the next batch ends in zeros that were not read; it can be now.

        A file system that keeps no zeros, or a copy that left them out, has a hole where a batch ends in zeros,
        and what lies behind the last data is not read. That the batch is as it was written, its checksums say.
        """
        header = layout.decode_header(segment.data, segment.end)
        if header is None or header.number != self.last_number + 1:
            return False
        end = segment.end + header.batch_bytes
        if not len(segment.data) < end <= self._ops.size(segment.path):
            return False
        segment.data += bytes(end - len(segment.data))
        return True

    def _follow(self, segment: Segment, found: Found) -> None:
        """Take one verified batch as the newest; what it says of the one before must be true."""
        header = found.header
        if header.kind is not Kind.DATA:
            info = layout.decode_segment_info(found.records)
            before = (self.last_number, self.last_checksum)
            if info is None or (info.previous_number, info.previous_checksum) != before:
                what = f"batch {header.number} does not follow what stands before it"
                raise DamagedLog(segment.path, found.offset, header.number, 0, what)
        if header.epoch < self.epoch:
            what = f"batch {header.number} is of an older start than the one before it"
            raise DamagedLog(segment.path, found.offset, header.number, 0, what)
        self.epoch = header.epoch
        self.now_ms = max(self.now_ms, header.now_ms)
        self.last_number, self.last_checksum = header.number, header.heads_checksum
        self.report.batches += header.kind is Kind.DATA
        self._kind = header.kind
        segment.end = found.offset + header.batch_bytes

    def _judge_sealed(self, segment: Segment) -> None:
        if layout.last_nonzero(segment.data, segment.end) > segment.end:
            raise self._damaged(segment, "a newer segment follows it")
        self._require_whole(segment)

    def _judge_end(self, last: Segment, closed: bool) -> None:
        """Decide what follows the last good batch: nothing, a torn append, or damage."""
        torn_end = layout.last_nonzero(last.data, last.end)
        footed = self._kind is Kind.FOOTER and torn_end == last.end
        # A footer alone proves nothing: its sync may have failed, and nobody lived to say so.
        self.clean = self.report.clean = closed and footed
        if closed and not footed:
            raise self._damaged(last, "the log was closed, and does not end as it was closed")
        if closed:
            self._require_whole(last)
        later = layout.later_header(last.data, last.end, last.header.origin, self.last_number + 1)
        if later is not None:
            raise self._damaged(last, f"batch {later.number} follows it", later.number)
        if torn_end > last.end + self._torn_bound(last):
            raise self._damaged(last, f"bytes up to {torn_end} are neither zero nor one batch")
        if torn_end > last.end:
            self.report.torn_segment = last.name.number
            self.report.torn_offset = last.end
            self.report.torn_bytes = torn_end - last.end

    def _torn_bound(self, last: Segment) -> int:
        """Return how many bytes the batch that was being written can have, at the most."""
        header = layout.decode_header(last.data, last.end)
        if header and header.origin == last.header.origin and header.number == self.last_number + 1:
            return header.batch_bytes
        return layout.padded(BATCH_HEADER_BYTES + layout.max_batch_bytes(last.info.segment_bytes))

    def _require_whole(self, segment: Segment) -> None:
        size = self._ops.size(segment.path)
        if size != segment.info.segment_bytes:
            what = f"the file has {size} bytes instead of {segment.info.segment_bytes}"
            raise self._damaged(segment, what)

    def _compare_failed(self) -> None:
        failed = self._directory.read_failed()
        if failed is not None and failed > self.last_number:
            path = self.last.path if self.last else self._directory.path
            offset = self.last.end if self.last else 0
            what = f"the file `failed` says that batch {failed} was confirmed"
            raise DamagedLog(path, offset, self.last_number + 1, failed, what)

    def _damaged(self, segment: Segment, what: str, last_known: int = 0) -> DamagedLog:
        first_lost = self.last_number + 1
        what = f"what stands there is not batch {first_lost}, and {what}"
        return DamagedLog(segment.path, segment.end, first_lost, last_known, what)


def read_file(path: str, ops: FileOps, size_bytes: int = _WHOLE) -> bytes:
    """Return the bytes of a file of the log that were ever written, `size_bytes` of them at the most.

    Raises:
        NotWritable: it cannot be read.
    """
    try:
        descriptor = ops.open(path, 0)
        try:
            return read_all(ops, descriptor, size_bytes)
        finally:
            ops.close(descriptor)
    except OSError as exc:
        raise NotWritable(path, "read", str(exc), "check the disk and the file's owner") from exc


def _newest_log_start(last: Segment) -> int:
    """Return the newest log start that a batch of the last segment names."""
    log_start, end = last.info.log_start, 0
    if last.slices:
        log_start, end = last.slices[-1].region.log_start, last.slices[-1].region.stop
    for offset, header in layout.headers(last.data, len(last.data), end):
        if header.kind is not Kind.DATA and header.origin == last.header.origin:
            info = layout.decode_segment_info(
                layout.decode_records(last.data, offset, header) or ()
            )
            log_start = max(log_start, info.log_start if info else 0)
    return log_start


def _is_newer(data: bytes) -> bool:
    """Whether a newer release wrote this file: its magic says so, and nothing else in it denies it.

    One flipped bit makes a newer magic, too. Then the rest of that batch, or a later one, is still ours.
    """
    if data[:3] != layout.MAGIC[:3] or not b"2" <= data[3:4] <= b"9":
        return False
    if layout.later_header(data, 0, None, 0) is not None:
        return False
    ours = layout.MAGIC + data[4 : layout.OWN_BATCH_BYTES]
    header = layout.decode_header(ours, 0)
    records = layout.decode_records(ours, 0, header) if header else None
    info = layout.decode_segment_info(records) if records else None
    return info is None or info.format_version > FORMAT_VERSION


def _bad_header(path: str, later: Header | None) -> DamagedLog:
    number = later.number if later else 0
    return DamagedLog(path, 0, 0, number, "its header batch is not as it was written")
