"""Rows of the command table: what looks at queues and what waits in them, and what a person does to them."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import (
    AFTER,
    IDS,
    QUEUE,
    QUEUE_BYTES,
    RUNS,
    SETTINGS,
    WHERE,
    text,
    whole,
)
from minibroker.contract.rows import REQUIRED, Answer, Command, Phase

_MAIN = (Phase.OPEN,)

QUEUE_COMMANDS: Final[tuple[Command, ...]] = (
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
            AFTER,
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
        "redrive",
        _MAIN,
        Answer.REPLY,
        (
            QUEUE,
            RUNS,
            whole("count", 2**53, "Most messages to send back; 0: all.", "messages", default=0),
            *WHERE,
        ),
        ("run",),
        "Send dead messages of a DLQ back to their origin: those of the runs (token 0), those of a filter, or the "
        "oldest.",
    ),
    Command(
        "error_groups",
        _MAIN,
        Answer.REPLY,
        (
            QUEUE,
            whole(
                "count",
                limits.MAX_GROUPED,
                "Most messages to look at; 0: as many as one answer may be about.",
                "messages",
                default=0,
            ),
            AFTER,
            *WHERE,
        ),
        (),
        "The dead messages of a DLQ that wait, by what they died of; changes nothing.",
        repeatable=True,
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
            text("state", limits.MAX_STATE_CHARS, "All that are READY, DELAYED, HELD or BEGUN."),
            text("client", limits.MAX_CLIENT_NAME_BYTES, "All that a client of this name has."),
        ),
        ("run",),
        "End messages that wait, and those that workers have: they are told, and cannot settle them any more.",
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
        "queue_declare",
        _MAIN,
        Answer.REPLY,
        (QUEUE, SETTINGS),
        (),
        "Create the queue with these settings; one that is there stays as it is.",
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
)
