"""Queues that one consumer at a time takes from: who has the turn, and who waits for it on the bench.

Only who has the turn stands in the line of the group. Who gets it next, and when, is the matter of verbs/turns.py.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.deliveries import Consumer

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

ONE: Final = "one"  # of the setting `active_consumers`


class Single:
    """Whose turn it is in one queue."""

    __slots__ = ("bench", "client", "holder", "since_unix_ms")

    def __init__(self) -> None:
        self.holder: Consumer | None = None  # it may be gone, and what it had begun still at work
        self.since_unix_ms = 0  # it has the turn
        self.client = ""  # that has the turn, or had it last
        self.bench: OrderedDict[Consumer, None] = OrderedDict()  # in the order in which they came

    def admits(self, consumer: Consumer) -> bool:
        """Whether a consumer may stand in line; else it is on the bench from now on."""
        if consumer is self.holder:
            return True
        consumer.waiting = True
        self.bench[consumer] = None
        return False

    def leave(self, consumer: Consumer) -> bool:
        """Take a consumer from the bench; False: it is not there."""
        if consumer not in self.bench:
            return False
        consumer.waiting = False
        del self.bench[consumer]
        return True

    def said(self) -> dict[str, Any]:
        """Return what is shown of it: who has the turn, if somebody has, and how many wait for it."""
        said: dict[str, Any] = {"waiting": len(self.bench)}
        holder = self.holder
        if holder is not None and holder.active:
            said |= {
                "client": self.client,
                "connection": holder.connection,
                "since_unix_ms": self.since_unix_ms,
            }
        return said


def arrange_single(store: Store, queue: Queue) -> None:
    """Have one consumer at a time, or all of them, as the settings say."""
    group, singles = queue.group, store.sums.singles
    single = singles.get(group)
    wants = queue.settings["active_consumers"] == ONE
    if wants == (single is not None):
        return
    if single is None:
        line, group.consumers = group.consumers or (), None
        singles[group] = single = Single()
        single.bench.update(dict.fromkeys(line))
    else:
        line = singles.pop(group).bench
        for consumer in line:
            group.stand_in_line(consumer)
    if line:
        store.touch(group)
