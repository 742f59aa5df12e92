"""Rows of the command table: publishing, what hands messages out, and what settles them."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import (
    ATTEMPTS,
    CONSUMER,
    LEASE,
    NAMES,
    PRIORITY,
    QUEUE,
    RUNS,
    TTL,
    text,
    whole,
)
from minibroker.contract.rows import Answer, Command, Field, Kind, Phase

_MAIN = (Phase.OPEN,)
_BOTH = (Phase.OPEN, Phase.ATTACHED)

MESSAGE_COMMANDS: Final[tuple[Command, ...]] = (
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
            PRIORITY,
            text(
                "unique_mode",
                limits.MAX_MODE_CHARS,
                "What becomes of a message whose unique key is held: drop, replace or keep-latest (section 5.9); "
                "empty: drop.",
            ),
            whole(
                "dedupe_window_ms",
                limits.MAX_DELAY_MS,
                "How long dedupe ids are remembered; 0: as the queue says.",
                "ms",
                default=0,
            ),
            TTL,
            Field(
                "after",
                Kind.BYTES,
                b"",
                limits.MAX_AFTER_BYTES,
                "bytes",
                "A run column (token 0): the message waits until all of these have ended (section 5.14).",
            ),
            whole(
                "after_step",
                1,
                "1: it waits until all have ended that the parts before it publish, too.",
                default=0,
            ),
            text(
                "if_dead",
                limits.MAX_MODE_CHARS,
                "What becomes of it if some of these did not end as done: run or dead-letter; empty: dead-letter.",
            ),
        ),
        ("delay_ms", "key", "encoding", "unique_key", "dedupe_id"),
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
            whole(
                "key_delay_ms",
                limits.MAX_DELAY_MS,
                "Hand out nothing of its key for so long, either.",
                "ms",
                default=0,
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
        (
            QUEUE,
            RUNS,
            whole(
                "recalled",
                1,
                "1: the server asked for them (frame `recall`), or began them as it handed them out, and no "
                "handler saw them; what is held, or begun so, goes back as if it "
                "had never been handed out.",
                default=0,
            ),
        ),
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
)
