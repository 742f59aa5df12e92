"""What a check reads: every segment of a data directory, beyond the first damage. It neither writes nor locks.

Recovery has the verdict: a directory is whole, torn or damaged exactly when `serve` says so. The survey finds all
of the places, where recovery stops at the first one. Which file a segment is says the header of its first batch
that holds, not the name: files that were swapped are told from files that are damaged.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from minibrokerd.log import format as layout
from minibrokerd.log.directory import DataDirectory, SegmentName, State
from minibrokerd.log.failures import DamagedLog, NewerFormat, NotWritable
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import Kind, Origin, SegmentInfo
from minibrokerd.log.index import whole_bytes
from minibrokerd.log.recovery import Recovery, read_file
from minibrokerd.rescue.pieces import Piece, pieces


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment file by the first header in it that holds (None: none does), and the segment it is by its name."""

    name: SegmentName
    origin: Origin | None

    @property
    def misnamed(self) -> bool:
        """Whether the file is not the segment that its name says."""
        origin = self.origin
        return origin is not None and (origin.segment, origin.generation) != (
            self.name.number,
            self.name.generation,
        )


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are not as they were written, and the batches that stood there (0: not known).

    `kept` records of them hold by their own checksum, `broken` do not; what else stood there is not known.
    `torn`: it is what a crash leaves of the last append, which nobody was told of.
    """

    file: str
    start: int
    end: int
    first_batch: int
    last_batch: int
    kept: int
    broken: int
    torn: bool


@dataclass(slots=True)
class Survey:
    """What one pass over the segments found; whole when `read` has ended.

    `order` are the files that are read, oldest first; `leftovers` and `strangers` (of another data directory) are
    not. `missing` are the numbers of segments that are not there. `lost_bytes` bounds what is lost, `end_bytes`
    that part of it that no later header bounds; `end_lost`: the end of the log is gone without a trace. `epoch`
    and `number` are the highest found, `kind` that of the last batch.
    """

    store_id: bytes
    order: list[SegmentFile]
    leftovers: list[str]
    strangers: list[str]
    missing: list[int] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    batches: int = 0
    records: int = 0
    lost_bytes: int = 0
    segment_bytes: int = 0
    epoch: int = 0
    number: int = 0
    end_bytes: int = 0
    end_lost: bool = False
    kind: Kind = Kind.DATA


@dataclass(slots=True)
class Checked:
    """The verdict on a data directory, and what it rests on.

    `refusal` is what `serve` would say (None: it would start). `unread` are the segment files beside the chain, by
    what they are. `holder` is the process that has the directory locked (0: none). `bad_indexes` are side indexes
    that are not whole, and why: a start reads the segment instead.
    """

    survey: Survey
    refusal: DamagedLog | None
    clean: bool
    holder: int
    side_files: list[str]
    foreign: list[str]
    bad_indexes: list[str]

    @property
    def whole(self) -> bool:
        """Whether nothing that was confirmed is damaged: at the most, the last append is torn."""
        return self.refusal is None

    @property
    def damages(self) -> list[Damage]:
        """The places of damage, torn appends apart."""
        return [each for each in self.survey.damages if not each.torn]

    @property
    def damaged_bytes(self) -> int:
        """The bytes of those places; what is gone without a trace has none."""
        return sum(each.end - each.start for each in self.damages)

    @property
    def torn(self) -> list[Damage]:
        """What a crash left of the last append."""
        return [each for each in self.survey.damages if each.torn]


def survey_of(directory: DataDirectory, ops: FileOps) -> Survey:
    """Look at the first header of every segment file, and at the log start, and put the files in order."""
    files, log_start, size_bytes = [], 1, 0
    votes: Counter[bytes] = Counter()
    starts: dict[bytes, int] = {}
    for name in directory.listing().segments:
        data = read_file(directory.at(name), ops)
        at = layout.later_header_at(data, 0, None, 0)
        header = layout.decode_header(data, at) if at is not None else None
        origin = header.origin if header else None
        files.append(SegmentFile(name, origin))
        if origin is None:
            continue
        votes[origin.store_id] += 1
        for info in _infos(data, origin):
            starts[origin.store_id] = max(starts.get(origin.store_id, 1), info.log_start)
            size_bytes = max(size_bytes, info.segment_bytes)
    store_id = votes.most_common(1)[0][0] if votes else b""
    log_start = starts.get(store_id, 1)
    return _ordered(files, store_id, log_start, size_bytes)


def _ordered(files: list[SegmentFile], store_id: bytes, log_start: int, size_bytes: int) -> Survey:
    strangers = [str(f.name) for f in files if f.origin and f.origin.store_id != store_id]
    chosen: dict[int, SegmentFile] = {}
    leftovers = []
    for file in sorted(files, key=_place):
        number = _place(file)[0]
        if str(file.name) in strangers:
            continue
        if number < log_start:
            leftovers.append(str(file.name))
            continue
        if number in chosen:
            leftovers.append(str(chosen[number].name))
        chosen[number] = file
    missing = [
        number for number in range(log_start, max(chosen, default=0)) if number not in chosen
    ]
    order = [chosen[number] for number in sorted(chosen)]
    survey = Survey(store_id, order, leftovers, strangers, missing, segment_bytes=size_bytes)
    survey.lost_bytes = len(missing) * size_bytes
    return survey


def _place(file: SegmentFile) -> tuple[int, int, bool]:
    """Return what puts files in order; a file without any header counts as what its name says, and least."""
    origin = file.origin
    if origin is None:
        return file.name.number, -1, False
    return origin.segment, origin.generation, not file.misnamed


def _infos(data: bytes, origin: Origin) -> Iterator[SegmentInfo]:
    """Yield what the log's own batches in a file state, those that hold."""
    for piece in pieces(data, origin):
        if piece.header is not None and piece.header.kind is not Kind.DATA:
            info = layout.decode_segment_info(piece.records)
            if info is not None:
                yield info


