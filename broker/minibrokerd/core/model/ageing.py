"""How long what is ready waits behind higher priorities: what the setting `max_wait_ms` has a group do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minibrokerd.core.model.keys import in_steps
from minibrokerd.core.model.no_lanes import NO_LANES

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store


def arrange_wait(store: Store, queue: Queue) -> None:
    """Have the group of a queue bound the wait as its settings say; what has a key already is noted in steps."""
    group = queue.group
    was_ms, group.max_wait_ms = group.max_wait_ms, queue.setting("max_wait_ms")
    if bool(was_ms) == bool(group.max_wait_ms) or group.lanes is NO_LANES:
        return
    for lanes in group.lanes.levels:
        if group.max_wait_ms:
            in_steps(store, lanes.use_ages())
        else:
            lanes.ages = None
