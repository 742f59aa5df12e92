"""Rows of the command table: groups of retained logs, and reading without one."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE, text, whole
from minibroker.contract.rows import REQUIRED, Answer, Command, Phase

# Where a group, or a reader, starts; the first one if nothing is said.
FIRST, LAST, NEXT, OFFSET, TIME = STARTS = "first", "last", "next", "offset", "time"

_MAIN = (Phase.OPEN,)
_GROUP = text("group", limits.MAX_QUEUE_NAME_CHARS, "Name of the group in its log.", REQUIRED)
_START = (
    text(
        "start",
        limits.MAX_MODE_CHARS,
        "first, last (the newest message), next (what comes from now on), offset or time.",
        FIRST,
    ),
    whole("at", 2**53, "The offset, or the time: ms since 1970.", default=0),
)

LOG_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "log_group_set",
        _MAIN,
        Answer.REPLY,
        (QUEUE, _GROUP, *_START),
        (),
        "Make a group of a retained log, unless it is there: a queue `LOG@GROUP`.",
        repeatable=True,
    ),
    Command(
        "log_group_seek",
        _MAIN,
        Answer.REPLY,
        (
            QUEUE,
            _GROUP,
            *_START,
            text(
                "key",
                limits.MAX_KEY_BYTES,
                "Of what has ended, only messages of this key come again.",
            ),
        ),
        (),
        "Move a group to another position; what is in it ends there, and comes again if it stands behind that.",
    ),
    Command(
        "log_show",
        _MAIN,
        Answer.REPLY,
        (QUEUE, text("after", limits.MAX_QUEUE_NAME_CHARS, "`next` of the page before.")),
        (),
        "Show what a retained log has, and its groups, by their names, with positions and lags.",
        repeatable=True,
    ),
    Command(
        "log_read",
        _MAIN,
        Answer.LOG,
        (
            QUEUE,
            *_START,
            whole(
                "most_bytes",
                limits.MAX_LOG_READ_BYTES,
                "About how many bytes to answer with: whole frames, one at the least.",
                "bytes",
                default=1024 * 1024,
            ),
            whole(
                "wait_ms",
                limits.MAX_WAIT_MS,
                "How long to wait for a message where there is none.",
                "ms",
                default=0,
            ),
        ),
        (),
        "Read a retained log without a group; changes nothing.",
        repeatable=True,
    ),
)
