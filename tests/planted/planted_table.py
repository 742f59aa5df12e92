"""All bugs that are planted, in the order in which they are tried."""

from __future__ import annotations

from typing import Final

from backup_mutants import BACKUP_MUTANTS
from capability_mutants import CAPABILITY_MUTANTS
from client_mutants import CLIENT_MUTANTS
from core_mutants import CORE_MUTANTS
from handed_mutants import HANDED_MUTANTS
from key_mutants import KEY_MUTANTS
from limit_mutants import LIMIT_MUTANTS
from log_mutants import LOG_MUTANTS
from log_world_mutants import LOG_WORLD_MUTANTS
from message_mutants import MESSAGE_MUTANTS
from operating_mutants import OPERATING_MUTANTS
from order_mutants import ORDER_MUTANTS
from owner_mutants import OWNER_MUTANTS
from policy_mutants import POLICY_MUTANTS
from retained_log_mutants import RETAINED_LOG_MUTANTS
from retained_mutants import RETAINED_MUTANTS
from routing_mutants import ROUTING_MUTANTS
from schema_mutants import SCHEMA_MUTANTS
from session_mutants import SESSION_MUTANTS
from sheaf_mutants import SHEAF_MUTANTS
from shell_mutants import SHELL_MUTANTS
from standing_mutants import STANDING_MUTANTS
from step_mutants import STEP_MUTANTS
from stream_mutants import STREAM_MUTANTS
from transition_mutants import TRANSITION_MUTANTS

MUTANTS: Final = (
    LOG_MUTANTS
    + SHELL_MUTANTS
    + CORE_MUTANTS
    + MESSAGE_MUTANTS
    + LIMIT_MUTANTS
    + SHEAF_MUTANTS
    + STEP_MUTANTS
    + TRANSITION_MUTANTS
    + HANDED_MUTANTS
    + KEY_MUTANTS
    + CAPABILITY_MUTANTS
    + OPERATING_MUTANTS
    + ORDER_MUTANTS
    + POLICY_MUTANTS
    + ROUTING_MUTANTS
    + SCHEMA_MUTANTS
    + OWNER_MUTANTS
    + RETAINED_LOG_MUTANTS
    + RETAINED_MUTANTS
    + LOG_WORLD_MUTANTS
    + SESSION_MUTANTS
    + CLIENT_MUTANTS
    + BACKUP_MUTANTS
    + STREAM_MUTANTS
    + STANDING_MUTANTS
)
BY_NAME: Final = {mutant.name: mutant for mutant in MUTANTS}
assert len(BY_NAME) == len(MUTANTS), "each has a name of its own"
