"""What the API answers with and takes, as types: JSON is made and read by them, the OpenAPI document is of them.

Times are unix milliseconds or milliseconds, sizes bytes, as everywhere in minibroker; names end in the unit.
"""

from __future__ import annotations

from typing import Any

import msgspec

from minibrokerd.http.log_groups import OffsetsView, PositionView


class QueueRow(msgspec.Struct):
    """A queue in a list: what is in it now, and what was counted since the start of the broker.

    95 of 100 messages waited, and ran, for less than `..._p95_ms` in the last one to two minutes; -1: none did.
    """

    name: str
    is_dlq: bool
    oldest_ready_ms: int
    counts: dict[str, int]
    wait_p95_ms: int
    run_p95_ms: int
    paused: bool
    resumes_unix_ms: int  # when a pause ends by itself; 0: it does not, or there is none


class QueueList(msgspec.Struct):
    """A page of queues; `next` is the `after` of the page behind it, empty on the last one."""

    queues: list[QueueRow]
    total: int
    next: str


class CircuitView(msgspec.Struct):
    """The circuit of a queue or key: `closed`, `open` or `probing` (one message is tried), since when and why."""

    state: str
    why: str  # with the class of the last error; empty: it is closed
    since_unix_ms: int  # 0: it is closed
    until_unix_ms: int  # when a message is tried; 0: not by time


class KeyCircuitsView(msgspec.Struct):
    """How many keys of a queue have a circuit that is not closed, and how many others failed of late."""

    open: int
    failing: int


class ActiveView(msgspec.Struct):
    """Who has the turn in a queue with one active consumer, and how many wait for it."""

    waiting: int
    client: str | None = None  # null: nobody has it; so of the others
    connection: int | None = None
    since_unix_ms: int | None = None


class QueueView(msgspec.Struct):
    """One queue; `circuit`, `key_circuits` and `active` are null where its settings want none.

    `origins` says where settings come from that are not the defaults: `chosen`, `policy NAME`, `limit NAME`.
    """

    name: str
    is_dlq: bool
    oldest_ready_ms: int
    counts: dict[str, int]
    settings: dict[str, int | str]
    origins: dict[str, str]
    dlq: str  # the name of its dead-letter queue; empty: there is none yet
    live_bytes: int
    paused: bool
    resumes_unix_ms: int
    circuit: CircuitView | None
    key_circuits: KeyCircuitsView | None
    active: ActiveView | None
    exclusive: str | None  # the client to whose session it belongs; null: to nobody's
    offsets: OffsetsView | None  # of a retained log
    group_of: PositionView | None  # of a group of one


class SettingView(msgspec.Struct):
    """A setting of queues, and what it means."""

    name: str
    default: int | str
    low: int
    high: int
    choices: list[str]
    meaning: str


class Attempt(msgspec.Struct):
    """One ended attempt of a message."""

    token: int
    started_unix_ms: int
    ended_unix_ms: int
    client: str
    cause: str
    error_class: str
    error_text: str


class Holder(msgspec.Struct):
    """Who has a message that is held or begun."""

    session: int
    client: str
    peer: str
    state: str
    since_unix_ms: int  # 0: it is not begun
    lease_ms: int
    lease_until_unix_ms: int = 0  # 0: it is not begun, so no lease runs


class MessageView(msgspec.Struct):
    """A message as it lies in a queue. `body_text` is a preview for people: never HTML, cut at `preview` bytes.

    `body_base64` is the whole body as bytes, of one message that was asked for alone.
    """

    id: str
    state: str
    key: str
    encoding: str
    published_unix_ms: int
    body_bytes: int
    body_text: str
    body_cut: bool
    headers: dict[str, Any]
    attempts: dict[str, int]  # that have ended, by cause
    redriven: int
    history: list[Attempt]
    history_dropped: int
    terms: dict[str, int]
    damaged: bool = False
    ready_unix_ms: int = 0  # 0: it is not delayed
    after: str = ""  # for whom it waits, where it comes after others
    body_base64: str | None = None
    holder: Holder | None = None
    attempt: int = 0  # the number of the one that runs, as its handler sees it; 0: none runs


