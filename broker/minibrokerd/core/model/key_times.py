"""How long messages wait and run by groups of keys: tenants, kinds of jobs, whatever stands in a key.

The setting `times_by` says which part of a key names its group. The first of them have times of their own, of late
and since the start, and keep them; all others of a queue come to one, `others`. A queue without the setting has no
object here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.histogram import Histogram
from minibrokerd.core.model.messages import Item, Message, State
from minibrokerd.core.model.timed import Lasting, windows_of
from minibrokerd.core.model.times import Times

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.sums import Sums

MOST_OF_QUEUE: Final = 20
MOST_OF_SERVER: Final = 100
OTHERS: Final = "others"  # a group of this name is among them
LETTERS: Final = {"before-colon": ":", "before-slash": "/", "before-dot": ".", "before-dash": "-"}


class KeyGroup:
    """The times of one group: two windows of late, and what is over."""

    __slots__ = ("lasting", "times")

    def __init__(self, now_ms: int) -> None:
        self.times = Times(now_ms, 0)
        self.lasting = Lasting()

    def at(self, now_ms: int) -> Times:
        """Return the window of this time."""
        old = self.times
        if now_ms < old.until_ms:
            return old
        new = self.times = old.at(now_ms, 0)
        self.lasting.turn(old, new)
        old.before = None
        return new

    def since_start(self, name: str) -> Histogram:
        """Return all `waits`, or `runs`."""
        found = Histogram()
        for each in (self.lasting, *windows_of(self.times)):
            found.add(getattr(each, name))
        return found


class KeyTimes:
    """The groups of one queue; `letter` ends the name of one in a key, empty: the whole key is its name."""

    __slots__ = ("_sums", "groups", "letter")

    def __init__(self, sums: Sums, letter: str) -> None:
        self._sums = sums
        self.letter = letter
        self.groups: dict[str, KeyGroup] = {}

    def of(self, key: str, now_ms: int) -> Times:
        """Return where a time of a key is to be noted now."""
        name = key.partition(self.letter)[0] if self.letter else key
        group = self.groups.get(name)
        if group is None:
            group = self._made(name, now_ms)
        return group.at(now_ms)

    def _made(self, name: str, now_ms: int) -> KeyGroup:
        there = self.groups.keys() - {OTHERS}
        if len(there) >= MOST_OF_QUEUE or self._sums.key_groups >= MOST_OF_SERVER:
            name = OTHERS
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = KeyGroup(now_ms)
            self._sums.key_groups += name != OTHERS
        return group

    def forget(self) -> None:
        """The queue ends, or other groups are wanted."""
        self._sums.key_groups -= len(self.groups.keys() - {OTHERS})
        self.groups = {}

    def said(self, now_ms: int) -> Iterator[dict[str, Any]]:
        """Yield what came of late in each group in which something did."""
        for name, group in self.groups.items():
            found = group.at(now_ms).said(now_ms, 0)
            if found["waits"]["count"] or found["runs"]["count"]:
                yield {"group": name, "waits": found["waits"], "runs": found["runs"]}


def arrange_key_times(store: Store, queue: Queue) -> None:
    """Have times by groups of keys as the settings of a queue say; those of other groups are forgotten."""
    by, group = str(queue.settings["times_by"]), queue.group
    letter = LETTERS.get(by, "") if by != "queue" else None
    old = group.key_times
    if letter != (old.letter if old is not None else None):
        forget_key_times(store, group)
        group.key_times = None if letter is None else KeyTimes(store.sums, letter)
        if letter is not None:
            store.sums.by_key_group[group] = None


def forget_key_times(store: Store, group: Group) -> None:
    """The times by groups of keys are not asked for any more."""
    if group.key_times is not None:
        group.key_times.forget()
        del store.sums.by_key_group[group]
        group.key_times = None


def note_ended(store: Store, times: KeyTimes, item: Item) -> None:
    """Note messages that are acked: what was not begun waited until now, and began and ended in one turn."""
    window, count = times.of(item.key, store.now_ms), item.stop - item.first
    if isinstance(item, Message) and item.state is State.BEGUN:
        window.runs.add(store.unix_ms - item.started_unix_ms, count)
    else:
        window.waits.add(store.unix_ms - item.block.unix_ms, count)
        window.runs.add(0, count)
