"""Rows of the command table: what is set for one key of a queue."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE, text, whole
from minibroker.contract.rows import REQUIRED, Answer, Command, Phase

KEY_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "key_set",
        (Phase.OPEN,),
        Answer.REPLY,
        (
            QUEUE,
            text("key", limits.MAX_KEY_BYTES, "The key.", REQUIRED),
            whole(
                "weight",
                limits.MAX_KEY_WEIGHT,
                "Messages that it gives in its turn; 0: as it is. Without one it is 1.",
                "messages",
                default=0,
            ),
            whole(
                "pause_ms",
                limits.MAX_DELAY_MS,
                "Hand out nothing of it for so long; 0: it goes on, its circuit closes; the largest value: until "
                "it is resumed. Left out: as it is.",
                "ms",
                default=None,
            ),
        ),
        (),
        "Set the weight of a key, pause it, or let it go on.",
        repeatable=True,
    ),
    Command(
        "keys",
        (Phase.OPEN,),
        Answer.REPLY,
        (QUEUE,),
        (),
        "Show the keys of a queue whose circuit is open, or for which something is set, the first thousand.",
        repeatable=True,
    ),
)
