"""What a retained log, and a group of one, do when something changed in them."""

from __future__ import annotations

from minibrokerd.core.model.retained import Feeder, RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.archiving import archive
from minibrokerd.core.verbs.feeding import feed


def look(store: Store, retained: RetainedLog | Feeder) -> bool:
    """Do what is due; return whether that is all: nobody consumes a log."""
    if isinstance(retained, Feeder):
        if not retained.queue.group.paused:
            feed(store, retained)
        return False
    archive(store, retained)
    return True
