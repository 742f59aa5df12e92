"""Rows of the command table: what a message came to, and how far it is."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import IDS, QUEUE, QUEUE_BYTES, RUNS, text, whole
from minibroker.contract.rows import Answer, Command, Phase

_MAIN = (Phase.OPEN,)

RESULT_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "complete",
        _MAIN,
        Answer.CONFIRM,
        (
            QUEUE,
            RUNS,
            whole(
                "kept_ms",
                limits.MAX_RESULT_MS,
                "How long to keep the results; 0: as the queue says (`result_ms`), and if that is 0, not at all.",
                "ms",
                default=0,
            ),
        ),
        ("run", "result"),
        "Done, with a result: the messages of each run end, and what they came to is kept.",
    ),
    Command(
        "progress",
        _MAIN,
        Answer.CONFIRM,
        (QUEUE, RUNS, whole("permille", 1_000, "How much of the work is done.", "1/1000")),
        ("run", "note"),
        "How far the work on messages is: told to those who wait for their results, and not logged.",
    ),
    Command(
        "result",
        _MAIN,
        Answer.REPLY,
        (
            text("queue", QUEUE_BYTES, "Where it was published, or ended; empty: anywhere."),
            IDS,
            whole("wait_ms", limits.MAX_WAIT_MS, "How long to wait for it.", "ms", default=0),
            whole(
                "mark",
                2**63 - 1,
                "Answer as soon as the progress is another than that of this mark, too (0: of none); "
                "left out: with the result only.",
                default=None,
            ),
        ),
        ("run",),
        "What a message came to: now, or when it has within wait_ms.",
        repeatable=True,
    ),
)
