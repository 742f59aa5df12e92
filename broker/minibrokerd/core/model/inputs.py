"""What the shell can ask of the core. Frames carry parts as the command table describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from minibrokerd.core.model.effects import ReadBack
    from minibrokerd.core.model.extents import Extent
    from minibrokerd.core.model.retained import Extension, Fetch, Piece
    from minibrokerd.log.seam import Record


# What must be there before an operation may be applied, the most demanding last. No Enum: each look at a member of
# one is a call in Python 3.11, and a publish asks four times.
NEEDS_NOTHING: Final = 0
NEEDS_RESERVE: Final = 1  # some of what the log keeps for settlements
NEEDS_SPACE: Final = 2  # in log and memory, for something that is no message
NEEDS_ROOM: Final = 3  # the same for messages


class Slice:
    """What one part of a frame has of its columns; `size` is about how many bytes it brings.

    Of a publish, `extent` has columns, lengths and blob as they came.
    """

    __slots__ = ("columns", "extent", "size")

    def __init__(self, columns: memoryview, extent: Extent | None = None, size: int = 0) -> None:
        self.columns = columns
        self.extent = extent
        self.size = size


class Frame(Slice):
    """One frame of a client whose header was checked against the command table.

    `parts` have the fields of their rows as attributes, and `row`: what the server does with each. `needs` is what
    the most demanding of them needs. A frame of one part is the slice of that part; of several, each has one of
    `slices`. `is_step`: all of it happens or nothing does. `size` and `checksum` are of the whole payload;
    `jitter` is a random number from -1 to 1 for this frame's retry delays. `waits` is the number of a consumer
    whose handler waits; None: nothing is said of any.
    """

    __slots__ = (
        "answered_below",
        "checksum",
        "connection",
        "is_step",
        "jitter",
        "needs",
        "parts",
        "request",
        "sequence",
        "slices",
        "waits",
    )

    def __init__(
        self,
        connection: int,
        parts: Sequence[Any],
        columns: memoryview,
        request: int | None = None,
        sequence: int | None = None,
        answered_below: int = 1,
        extent: Extent | None = None,
        checksum: int = 0,
        size: int = 0,
        jitter: float = 0.0,
        needs: int = NEEDS_NOTHING,
        slices: Sequence[Slice] = (),
        is_step: bool = False,
        waits: int | None = None,
    ) -> None:
        # All by itself: one is made for each frame, and a call of the other __init__ would be one more. Who makes
        # very many names no argument: with names it takes four times as long.
        self.columns = columns
        self.extent = extent
        self.size = size
        self.connection = connection
        self.parts = parts
        self.needs = needs
        self.slices = slices
        self.is_step = is_step
        self.waits = waits
        self.request = request
        self.sequence = sequence
        self.answered_below = answered_below
        self.checksum = checksum
        self.jitter = jitter


class Scope(Protocol):
    """Which queues a connection may touch, where the server asks for tokens."""

    def covers(self, queue: str) -> bool:
        """Whether this one."""
        ...


class Hello:
    """A new connection opens a session. Without a `scope` it may touch every queue; so may those of `Resume`."""

    __slots__ = ("client", "connection", "scope", "version")

    def __init__(
        self, connection: int, client: str, scope: Scope | None = None, version: str = ""
    ) -> None:
        self.version = version
        self.connection = connection
        self.client = client
        self.scope = scope


class Resume:
    """A new connection continues a session whose secret the shell has checked.

    `runs` is the run column of what the client has begun.
    """

    __slots__ = ("client", "connection", "runs", "scope", "session", "version")

    def __init__(
        self,
        connection: int,
        session: int,
        client: str,
        runs: memoryview,
        scope: Scope | None = None,
        version: str = "",
    ) -> None:
        self.version = version
        self.connection = connection
        self.session = session
        self.client = client
        self.runs = runs
        self.scope = scope


class Attach:
    """A second connection of a session whose secret the shell has checked."""

    __slots__ = ("connection", "session")

    def __init__(self, connection: int, session: int) -> None:
        self.connection = connection
        self.session = session


class Disconnected:
    """A connection ended; everything received on it was applied before."""

    __slots__ = ("connection",)

    def __init__(self, connection: int) -> None:
        self.connection = connection


class Flow:
    """A connection's output is too long (`paused`), or short enough again."""

    __slots__ = ("connection", "paused")

    def __init__(self, connection: int, paused: bool) -> None:
        self.connection = connection
        self.paused = paused