def read(
    survey: Survey, directory: DataDirectory, ops: FileOps
) -> Iterator[tuple[SegmentFile, Piece]]:
    """Yield the pieces of all segments in their order, and complete the survey on the way."""
    for file in survey.order:
        data = read_file(directory.at(file.name), ops)
        origin = file.origin or Origin(survey.store_id, file.name.number, file.name.generation)
        for piece in pieces(data, origin):
            _note_gap(survey, file, piece)
            _note(survey, file, piece)
            yield file, piece


def _note(survey: Survey, file: SegmentFile, piece: Piece) -> None:
    header = piece.header
    if header is not None:
        survey.number = max(survey.number, header.number)
        survey.kind = header.kind
        survey.epoch = max(survey.epoch, header.epoch)
        survey.batches += piece.whole and header.kind is Kind.DATA
        survey.records += len(piece.records) * (header.kind is Kind.DATA)
    if piece.whole:
        return
    number = header.number if header is not None else 0
    first = number or survey.number + 1
    survey.lost_bytes += piece.end - piece.start
    survey.damages.append(
        Damage(
            str(file.name), piece.start, piece.end, first, number,
            len(piece.records), len(piece.broken), torn=False,
        )
    )  # fmt: skip


def _note_gap(survey: Survey, file: SegmentFile, piece: Piece) -> None:
    """Learn from a header which batches stood in the damage before it, or that they are gone without a trace."""
    header = piece.header
    if header is None or not survey.number or header.number <= survey.number + 1:
        return
    first, last = survey.number + 1, header.number - 1
    if survey.damages and survey.damages[-1].first_batch == first:
        survey.damages[-1] = replace(survey.damages[-1], last_batch=last)
        return
    survey.lost_bytes += survey.segment_bytes
    survey.damages.append(
        Damage(str(file.name), piece.start, piece.start, first, last, 0, 0, False)
    )


