"""Rows of the command table: queues and clients that rest for a while."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE_BYTES, text, whole
from minibroker.contract.rows import Answer, Command, Phase

_MAIN = (Phase.OPEN,)
_QUEUE = text("queue", QUEUE_BYTES, "The queue; empty: clients.")
_CLIENT = text(
    "client", limits.MAX_CLIENT_NAME_BYTES, "Or the clients of this name; empty: all, with `below`."
)

PAUSE_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "pause",
        _MAIN,
        Answer.REPLY,
        (
            _QUEUE,
            _CLIENT,
            text("below", limits.MAX_VERSION_BYTES, "Of these, those of a lower version."),
            whole(
                "for_ms",
                limits.MAX_DELAY_MS,
                "For so long; 0: until it is ended.",
                "ms",
                default=0,
            ),
            whole("until_unix_ms", 2**53, "Or until this time.", "ms", default=0),
            whole(
                "deadline_ms",
                limits.MAX_DELAY_MS,
                "Of clients: what they still have after so long goes back; 0: never.",
                "ms",
                default=0,
            ),
        ),
        (),
        "Hand out nothing of a queue, or nothing to clients; what is in hand stays there.",
        repeatable=True,
    ),
    Command(
        "unpause",
        _MAIN,
        Answer.REPLY,
        (_QUEUE, _CLIENT),
        (),
        "Let a queue, or clients, go on.",
        repeatable=True,
    ),
    Command(
        "pauses",
        _MAIN,
        Answer.REPLY,
        (),
        (),
        "Show what is paused.",
        repeatable=True,
    ),
)
