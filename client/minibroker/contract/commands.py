"""The command table: every operation on the wire, with its fields, columns, phase and answer.

Server dispatch, header validation, protocol.md and the tests read these rows; to add a command, add a
row here and a handler in the server. Sizes and times are integers, in bytes and milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from minibroker.contract import limits
from minibroker.contract.rows import REQUIRED, Answer, Column, Command, Field, Kind, Phase


def _int(name: str, high: int, meaning: str, unit: str = "", default: object = REQUIRED) -> Field:
    return Field(name, Kind.INT, default, high, unit, meaning)


_QUEUE = Field(
    "queue",
    Kind.STR,
    REQUIRED,
    limits.MAX_QUEUE_NAME_CHARS + len(limits.DLQ_SUFFIX),
    "bytes",
    "Queue name.",
)
_RUNS = _int("runs", limits.MAX_RUNS_PER_FRAME, "Number of entries in the run column.", "entries")
_IDS = _int(
    "runs",
    limits.MAX_RUNS_PER_FRAME,
    "Number of entries in the run column; only these messages (token 0). 0: all.",
    "entries",
    default=0,
)
_PROTOCOL = _int("protocol", 2**16 - 1, "Protocol version; this document describes 1.")
_CLIENT = Field(
    "client",
    Kind.STR,
    "",
    limits.MAX_CLIENT_NAME_BYTES,
    "bytes",
    "Name of the client in logs and histories.",
)
_SESSION = _int("session", 2**64 - 1, "Session id from welcome.")
_SECRET = Field("secret", Kind.BYTES, REQUIRED, 64, "bytes", "Session secret from welcome.")
_TOKEN = Field(
    "token", Kind.STR, "", 128, "bytes", "Token, where the server asks for one; section 4.1."
)
_CONSUMER = _int(
    "consumer", 2**32 - 1, "Number the client gives the consumer; unique in its session."
)
_LEASE = _int(
    "lease_ms", limits.MAX_LEASE_MS, "Length of a lease; 0: as the queue says.", "ms", default=0
)
_ATTEMPTS = _int("max_attempts", 1_000, "Attempts before the DLQ; 0: as the queue says.", default=0)
_SETTINGS = Field("settings", Kind.MAP, REQUIRED, 32, "entries", "Names and values; section 7.")
_NAMES = Field(
    "columns", Kind.NAMES, (), 8, "names", "The columns that follow, in the order of the table."
)

COLUMNS: Mapping[str, Column] = {
    row.name: row
    for row in (
        Column("delay_ms", "Q", "Delay of each message in ms."),
        Column("key", "str", "Key of each message or run; empty: none."),
        Column("encoding", "B", "Body encoding of each message: 0 bytes, 1 msgpack."),
        Column(
            "run",
            "QIQI",
            "token, origin, first sequence, count: consecutive messages of one delivery.",
        ),
        Column("error_class", "str", "Class of the error of each run; empty: none."),
        Column("error_text", "str", "Text of the error of each run."),
        Column(
            "delivery_run",
            "IQIIBBQ",
            "origin, first sequence, count, attempt number, flags (1: marked), encoding, "
            "published_unix_ms: consecutive messages that share these.",
        ),
        Column("info", "str", "One msgpack map for each message."),
    )
}

_MAIN = (Phase.OPEN,)
_BOTH = (Phase.OPEN, Phase.ATTACHED)
_LOGIN = (Phase.NEW,)

COMMANDS: Mapping[str, Command] = {
    row.op: row
    for row in (
        Command(
            "hello", _LOGIN, Answer.WELCOME, (_PROTOCOL, _CLIENT, _TOKEN), (), "Open a new session."
        ),
        Command(
            "resume",
            _LOGIN,
            Answer.WELCOME,
            (_PROTOCOL, _SESSION, _SECRET, _CLIENT, _RUNS, _TOKEN),
            ("run",),
            "Continue a session on a new connection. The runs name the messages that were begun; "
            "what the server can no longer give back is named in the welcome.",
        ),
        Command(
            "attach",
            _LOGIN,
            Answer.WELCOME,
            (_PROTOCOL, _SESSION, _SECRET, _TOKEN),
            (),
            "Open the second connection of a session, for heartbeats, renewals and releases.",
        ),
        Command(
            "publish",
            _MAIN,
            Answer.CONFIRM,
            (
                _QUEUE,
                _int(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Messages in this part; 0 is a protocol error.",
                    "messages",
                ),
                _int(
                    "delay_ms",
                    limits.MAX_DELAY_MS,
                    "Delay of all, if no column says.",
                    "ms",
                    default=0,
                ),
                Field(
                    "key",
                    Kind.STR,
                    "",
                    limits.MAX_KEY_BYTES,
                    "bytes",
                    "Key of all, if no column says.",
                ),
                _int("encoding", 1, "Encoding of all, if no column says.", default=0),
                _NAMES,
                _ATTEMPTS,
                _LEASE,
            ),
            ("delay_ms", "key", "encoding"),
            "Store messages. The only part of its frame.",
        ),
        Command(
            "consume",
            _MAIN,
            Answer.REPLY,
            (
                _QUEUE,
                _CONSUMER,
                _int(
                    "prefetch",
                    limits.MAX_PREFETCH,
                    "Most unsettled messages at a time.",
                    "messages",
                ),
                _LEASE,
            ),
            (),
            "Deliver messages of the queue until cancelled, or change the prefetch of the consumer.",
            repeatable=True,
        ),
        Command(
            "cancel",
            _MAIN,
            Answer.REPLY,
            (_CONSUMER,),
            (),
            "Deliver no more; what the consumer has not begun goes back to its place, uncharged.",
        ),
        Command(
            "receive",
            _MAIN,
            Answer.DELIVER,
            (
                _QUEUE,
                _int(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Most messages to return; 0: one.",
                    "messages",
                ),
                _int(
                    "wait_ms",
                    limits.MAX_WAIT_MS,
                    "How long to wait for the first.",
                    "ms",
                    default=0,
                ),
                _LEASE,
            ),
            (),
            "Deliver once, begun: what is ready, else what comes within wait_ms, else none.",
            repeatable=True,
        ),
        Command(
            "begin",
            _BOTH,
            Answer.NONE,
            (_QUEUE, _RUNS),
            ("run",),
            "A handler starts: the lease clock runs.",
        ),
        Command("ack", _MAIN, Answer.CONFIRM, (_QUEUE, _RUNS), ("run",), "Done: the messages end."),
        Command(
            "nack",
            _MAIN,
            Answer.CONFIRM,
            (
                _QUEUE,
                _RUNS,
                _int(
                    "delay_ms",
                    limits.MAX_DELAY_MS,
                    "Back after this; left out: the queue's retry policy.",
                    "ms",
                    default=None,
                ),
            ),
            ("run", "error_class", "error_text"),
            "Failed: back after a delay, or to the DLQ if this was the last attempt.",
        ),
        Command(
            "reject",
            _MAIN,
            Answer.CONFIRM,
            (_QUEUE, _RUNS),
            ("run", "error_class", "error_text"),
            "Can never succeed: to the DLQ now.",
        ),
        Command(
            "release",
            _BOTH,
            Answer.CONFIRM,
            (_QUEUE, _RUNS),
            ("run",),
            "Not done, not failed: back to its place, uncharged; after 1 s from the second time on.",
        ),
        Command(
            "extend",
            _BOTH,
            Answer.CONFIRM,
            (_QUEUE, _RUNS, _LEASE),
            ("run",),
            "Renew the lease of begun messages from now.",
        ),
        Command(
            "peek",
            _MAIN,
            Answer.MESSAGES,
            (
                _QUEUE,
                _int(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Most messages to show.",
                    "messages",
                    default=100,
                ),
                _int(
                    "skip",
                    limits.MAX_PEEK_SKIP,
                    "Messages to pass over first.",
                    "messages",
                    default=0,
                ),
                Field(
                    "after",
                    Kind.BYTES,
                    b"",
                    limits.MAX_CURSOR_BYTES,
                    "bytes",
                    "`next` of the page before; empty: from the start.",
                ),
                Field(
                    "state",
                    Kind.STR,
                    "",
                    limits.MAX_STATE_CHARS,
                    "bytes",
                    "READY, DELAYED, HELD or BEGUN; empty: every state.",
                ),
                _IDS,
                Field(
                    "order",
                    Kind.STR,
                    "",
                    limits.MAX_STATE_CHARS,
                    "bytes",
                    "`due`: the delayed ones, by when they are due; empty: by ids.",
                ),
            ),
            ("run",),
            "Show messages with state, attempts and history; changes nothing.",
            repeatable=True,
        ),
        Command(
            "redrive",
            _MAIN,
            Answer.REPLY,
            (
                _QUEUE,
                _RUNS,
                _int("count", 2**53, "Most messages to send back; 0: all.", "messages", default=0),
            ),
            ("run",),
            "Send dead messages of a DLQ back to their origin: those of the runs (token 0), or the oldest.",
        ),
        Command(
            "purge",
            _MAIN,
            Answer.REPLY,
            (_QUEUE, _IDS),
            ("run",),
            "End every message of the queue, held ones too; or those of the runs that wait.",
        ),
        Command(
            "queue_set",
            _MAIN,
            Answer.REPLY,
            (_QUEUE, _SETTINGS),
            (),
            "Create the queue, or change its settings; those not named stay.",
            repeatable=True,
        ),
        Command(
            "queue_show",
            _MAIN,
            Answer.REPLY,
            (_QUEUE,),
            (),
            "The settings of a queue.",
            repeatable=True,
        ),
        Command(
            "queue_delete",
            _MAIN,
            Answer.REPLY,
            (
                _QUEUE,
                _int("force", 1, "1: end the messages that it and its DLQ have.", default=0),
            ),
            (),
            "End a queue and its DLQ. It must have no consumers and, without force, no messages.",
        ),
        Command(
            "stats",
            _MAIN,
            Answer.REPLY,
            (
                Field(
                    "queue",
                    Kind.STR,
                    "",
                    128,
                    "bytes",
                    "One queue; empty: the server and all queues.",
                ),
                _int(
                    "after",
                    2**32 - 1,
                    "`next` of the page before: only queues with a larger number.",
                    default=0,
                ),
                _int(
                    "count",
                    limits.MAX_STATS_QUEUES,
                    "Most queues to show; 0: as many as one answer may have.",
                    "queues",
                    default=0,
                ),
            ),
            (),
            "Counters.",
            repeatable=True,
        ),
        Command(
            "ping",
            _BOTH,
            Answer.PONG,
            (),
            (),
            "A sign of life; answered by pong.",
            repeatable=True,
            nameless=True,
        ),
        Command(
            "goodbye",
            _BOTH,
            Answer.NONE,
            (),
            (),
            "The client leaves on purpose; the session ends.",
            nameless=True,
        ),
        Command(
            "withdraw",
            _MAIN,
            Answer.REPLY,
            (_int("withdrawn", 2**32 - 1, "Request number that nobody waits for any more."),),
            (),
            "The caller of a receive or of a consume is gone: it ends, and what it was answered with and "
            "has not settled goes back to its place as if it had never been handed out.",
            repeatable=True,
        ),
        Command(
            "move",
            _MAIN,
            Answer.REPLY,
            (
                _QUEUE,
                Field(
                    "target",
                    Kind.STR,
                    REQUIRED,
                    limits.MAX_QUEUE_NAME_CHARS,
                    "bytes",
                    "Name of the queue that gets them.",
                ),
                _IDS,
                _int("count", 2**53, "Most messages to move; 0: all.", "messages", default=0),
            ),
            ("run",),
            "Move messages that wait to another queue: those of the runs, or the oldest.",
        ),
        Command(
            "queue_declare",
            _MAIN,
            Answer.REPLY,
            (_QUEUE, _SETTINGS),
            (),
            "Create the queue with these settings; one that is there stays as it is.",
            repeatable=True,
        ),
        Command(
            "explain",
            _MAIN,
            Answer.REPLY,
            (
                Field(
                    "queue",
                    Kind.STR,
                    "",
                    limits.MAX_QUEUE_NAME_CHARS + len(limits.DLQ_SUFFIX),
                    "bytes",
                    "Where to look first; empty: where it was published.",
                ),
                _RUNS,
            ),
            ("run",),
            "Why a message is not running, since when, and until when; changes nothing.",
            repeatable=True,
        ),
        Command(
            "retime",
            _MAIN,
            Answer.REPLY,
            (
                _QUEUE,
                _RUNS,
                _int("delay_ms", limits.MAX_DELAY_MS, "Ready so long from now.", "ms", default=0),
                _int(
                    "at_unix_ms",
                    2**53,
                    "Or at this time, by the clock of the server; 0: by the delay.",
                    "ms",
                    default=0,
                ),
            ),
            ("run",),
            "Let messages of the runs (token 0) that wait, ready or delayed, be ready at another time.",
            repeatable=True,
        ),
    )
}

__all__ = [
    "COLUMNS",
    "COMMANDS",
    "REQUIRED",
    "Answer",
    "Column",
    "Command",
    "Field",
    "Kind",
    "Phase",
]
