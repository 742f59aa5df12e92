"""The table of reasons: why a message is not running, and what would let it go on.

The server answers `explain` with the code of a row; the sentence is made of the row by whoever shows it, so there
is one wording for the clients, the command line, the page and protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """One row; printed as one row of protocol.md, section "Reasons".

    `says` and `release` are about the message; `{queue}`, `{by}`, `{since}` and `{until}` stand for what the
    answer has under these names.
    """

    code: str
    states: str  # in which the message may be
    says: str
    release: str  # what would let it go on; empty: nothing, it has ended


_WAITS: Final = "READY"
ENDED: Final = "ENDED"  # the state of a message that is not there
_ROWS: Final = (
    Reason(
        "not_synced",
        "ENTERING",
        "it was published, and the log is not safe up to it",
        "the sync of its batch, usually within milliseconds; if not, the disk is slow or full",
    ),
    Reason(
        "delayed",
        "DELAYED",
        "it is delayed until {until}",
        "its time",
    ),
    Reason(
        "retry_delay",
        "DELAYED",
        "an attempt ended at {since} ({by}), and the next one waits until {until}",
        "its time",
    ),
    Reason(
        "waits_for",
        "DELAYED",
        "it waits for {by}",
        "the end of these",
    ),
    Reason(
        "dlq_full",
        "DELAYED",
        "it died at {since}, and {by}, where it goes, is full",
        "room there: redrive or purge some of it, or let it hold more (max_messages)",
    ),
    Reason(
        "queue_paused",
        _WAITS,
        "{queue} is paused since {since}, by {by}",
        "`minibroker resume {queue}`, or the end of the pause, if it has one: {until}",
    ),
    Reason(
        "circuit_open",
        _WAITS,
        "the circuit of {queue} is open since {since}: {by}",
        "its time: at {until} one message is tried",
    ),
    Reason(
        "circuit_probing",
        _WAITS,
        "the circuit of {queue} is open since {since}, and one message at a time is tried: {by}",
        "an ack of that message",
    ),
    Reason(
        "key_circuit_open",
        _WAITS,
        "the circuit of its key is open since {since}: {by}",
        "its time: at {until} one message of the key is tried; or a resume of the key",
    ),
    Reason(
        "key_circuit_probing",
        _WAITS,
        "the circuit of its key is open since {since}, and one message at a time is tried: {by}",
        "an ack of that message, or a resume of the key",
    ),
    Reason(
        "no_space",
        _WAITS,
        "the server hands out nothing while its disk is full",
        "free space on the disk of the server",
    ),
    Reason(
        "starting",
        _WAITS,
        "the server has just started, and waits until {until} for workers of {queue} to come back: {by}",
        "those workers, or that time",
    ),
    Reason(
        "stopping",
        _WAITS,
        "the server is stopping, and hands out nothing more",
        "its next start",
    ),
    Reason(
        "no_consumer",
        _WAITS,
        "nobody consumes {queue}",
        "a worker for {queue}",
    ),
    Reason(
        "key_busy",
        _WAITS,
        "its key has as many messages in work as it may (key_concurrency): {by}",
        "the end of one of those",
    ),
    Reason(
        "key_waits",
        _WAITS,
        "one before it of its key, {by}, was in work and waits until {until}, and their order is strict",
        "the end of that one: its next attempt, a cancel, or its death",
    ),
    Reason(
        "key_paused",
        _WAITS,
        "{by} paused its key until {until}",
        "that time, or a resume of the key",
    ),
    Reason(
        "key_rate",
        _WAITS,
        "as many messages of its key were handed out as may be (key_rate), until {until}",
        "that time",
    ),
    Reason(
        "rate",
        _WAITS,
        "as many messages of {queue} were handed out as may be (rate), until {until}",
        "that time",
    ),
    Reason(
        "outranked",
        _WAITS,
        "before it there is ready of a higher priority: {by}",
        "the end of those; the setting max_wait_ms of {queue} would bound that time",
    ),
    Reason(
        "outranked_until",
        _WAITS,
        "before it there is ready of a higher priority: {by}",
        "the end of those, or else {until}: from then on its priority goes before theirs (max_wait_ms)",
    ),
    Reason(
        "not_active",
        _WAITS,
        "one consumer at a time takes from {queue} (active_consumers), and what {by} began has not ended",
        "the end of that: its ack, or its lease",
    ),
    Reason(
        "no_credit",
        _WAITS,
        "all who consume {queue} have as many messages as they may have: {by}",
        "the end of one of those, a larger prefetch, or one more worker",
    ),
    Reason(
        "worker_paused",
        _WAITS,
        "who consumes {queue} and could take it is paused: {by}",
        "the end of that pause (`minibroker pauses` lists them), or another worker",
    ),
    Reason(
        "not_reading",
        _WAITS,
        "who consumes {queue} and could take it does not read, or let a lease end in silence: {by}",
        "a sign of life of one of these workers, or another worker",
    ),
    Reason(
        "reading_back",
        _WAITS,
        "it left memory, and is being read back from the log",
        "the read, usually within milliseconds",
    ),
    Reason(
        "in_line",
        _WAITS,
        "others are before it, and those who consume {queue} take them first",
        "its turn",
    ),
    Reason(
        "next",
        _WAITS,
        "nothing is in its way",
        "nothing is needed: it is handed out now",
    ),
    Reason(
        "held",
        "HELD",
        "{by} has it in advance (prefetch), and has not begun it",
        "that worker begins it, or gives it back; a smaller prefetch leaves it to others",
    ),
    Reason(
        "running",
        "BEGUN",
        "{by} works on it since {since}; the lease ends at {until} unless it is renewed",
        "an ack, a nack, or the end of the lease",
    ),
    Reason(
        "worker_away",
        "BEGUN",
        "{by} began it at {since}, and is not connected now; the lease ends at {until}",
        "that worker comes back and goes on, or else the end of the lease",
    ),
    Reason(
        "dead",
        "READY",
        "it died at {since} ({by}), and waits in {queue}",
        "a redrive of {queue}",
    ),
    Reason("acked", ENDED, "{by} acked it at {since}", ""),
    Reason("purged", ENDED, "{by} purged it at {since}", ""),
    Reason("cancelled", ENDED, "{by} cancelled it at {since}", ""),
    Reason("replaced", ENDED, "{by} has its unique key, and replaced it at {since}", ""),
    Reason("dropped", ENDED, "{queue} was full at {since}, and it was the oldest that waited", ""),
    Reason("duplicate", ENDED, "it is a duplicate of {by}, and was not stored", ""),
    Reason("ttl_expired", ENDED, "its time to live was over at {since}, before it had begun", ""),
    Reason("damaged", ENDED, "what the log has of it is damaged: it was set aside at {since}", ""),
    Reason(
        "deleted",
        ENDED,
        "its queue was deleted, or ended by itself: unused, or with its session; how the message ended is not "
        "remembered",
        "",
    ),
    Reason(
        "ended",
        ENDED,
        "it is not there: it ended, or a start left its id out; how it ended is not remembered",
        "",
    ),
    Reason("unknown", ENDED, "no message has had this id", ""),
)
REASONS: Final[Mapping[str, Reason]] = {row.code: row for row in _ROWS}
assert len(REASONS) == len(_ROWS), "every reason needs its own row"
