"""What the shell owes the core after one apply. The order of the fields is the order of execution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import Block
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.retained import FileWork
from minibrokerd.log.seam import Record


class Outgoing:
    """One frame for one connection; it leaves when batch `rests_on` is synced (0: at once).

    `bodies` are (block, first sequence, stop): the shell fills in lengths and blob. `pieces` is for the shell,
    which may encode the frame while it waits.
    """

    __slots__ = ("bodies", "columns", "connection", "header", "pieces", "rests_on")

    def __init__(
        self,
        connection: int,
        rests_on: int,
        header: dict[str, Any],
        columns: bytes = b"",
        bodies: Sequence[tuple[Block, int, int]] = (),
    ) -> None:
        self.connection = connection
        self.rests_on = rests_on
        self.header = header
        self.columns = columns
        self.bodies = bodies
        self.pieces: list[Any] | None = None


class ReadBack:
    """Extents of a shelf to be read back, from index `low` up to `high`; answered by the command `Loaded`.

    `forward_bytes`: not to be handed out, but to be written again, about so much of it.
    """

    __slots__ = ("forward_bytes", "high", "lanes", "low", "queue", "run", "shelf")

    def __init__(self, queue: Queue, lanes: Lanes, run: ColdRun, forward_bytes: int = 0) -> None:
        self.queue = queue
        self.lanes = lanes
        self.run = run
        self.shelf = run.shelf
        self.low = run.at
        self.high = run.chunk(forward_bytes)
        if forward_bytes:
            # What follows may be of the same publish, and goes into one record with it then.
            self.high = min(self.high + 1, len(run.firsts))
        self.forward_bytes = forward_bytes

    @property
    def is_void(self) -> bool:
        """Whether nobody waits for this any more: the queue was purged, or has ended."""
        return self.lanes.queue is None


class Note:
    """Something that an operator should read in the log of the server: an event of its table, with fields."""

    __slots__ = ("event", "fields", "is_warning")

    def __init__(
        self, event: str, fields: dict[str, int | str], *, is_warning: bool = False
    ) -> None:
        self.event = event
        self.fields = fields
        self.is_warning = is_warning


class Effects:
    """Effects of one apply: records first, then what rests on them, then what ends.

    `wake`: the records are not only leases, so they should be synced soon even if nobody waits. `lazy`: some
    records were confirmed before their sync, which must follow within `LAZY_SYNC_MS`. `reads` are asked for
    at once, and rest on nothing. `notes` are for the operator. `ended` are records for batches that end with
    them, each with its number and bytes, before `records`: of an apply that emitted more than one batch may have.
    `files` is work on the files of retained logs (retained.py); None: none.
    `has_outcome`: one of them has the outcome of the frame beside what it says.
    """

    __slots__ = (
        "closes",
        "ended",
        "files",
        "has_outcome",
        "lazy",
        "notes",
        "outgoing",
        "reads",
        "record_bytes",
        "records",
        "wake",
    )

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.record_bytes = 0  # of `records`
        self.outgoing: list[Outgoing] = []
        # What is rare costs the other applies no list. Of these two there are only a few: they grow by `+=`.
        self.ended: tuple[tuple[int, list[Record], int], ...] = ()
        self.closes: tuple[int, ...] = ()  # connections that end, after what was sent to them
        # Of these there is one for each of many queues, at times.
        self.reads: list[ReadBack] | tuple[()] = ()
        self.notes: list[Note] | tuple[()] = ()
        self.wake = False
        self.lazy = False
        self.has_outcome = False
        self.files: list[FileWork] | None = None

    def ask(self, work: FileWork) -> None:
        """Have something done with the files of a retained log."""
        if self.files is None:
            self.files = []
        self.files.append(work)

    def read(self, asked: ReadBack) -> None:
        """Have something read back, at once."""
        if not self.reads:
            self.reads = []
        self.reads.append(asked)

    def note(self, event: str, **fields: int | str) -> None:
        """Have an event written to the log of the server."""
        self._tell(Note(event, fields))

    def warn(self, event: str, **fields: int | str) -> None:
        """Have an event written there that somebody should look at."""
        self._tell(Note(event, fields, is_warning=True))

    def _tell(self, note: Note) -> None:
        if not self.notes:
            self.notes = []
        self.notes.append(note)
