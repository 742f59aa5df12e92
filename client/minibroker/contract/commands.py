"""The command table: every operation on the wire, with its fields, columns, phase and answer.

Server dispatch, header validation, protocol.md and the tests read these rows; to add a command, add a
row here and a handler in the server. Sizes and times are integers, in bytes and milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from minibroker.contract import limits
from minibroker.contract.fields import (
    ATTEMPTS,
    CLIENT,
    COLUMNS,
    CONSUMER,
    IDS,
    LEASE,
    NAMES,
    PROTOCOL,
    QUEUE,
    QUEUE_BYTES,
    RUNS,
    SECRET,
    SESSION,
    SETTINGS,
    TOKEN,
    text,
    whole,
)
from minibroker.contract.rows import REQUIRED, Answer, Column, Command, Field, Kind, Phase

_MAIN = (Phase.OPEN,)
_BOTH = (Phase.OPEN, Phase.ATTACHED)
_LOGIN = (Phase.NEW,)

COMMANDS: Mapping[str, Command] = {
    row.op: row
    for row in (
        Command(
            "hello", _LOGIN, Answer.WELCOME, (PROTOCOL, CLIENT, TOKEN), (), "Open a new session."
        ),
        Command(
            "resume",
            _LOGIN,
            Answer.WELCOME,
            (PROTOCOL, SESSION, SECRET, CLIENT, RUNS, TOKEN),
            ("run",),
            "Continue a session on a new connection. The runs name the messages that were begun; "
            "what the server can no longer give back is named in the welcome.",
        ),
        Command(
            "attach",
            _LOGIN,
            Answer.WELCOME,
            (PROTOCOL, SESSION, SECRET, TOKEN),
            (),
            "Open the second connection of a session, for heartbeats, renewals and releases.",
        ),
        Command(
            "publish",
            _MAIN,
            Answer.CONFIRM,
            (
                QUEUE,
                whole(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Messages in this part; 0 is a protocol error.",
                    "messages",
                ),
                whole(
                    "delay_ms",
                    limits.MAX_DELAY_MS,
                    "Delay of all, if no column says.",
                    "ms",
                    default=0,
                ),
                text("key", limits.MAX_KEY_BYTES, "Key of all, if no column says."),
                whole("encoding", 1, "Encoding of all, if no column says.", default=0),
                NAMES,
                ATTEMPTS,
                LEASE,
            ),
            ("delay_ms", "key", "encoding"),
            "Store messages; alone, or in a step with acks and other publishes (section 3).",
        ),
        Command(
            "consume",
            _MAIN,
            Answer.REPLY,
            (
                QUEUE,
                CONSUMER,
                whole(
                    "prefetch",
                    limits.MAX_PREFETCH,
                    "Most unsettled messages at a time.",
                    "messages",
                ),
                LEASE,
            ),
            (),
            "Deliver messages of the queue until cancelled, or change the prefetch of the consumer.",
            repeatable=True,
        ),
        Command(
            "cancel",
            _MAIN,
            Answer.REPLY,
            (CONSUMER,),
            (),
            "Deliver no more; what the consumer has not begun goes back to its place, uncharged.",
        ),
        Command(
            "receive",
            _MAIN,
            Answer.DELIVER,
            (
                QUEUE,
                whole(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Most messages to return; 0: one.",
                    "messages",
                ),
                whole(
                    "wait_ms",
                    limits.MAX_WAIT_MS,
                    "How long to wait for the first.",
                    "ms",
                    default=0,
                ),
                LEASE,
            ),
            (),
            "Deliver once, begun: what is ready, else what comes within wait_ms, else none.",
            repeatable=True,
        ),
        Command(
            "begin",
            _BOTH,
            Answer.NONE,
            (QUEUE, RUNS),
            ("run",),
            "A handler starts: the lease clock runs.",
        ),
        Command("ack", _MAIN, Answer.CONFIRM, (QUEUE, RUNS), ("run",), "Done: the messages end."),
        Command(
            "nack",
            _MAIN,
            Answer.CONFIRM,
            (
                QUEUE,
                RUNS,
                whole(
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
            (QUEUE, RUNS),
            ("run", "error_class", "error_text"),
            "Can never succeed: to the DLQ now.",
        ),
        Command(
            "release",
            _BOTH,
            Answer.CONFIRM,
            (QUEUE, RUNS),
            ("run",),
            "Not done, not failed: back to its place, uncharged; after 1 s from the second time on.",
        ),
        Command(
            "extend",
            _BOTH,
            Answer.CONFIRM,
            (QUEUE, RUNS, LEASE),
            ("run",),
            "Renew the lease of begun messages from now.",
        ),
        Command(
            "peek",
            _MAIN,
            Answer.MESSAGES,
            (
                QUEUE,
                whole(
                    "count",
                    limits.MAX_MESSAGES_PER_FRAME,
                    "Most messages to show.",
                    "messages",
                    default=100,
                ),
                whole(
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
                text(
                    "state",
                    limits.MAX_STATE_CHARS,
                    "READY, DELAYED, HELD or BEGUN; empty: every state.",
                ),
                IDS,
                text(
                    "order",
                    limits.MAX_STATE_CHARS,
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
                QUEUE,
                RUNS,
                whole("count", 2**53, "Most messages to send back; 0: all.", "messages", default=0),
            ),
            ("run",),
            "Send dead messages of a DLQ back to their origin: those of the runs (token 0), or the oldest.",
        ),
        Command(
            "purge",
            _MAIN,
            Answer.REPLY,
            (QUEUE, IDS),
            ("run",),
            "End every message of the queue, held ones too; or those of the runs that wait.",
        ),
        Command(
            "queue_set",
            _MAIN,
            Answer.REPLY,
            (QUEUE, SETTINGS),
            (),
            "Create the queue, or change its settings; those not named stay.",
            repeatable=True,
        ),
        Command(
            "queue_show",
            _MAIN,
            Answer.REPLY,
            (QUEUE,),
            (),
            "The settings of a queue.",
            repeatable=True,
        ),
        Command(
            "queue_delete",
            _MAIN,
            Answer.REPLY,
            (
                QUEUE,
                whole("force", 1, "1: end the messages that it and its DLQ have.", default=0),
            ),
            (),
            "End a queue and its DLQ. It must have no consumers and, without force, no messages.",
        ),
        Command(
            "stats",
            _MAIN,
            Answer.REPLY,
            (
                text("queue", QUEUE_BYTES, "One queue; empty: the server and all queues."),
                whole(
                    "after",
                    2**32 - 1,
                    "`next` of the page before: only queues with a larger number.",
                    default=0,
                ),
                whole(
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
            (whole("withdrawn", 2**32 - 1, "Request number that nobody waits for any more."),),
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
                QUEUE,
                text(
                    "target",
                    limits.MAX_QUEUE_NAME_CHARS,
                    "Name of the queue that gets them.",
                    REQUIRED,
                ),
                IDS,
                whole("count", 2**53, "Most messages to move; 0: all.", "messages", default=0),
            ),
            ("run",),
            "Move messages that wait to another queue: those of the runs, or the oldest.",
        ),
        Command(
            "queue_declare",
            _MAIN,
            Answer.REPLY,
            (QUEUE, SETTINGS),
            (),
            "Create the queue with these settings; one that is there stays as it is.",
            repeatable=True,
        ),
        Command(
            "explain",
            _MAIN,
            Answer.REPLY,
            (
                text("queue", QUEUE_BYTES, "Where to look first; empty: where it was published."),
                RUNS,
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
                QUEUE,
                RUNS,
                whole("delay_ms", limits.MAX_DELAY_MS, "Ready so long from now.", "ms", default=0),
                whole(
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
        Command(
            "cancel_messages",
            _MAIN,
            Answer.REPLY,
            (
                QUEUE,
                whole(
                    "runs",
                    limits.MAX_RUNS_PER_FRAME,
                    "Number of entries in the run column: these messages (token 0). 0: by the fields below.",
                    "entries",
                    default=0,
                ),
                text("key", limits.MAX_KEY_BYTES, "All of this key."),
                text(
                    "state", limits.MAX_STATE_CHARS, "All that are READY, DELAYED, HELD or BEGUN."
                ),
                text("client", limits.MAX_CLIENT_NAME_BYTES, "All that a client of this name has."),
            ),
            ("run",),
            "End messages that wait, and those that workers have: they are told, and cannot settle them any more.",
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