class Explained(msgspec.Struct):
    """Why a message is not running; protocol.md, `explain`, has the table of the reasons."""

    id: str
    queue: str  # empty: it is nowhere
    state: str
    reason: str
    since_unix_ms: int  # 0: it is not known
    until_unix_ms: int  # 0: it ends by no time
    by: str
    says: str
    release: str
    text: str  # all of it, as a sentence


class ResultView(msgspec.Struct):
    """What a message came to, where its queue or its worker keeps that."""

    id: str
    # done, dead, cancelled, purged, ...; ended: without anything that is kept, or it never was; none: nothing yet
    state: str
    result: Any = None  # of a done one; bytes as text
    error_class: str = ""
    error_text: str = ""
    progress: float = 0.0  # of one that somebody works on, 0 to 1
    note: str = ""
    reason: str = ""  # of one that ended, as `explain` has it: its code, and in words
    says: str = ""


class FoundMessage(msgspec.Struct):
    """A message that was looked for in all queues."""

    queue: str
    message: MessageView


class MessageList(msgspec.Struct):
    """A page of messages; `next` is the `after` of the page behind it, empty on the last one."""

    messages: list[MessageView]
    next: str


class ErrorGroupView(msgspec.Struct):
    """Dead messages of one cause, class, and place in the code; without a place the text counts, digits as `#`."""

    cause: str
    error_class: str
    error_text: str  # the first line of one of them
    place: str  # file:line in function; empty: not known
    count: int
    first_unix_ms: int
    last_unix_ms: int
    example: str  # the id of one of them
    key: str  # names the group in a redrive


class ErrorGroups(msgspec.Struct):
    """The dead messages of a queue that wait, by what they died of, the most frequent first."""

    queue: str
    groups: list[ErrorGroupView]
    looked_at: int
    complete: bool  # False: there are more groups than are shown