class Synced:
    """The log has synced every batch up to `batch`."""

    __slots__ = ("batch",)

    def __init__(self, batch: int) -> None:
        self.batch = batch


class Tick:
    """Time has come: `next_deadline_ms` was reached. `jitter` as in `Frame`.

    `has_room`: what is due of schedules may be published, as log and memory have room for it.
    """

    __slots__ = ("has_room", "jitter")

    def __init__(self, jitter: float = 0.0, has_room: bool = True) -> None:
        self.jitter = jitter
        self.has_room = has_room


class Space:
    """The disk is short of space (`short`): leases and error texts are not logged. While some is being made
    (`pause`), nothing is handed out either.
    """

    __slots__ = ("pause", "short")

    def __init__(self, short: bool, pause: bool) -> None:
        self.short = short
        self.pause = pause


class Forward:
    """Write again what lives and stands in batches up to `upto`: their segment is to be freed.

    About `most_bytes` of records are written in one apply, and `most_cold_bytes` when messages that were read back
    are written again: there each apply costs a way to the disk. A batch ends where `rest_bytes` do, those of the
    segment that is written (0: it does not matter): what stays empty there is what copying costs on a full disk.
    `Core.clear_below` says when nothing is left.
    """

    __slots__ = ("most_bytes", "most_cold_bytes", "rest_bytes", "upto")

    def __init__(
        self, upto: int, most_bytes: int, most_cold_bytes: int = 0, rest_bytes: int = 0
    ) -> None:
        self.upto = upto
        self.most_bytes = most_bytes
        self.most_cold_bytes = max(most_cold_bytes, most_bytes)
        self.rest_bytes = rest_bytes


class Freeze:
    """Let about `most_bytes` of messages that wait for long yet leave memory; their records stay in the log.

    `is_easy`: there is room, so only what costs little to read back leaves, and nothing that is asked for soon.
    """

    __slots__ = ("is_easy", "most_bytes")

    def __init__(self, most_bytes: int, *, is_easy: bool = False) -> None:
        self.most_bytes = most_bytes
        self.is_easy = is_easy


class Loaded:
    """What a `ReadBack` asked for: a record for each frame, None for one that does not verify.

    There are none where a walk asked, and what it asked for is not there any more. `rest_bytes` are for what is
    written again, as in `Forward`.
    """

    __slots__ = ("asked", "records", "rest_bytes")

    def __init__(self, asked: ReadBack, records: Sequence[Record | None]) -> None:
        self.asked = asked
        self.records = records
        self.rest_bytes = 0


class Archived:
    """The files of a log have what `Archive` said, synced; `has` is what they have now."""

    __slots__ = ("has", "log")

    def __init__(self, log: int, has: Extension) -> None:
        self.log = log
        self.has = has


class Fetched:
    """What a `Fetch` asked for: whole frames, from the one with the offset on.

    `start`: the offset that was asked for, or found by a time, or the first one there is, if that is behind it.
    `next_offset` is where to go on, `is_at_end`: nothing is there yet. About `behind` messages stand behind these;
    up to `damaged` between did not verify. `error`: nothing could be read; "": it could.
    """

    __slots__ = (
        "asked",
        "behind",
        "damaged",
        "error",
        "has",
        "is_at_end",
        "next_offset",
        "pieces",
        "start",
    )

    def __init__(
        self,
        asked: Fetch,
        pieces: Sequence[Piece],
        start: int,
        next_offset: int,
        has: Extension,
        *,
        is_at_end: bool,
        behind: int = 0,
        damaged: int = 0,
        error: str = "",
    ) -> None:
        self.error = error
        self.asked = asked
        self.behind = behind
        self.pieces = pieces
        self.start = start
        self.next_offset = next_offset
        self.has = has
        self.is_at_end = is_at_end
        self.damaged = damaged


class LogHas:
    """The files of a log have this now: retention has deleted something, or a start has found it."""

    __slots__ = ("has", "log")

    def __init__(self, log: int, has: Extension) -> None:
        self.log = log
        self.has = has


Command = (
    Frame
    | Hello
    | Resume
    | Attach
    | Disconnected
    | Flow
    | Synced
    | Tick
    | Space
    | Forward
    | Freeze
    | Loaded
    | Archived
    | Fetched
    | LogHas
)