def check(
    directory: DataDirectory, ops: FileOps, each: Callable[[Piece], object] = lambda _: None
) -> Checked:
    """Read everything and judge it; `each` gets every piece.

    Raises:
        NewerFormat, NotWritable: it cannot be judged.
    """
    with _speaking(directory):
        listing, state = directory.listing(), directory.read_state()
        survey = survey_of(directory, ops)
        for _, piece in read(survey, directory, ops):
            each(piece)
        refusal = _refusal(Recovery(directory, ops), survey)
    if refusal is not None:
        _judge_end(survey, state, directory.read_failed())
    _tell_torn(survey, refusal, state)
    side_files = [name for name in sorted(os.listdir(directory.path)) if _is_side_file(name)]
    return Checked(
        survey, refusal, state is not None and state.clean, lock_holder(directory.at("lock")),
        side_files, [name for name in listing.foreign if name not in side_files],
        list(_bad_indexes(survey, directory, ops)),
    )  # fmt: skip


def _bad_indexes(survey: Survey, directory: DataDirectory, ops: FileOps) -> Iterator[str]:
    segments = {file.name.index: file.name for file in survey.order}
    for index in directory.listing().indexes:
        name = segments.get(index)
        if name is None:
            yield f"{index} (there is no such segment)"
            continue
        data = read_file(directory.at(index), ops)
        used = whole_bytes(data, name.number, name.generation, survey.store_id)
        if used < len(data):
            yield f"{index} (from byte {used} of {len(data)} on)"


def _refusal(recovery: Recovery, survey: Survey) -> DamagedLog | None:
    try:
        for _ in recovery.batches():
            continue
    except DamagedLog as refusal:
        return refusal
    except NewerFormat as newer:
        # One flipped bit makes the version in the magic a newer one; batches that can be read deny it.
        damaged = [
            each for each in survey.damages if newer.path.endswith(each.file) and not each.start
        ]
        if not damaged or not survey.batches:
            raise
        return DamagedLog(newer.path, 0, damaged[0].first_batch, damaged[0].last_batch, "no header")
    return None


def _judge_end(survey: Survey, state: State | None, failed: int | None) -> None:
    """Bound what is lost behind the last header: damaged bytes there, and what is gone without a trace."""
    newest = max([_place(file)[0] for file in survey.order], default=0)
    gone = range(newest + 1, state.segment + 1 if state is not None else 0)
    survey.missing += gone
    unclosed = state is not None and state.clean and survey.kind is not Kind.FOOTER
    damaged_end = bool(survey.damages) and not survey.damages[-1].last_batch
    if damaged_end:
        survey.end_bytes = survey.damages[-1].end - survey.damages[-1].start
    if (
        gone
        or not survey.damages
        or (unclosed and not damaged_end)
        or (failed or 0) > survey.number
    ):
        survey.end_lost = True
        missed_bytes = max(1, len(gone)) * survey.segment_bytes
        survey.end_bytes += missed_bytes
        survey.lost_bytes += missed_bytes


def _tell_torn(survey: Survey, refusal: DamagedLog | None, state: State | None) -> None:
    """Mark what recovery takes for a torn append, or would if there were no damage before it."""
    if refusal is None:  # then it is all there is
        survey.damages = [replace(each, torn=True) for each in survey.damages]
        return
    if not survey.damages or survey.damages[-1].last_batch or (state is not None and state.clean):
        return
    last = survey.damages[-1]
    at_end = survey.order and last.file == str(survey.order[-1].name)
    if at_end and not (refusal.path.endswith(last.file) and refusal.offset == last.start):
        survey.damages[-1] = replace(last, torn=True)


def _is_side_file(name: str) -> bool:
    return name == "failed" or name.startswith(("torn-", "damaged-")) or name.endswith(".index")


@contextmanager
def _speaking(directory: DataDirectory) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise NotWritable(
            directory.path, "read the data directory", str(exc), "check its owner and its rights"
        ) from exc


def lock_holder(path: str) -> int:
    """Return the process that holds the lock of a data directory, without touching it; 0: none is known to."""
    try:
        status = os.stat(path)
        locks = Path("/proc/locks").read_text()
    except OSError:  # no lock file: a copy; no /proc: another system, where nothing can be said
        return 0
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for words in map(str.split, locks.splitlines()):
        if "FLOCK" in words and where in words:
            return int(words[words.index(where) - 1])
    return 0