class NewRedrive(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead messages the server is to send back by itself: these ids, or those of which all holds."""

    ids: list[str] | None = None
    group: str = ""
    cause: str = ""
    error_class: str = ""
    error_text: str = ""
    key: str = ""
    origin: str = ""
    older_ms: int = 0
    younger_ms: int = 0
    rate: int = 0  # messages a second; 0: as fast as it goes
    canary: int = 0  # so many go first; the others when these have ended and none died again


class RedriveView(msgspec.Struct):
    """How a redrive stands that the server does by itself."""

    state: str  # canary, watching, sending, done, stopped
    why: str
    by: str
    started_unix_ms: int
    ended_unix_ms: int  # 0: it is under way
    rate: int
    canary: int
    redriven: int


class RedriveState(msgspec.Struct):
    """The redrive of a queue; null: none was started within the last day."""

    redrive: RedriveView | None


class Done(msgspec.Struct):
    """How many messages an action was about."""

    messages: int


class Stored(msgspec.Struct):
    """A message was stored; or not, as a `duplicate`: its unique key or dedupe id was known, that has `id`."""

    id: str
    durability: str
    duplicate: bool = False
    replaced: str = ""  # the id of the one that waited under its unique key


class Select(msgspec.Struct, forbid_unknown_fields=True):
    """Which messages: these ids, or those of an error group, or the oldest `count`; nothing: all."""

    ids: list[str] | None = None
    group: str | None = None
    count: int = 0


class Cancel(msgspec.Struct, forbid_unknown_fields=True):
    """Which messages: these ids, or all that have this key, are in this state, are with a client of this name."""

    ids: list[str] | None = None
    key: str = ""
    state: str = ""
    client: str = ""


class NewJob(msgspec.Struct, forbid_unknown_fields=True):
    """What a message is to be: `json` is any JSON value, `text` a string, `base64` bytes; one of them."""

    json: Any = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    headers: dict[str, Any] = {}
    key: str = ""
    delay_ms: int = 0
    priority: int = 0
    ttl_ms: int = 0
    max_attempts: int = 0  # 0: as the queue says
    lease_ms: int = 0  # 0: likewise


class NewMessage(NewJob, kw_only=True, forbid_unknown_fields=True):
    """A message to be stored, or only if it is not there yet; docs/guide/unique.md says what `unique` may be."""

    unique_key: str = ""
    unique: str = "drop"
    dedupe_id: str = ""
    dedupe_window_ms: int = 0  # 0: as the queue says


class Retime(msgspec.Struct, forbid_unknown_fields=True):
    """When a message is ready: after a delay from now, or at a time. Nothing: now."""

    delay_ms: int = 0
    at_unix_ms: int = 0


class Requeue(msgspec.Struct, forbid_unknown_fields=True):
    """A message to be published again; what is not given is as in the original. The original stays where it is."""

    queue: str = ""  # empty: where it came from
    json: Any = msgspec.UNSET
    text: str | None = None
    base64: str | None = None
    headers: dict[str, Any] | None = None
    key: str | None = None


class Work(msgspec.Struct):
    """A consumer of a session: what it may have, and what it has."""

    queue: str
    prefetch: int
    outstanding: int


class SessionView(msgspec.Struct):
    """A client: where it is connected from, what it consumes, and how much it holds."""

    session: int
    client: str
    peers: list[str]
    connected: bool
    consumers: list[Work]
    holds: int
    begun: int
    oldest_begun_unix_ms: int  # 0: it has begun nothing
    unanswered_frames: int


class SessionList(msgspec.Struct):
    """Clients, those that hold most first."""

    sessions: list[SessionView]
    total: int


class QueueHolder(msgspec.Struct):
    """A client that consumes a queue, or has messages of it."""

    session: int
    client: str
    peer: str  # empty: it is away
    connected: bool
    consumers: int  # receives that wait among them
    prefetch: int  # of all these together
    held: int
    begun: int
    oldest_begun_unix_ms: int  # 0: it has begun nothing
    oldest_begun_id: str  # empty then, too


class HolderList(msgspec.Struct):
    """Who works on a queue, those that have most of its messages first."""

    holders: list[QueueHolder]
    total: int


class Held(msgspec.Struct):
    """A message that a client has."""

    queue: str
    id: str
    state: str
    since_unix_ms: int
    lease_ms: int


class Holding(msgspec.Struct):
    """What one client has; `more`: there is more than is shown."""

    session: SessionView
    messages: list[Held]
    more: bool


class Overview(msgspec.Struct):
    """The broker in numbers."""

    version: str
    phase: str
    now_unix_ms: int
    started_unix_ms: int
    recovered_percent: int
    recovered_ms: int
    queues: int
    messages: dict[str, int]
    counted: dict[str, int]
    oldest_ready_ms: int
    sessions: int
    connections: int
    connections_limit: int
    memory_bytes: int
    resident_bytes: int
    memory_limit_bytes: int
    log: LogView
    can_change: bool


class LogView(msgspec.Struct):
    """The log and its disk."""

    disk_bytes: int
    live_bytes: int
    segment_bytes: int
    segments: int
    reserve_segments: int
    lacks_space: bool
    written_bytes: int
    free_bytes: int  # on the file system of the data directory; -1: not known
    batches: int
    sync_p50_ms: float
    sync_p99_ms: float


class EventView(msgspec.Struct):
    """One event of the broker's log."""

    number: int
    time: str
    level: str
    event: str
    fields: dict[str, Any]


class EventList(msgspec.Struct):
    """The newest events, the newest last."""

    events: list[EventView]
    last: int


class LogLevel(msgspec.Struct):
    """From which level on events are logged; `configured`: where a SIGHUP or a start leads back to."""

    level: str
    configured: str


class NewLogLevel(msgspec.Struct, forbid_unknown_fields=True):
    """The level to log from: debug, info, warning or error; null: that of the configuration again."""

    level: str | None


class Failed(msgspec.Struct):
    """What is answered when nothing was done: a code that stays the same over releases, and what to do."""

    code: str
    text: str
