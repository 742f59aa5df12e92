"""The command table: every operation on the wire, with its fields, columns, phase and answer.

Server dispatch, header validation, protocol.md and the tests read these rows; to add a command, add a
row to one of these modules and one to `core/verbs/operations.py`. Sizes and times are integers, in bytes and
milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from minibroker.contract.exchange_commands import EXCHANGE_COMMANDS
from minibroker.contract.fields import COLUMNS
from minibroker.contract.key_commands import KEY_COMMANDS
from minibroker.contract.log_commands import LOG_COMMANDS
from minibroker.contract.message_commands import MESSAGE_COMMANDS
from minibroker.contract.pause_commands import PAUSE_COMMANDS
from minibroker.contract.policy_commands import POLICY_COMMANDS
from minibroker.contract.queue_commands import QUEUE_COMMANDS
from minibroker.contract.result_commands import RESULT_COMMANDS
from minibroker.contract.rows import REQUIRED, Answer, Column, Command, Field, Kind, Phase
from minibroker.contract.schedule_commands import SCHEDULE_COMMANDS
from minibroker.contract.schema_commands import SCHEMA_COMMANDS
from minibroker.contract.session_commands import SESSION_COMMANDS

COMMANDS: Final[Mapping[str, Command]] = {
    row.op: row
    for row in (
        *SESSION_COMMANDS,
        *MESSAGE_COMMANDS,
        *RESULT_COMMANDS,
        *QUEUE_COMMANDS,
        *KEY_COMMANDS,
        *SCHEDULE_COMMANDS,
        *PAUSE_COMMANDS,
        *EXCHANGE_COMMANDS,
        *POLICY_COMMANDS,
        *LOG_COMMANDS,
        *SCHEMA_COMMANDS,
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
