"""The table of frames that the server sends, with their fields and columns; protocol.md prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerFrame:
    """One row of the table of frames that the server sends."""

    op: str
    fields: Mapping[str, str]
    columns: tuple[str, ...]
    meaning: str


SERVER_FRAMES: Mapping[str, ServerFrame] = {
    row.op: row
    for row in (
        ServerFrame(
            "welcome",
            {
                "session": "id of the session",
                "secret": "to be shown by resume and attach",
                "epoch": "boot epoch of the server; grows with each start",
                "version": "version of the server",
                "heartbeat_ms": "send something at least this often",
                "max_frame_bytes": "largest frame that a client may send, but for one with the result of a "
                "single message; its segments take no larger publish",
                "max_message_bytes": "largest headers + body of one message",
                "lost": "resume: number of entries in the run column, the begun messages that are lost",
                "cancelled": "resume: so many of these, the first ones, were cancelled; left out: none",
                "known": "resume: the server still knew this session",
                "recalls": "true: it asks for messages back from clients that accept that",
                "through": "true: one confirm answers several frames of clients that accept that",
                "begins": "true: it begins messages as it hands them out to handlers that wait (section 5.3)",
            },
            ("run",),
            "The connection is open.",
        ),
        ServerFrame(
            "confirm",
            {
                "sequence": "of the frame that is answered",
                "request": "instead, where the frame had no sequence",
                "results": "one map for each part. publish: origin, first (sequence of its first message), "
                "durability (sync or replicated, lazy, memory), and known (entries of the run column that belong "
                "to this part, section 5.9; left out: none). route: routed (so many queues, each with an entry of "
                "the run column), queues (their names, spaces between them), durability. begin and settle: lost "
                "(entries of the run column that belong to this part: these messages were not settled, code "
                "lease_lost)",
                "through": "of the last frame that is answered: all from `sequence` on held settlements that lost "
                "nothing, and `results` is empty; otherwise left out",
            },
            ("run",),
            "The frame was applied, and is as safe as the durability says.",
        ),
        ServerFrame(
            "reply",
            {
                "request": "of the frame that is answered",
                "value": "what the command returns, a map",
            },
            (),
            "The answer to a request.",
        ),
        ServerFrame(
            "deliver",
            {
                "consumer": "to whom; or request, as the answer to receive",
                "queue": "the queue",
                "token": "of this delivery; larger than every earlier one, over restarts too",
                "lease_ms": "how long a begun message is held without a renewal",
                "count": "messages",
                "runs": "entries in the delivery_run column",
                "begun": "true: the leases run already (receive, and section 5.3); otherwise left out",
                "max_attempts": "attempts of these messages, where their publish named it; otherwise left out",
                "results": "true: the queue keeps what its messages come to (`complete`); otherwise left out",
                "after": "list of [origin, sequence, done, not done]: those of these messages that waited for "
                "others, and how many of them ended how; otherwise left out",
                "keyed": "true: a key column follows, one entry for each run; otherwise left out",
            },
            ("delivery_run", "key"),
            "Messages, now held by this connection.",
        ),
        ServerFrame(
            "messages",
            {
                "request": "of the peek",
                "count": "messages",
                "next": "bytes: `after` of the next page; left out: this was the last one",
            },
            ("info",),
            "The answer to peek; lengths and blob hold headers and bodies.",
        ),
        ServerFrame(
            "log",
            {
                "request": "of the log_read",
                "count": "messages",
                "runs": "entries in the delivery_run column, whose sequences are offsets",
                "start": "the offset that was asked for, or the first one there is behind it: messages below it "
                "may stand in front, since frames come as they are stored",
                "next": "the offset to go on at",
                "first": "the first offset that the log has",
                "stop": "one behind its last",
                "damaged": "so many messages at the most could not be read; left out: none",
                "keyed": "true: a key column follows, one entry for each run; otherwise left out",
            },
            ("delivery_run", "key"),
            "The answer to log_read; lengths and blob hold headers and bodies.",
        ),
        ServerFrame(
            "error",
            {
                "code": "section 8",
                "text": "what was tried, what happened, what to do next",
                "retryable": "whether the same command can succeed later",
                "retry_ms": "wait this long first (may be missing)",
                "sequence": "of the refused frame, or",
                "request": "of the refused frame; neither: the connection is closed after this frame",
                "leader": "of not_leading: host:port of the server that leads (may be missing)",
            },
            (),
            "A frame was refused and left no trace, or the connection ends.",
        ),
        ServerFrame(
            "cancelled",
            {
                "queue": "the queue",
                "runs": "entries in the run column: messages that this client has, by their tokens",
                "by": "name of the client that cancelled them",
            },
            ("run",),
            "Messages of this client were cancelled: stop work on them; what it says of them is lost.",
        ),
        ServerFrame(
            "recall",
            {
                "queue": "the queue",
                "runs": "entries in the run column: messages that this client holds, by their tokens",
            },
            ("run",),
            "Another consumer has nothing to do: give back those of these messages that have not begun.",
        ),
        ServerFrame("pong", {"request": "of the ping (may be missing)"}, (), "A sign of life."),
        ServerFrame("goodbye", {"text": "why"}, (), "The server is stopping; reconnect later."),
    )
}
