"""Rows of the command table: policies, which give settings to queues by patterns of their names, and limits."""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibroker.contract.fields import QUEUE_BYTES, SETTINGS, text, whole
from minibroker.contract.rows import REQUIRED, Answer, Command, Phase

_MAIN = (Phase.OPEN,)
_NAME = text("name", limits.MAX_QUEUE_NAME_CHARS, "Name of the policy.", REQUIRED)
_OPERATOR = whole(
    "operator", 1, "1: of the limits, which have names of their own; 0: of the policies.", default=0
)

POLICY_COMMANDS: Final[tuple[Command, ...]] = (
    Command(
        "policy_set",
        _MAIN,
        Answer.REPLY,
        (
            _NAME,
            text("pattern", QUEUE_BYTES, "Names of queues; `*` is any characters.", REQUIRED),
            SETTINGS,
            whole(
                "priority",
                limits.MAX_POLICY_PRIORITY,
                "Goes before policies of lower ones; 0 for limits.",
                default=0,
            ),
            _OPERATOR,
        ),
        (),
        "Make a policy, or say it anew: all queues whose names fit have these settings, but for those that "
        "somebody chose; or, as a limit, no more than these.",
        repeatable=True,
    ),
    Command(
        "policies",
        _MAIN,
        Answer.REPLY,
        (),
        (),
        "Show all policies and limits.",
        repeatable=True,
    ),
    Command(
        "policy_delete",
        _MAIN,
        Answer.REPLY,
        (_NAME, _OPERATOR),
        (),
        "End a policy, or a limit: queues have what the others say, or the defaults.",
        repeatable=True,
    ),
)
