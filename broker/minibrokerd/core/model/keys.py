"""What a queue knows of its keys where it limits them: which are open, and which are closed for now.

A key is an object while something of it is in work (held or begun), or came back and holds its place; a queue
without such a limit has none. The lane of a closed key stands out of turn, with all that it has; it is looked
at again when something of that key ends or comes back, never by a walk over keys.

Where one message of a key is in work at a time their order is strict: one that was in work and waits again, for a
retry or because its worker gave it back, holds the key until it was handed out again or has ended. That it was in
work stands in the message itself (`came_back`), so a start knows the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.lanes import NO_LANES
from minibrokerd.core.model.messages import Item, Message

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.index import Index
    from minibrokerd.core.model.lanes import Lanes
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

STEP_LOOKS: Final = 2_000  # items or lanes that one step of other settings looks at, about 2 ms

BUSY: Final = "key_busy"  # why a key is closed: codes of minibroker.contract.reasons
WAITS: Final = "key_waits"

Place = tuple[int, int]  # origin and sequence


class Key:
    """One key: how many of its messages are in work, and which came back and hold their place."""

    __slots__ = ("back", "name", "order", "work")

    def __init__(self, name: str) -> None:
        self.name = name
        self.work = 0
        self.back: dict[Place, Message] | None = None
        self.order: list[Place] = []  # a heap of those, and of some that went

    def first(self) -> Message | None:
        """Return the one of those that came back whose turn is next."""
        if not self.back:
            return None
        while self.order[0] not in self.back:
            heappop(self.order)
        return self.back[self.order[0]]


class Keys:
    """The keys of a group that has a limit for them."""

    __slots__ = ("_by_name", "_group", "_store", "is_counting", "most")

    def __init__(self, store: Store, group: Group, most: int) -> None:
        """`most` is how many messages of a key may be in work at a time."""
        self._store = store
        self._group = group
        self._by_name: dict[str, Key] = {}
        self.most = most
        self.is_counting = False  # after other settings: nothing is handed out meanwhile

    @property
    def is_strict(self) -> bool:
        """Whether the messages of a key are worked on in their order."""
        return self.most == 1

    def get(self, name: str) -> Key | None:
        """Return a key, if something of it is in work or holds its place."""
        return self._by_name.get(name)

    def __len__(self) -> int:
        return len(self._by_name)

    # -- for those who hand out -------------------------------------------------------------------

    def is_open(self, name: str, lanes: Lanes) -> bool:
        """Whether something of a key may be handed out now, out of these lanes."""
        key = self._by_name.get(name)
        return key is None or (self._is_open(key) and _is_next_in(lanes, key.first()))

    def room(self, name: str) -> int:
        """Return how many messages of an open key may be handed out now."""
        key = self._by_name.get(name)
        return self.most if key is None else self.most - key.work

    def next_of(self, name: str) -> Message | None:
        """Return the message of an open key that goes before what is first in its lane."""
        key = self._by_name.get(name)
        return None if key is None else key.first()

    def took(self, item: Item) -> bool:
        """Count an item that is being delivered; return whether its key is open still.

        If it is not, no lane of it stands in turn any more.
        """
        key = self._by_name.get(item.key)
        if key is None:
            key = self._by_name[item.key] = Key(item.key)
        key.work += item.stop - item.first
        if key.back:
            key.back.pop((item.block.origin, item.first), None)
        if self._is_open(key):
            return True
        for lanes in self._group.lanes.levels:
            lanes.put_in_turn(key.name, is_open=False)
        return False

    def most_now(self) -> int:
        """Return how many messages may be handed out now, at the most."""
        lanes = self._group.lanes
        return lanes.ready if lanes.has_any() else min(lanes.ready, lanes.turns * self.most)

    def why_closed(self, name: str) -> tuple[str, Message | None]:
        """Return the reason why a key is closed, and the message that waits; an empty one: it is open."""
        key = self._by_name.get(name)
        if key is None or self._is_open(key):
            return "", None
        return (BUSY, None) if key.work >= self.most else (WAITS, key.first())

    # -- for those who change the state of a message ------------------------------------------------

    def works(self, items: Sequence[Item]) -> None:
        """Count items that are in work now, and were not handed out."""
        for item in items:
            if item.key:
                key = self._made(item.key)
                key.work += item.stop - item.first
                self._settle(key)

    def ended_work(self, name: str, count: int) -> None:
        """Count messages of a key that are in work no more."""
        key = self._by_name[name]
        key.work -= count
        assert key.work >= 0, "more messages of a key ended than were in work"
        self._settle(key)

    def waits(self, item: Item) -> None:
        """Note an item that waits now, ready or delayed."""
        if self.is_strict and item.key and came_back(item):
            assert isinstance(item, Message)
            key, place = self._made(item.key), (item.block.origin, item.sequence)
            if key.back is None:
                key.back = {}
            if place not in key.back:
                heappush(key.order, place)
            key.back[place] = item
            self._settle(key)

    def left(self, item: Item) -> None:
        """Note an item that was taken out, by its id or because its delay is over; it does not wait here now."""
        key = self._by_name.get(item.key)
        if key is not None and key.back and key.back.pop((item.block.origin, item.first), None):
            self._settle(key)

    def forget_messages(self) -> None:
        """The group has no message any more."""
        self._by_name = {}

    def count_anew(self) -> None:
        """Look at all that is there: the settings are others, or were set when messages were there already.

        What is in work is counted at once; the rest in steps, in which nothing is handed out.
        """
        self._by_name = {}
        self.is_counting = True
        for delivery in self._group.deliveries.values():
            for item in delivery.items():
                if item.key:
                    self._made(item.key).work += item.stop - item.first
        _in_steps(self._store, self._counting())

    def _counting(self) -> Iterator[int]:
        group = self._group
        if self.is_strict:
            for index in (group.later, *[lanes.index for lanes in group.lanes.levels]):
                yield from self._found_back(index)
        for lanes in group.lanes.levels:
            yield from lanes.put_all_in_turn()
        if group.keys is self:
            self.is_counting = False
            self._store.touch(group)

    def _found_back(self, index: Index) -> Iterator[int]:
        for items in index.after(0, 0):
            if index.queue is None or self._group.keys is not self:
                return  # a purge took all of it, or the settings are others again
            for item in items:
                self.waits(item)
            yield len(items)

    # -- helpers ------------------------------------------------------------------------------------

    def _is_open(self, key: Key) -> bool:
        if key.work >= self.most:
            return False
        first = key.first()
        return first is None or first.timer is None  # else it is DELAYED

    def _made(self, name: str) -> Key:
        key = self._by_name.get(name)
        if key is None:
            key = self._by_name[name] = Key(name)
        return key

    def _settle(self, key: Key) -> None:
        """Let the lane of a key stand in turn or out of it, as it should now."""
        is_open, first = self._is_open(key), key.first()
        if not (key.work or key.back):
            self._by_name.pop(key.name, None)
        for lanes in self._group.lanes.levels:
            if lanes.put_in_turn(key.name, is_open=is_open and _is_next_in(lanes, first)):
                self._store.touch(self._group)


def _is_next_in(lanes: Lanes, first: Message | None) -> bool:
    """Whether lanes of one priority have the message of a key that goes before all others, if there is one."""
    return first is None or lanes.index.has(first)


def came_back(item: Item) -> bool:
    """Return whether a message that waits was in work before; one that is dead waits for nobody of its key."""
    return isinstance(item, Message) and bool(item.charged or item.releases) and not item.dead


def arrange(store: Store, queue: Queue) -> None:
    """Have the group of a queue do what the settings of the queue say of keys."""
    group, most = queue.group, queue.setting("key_concurrency")
    if (group.keys.most if group.keys is not None else 0) == most:
        return
    group.keys = Keys(store, group, most) if most else None
    if group.lanes is not NO_LANES:
        for lanes in group.lanes.levels:
            lanes.keys = group.keys
    if group.keys is None:
        _in_steps(store, _all_in_turn(store, group))
    elif group.count():
        group.keys.count_anew()


def _all_in_turn(store: Store, group: Group) -> Iterator[int]:
    for lanes in group.lanes.levels:
        yield from lanes.put_all_in_turn()
    store.touch(group)


def _in_steps(store: Store, work: Iterator[int]) -> None:
    """Do work that yields how much it looked at: some of it now, the rest in steps."""

    def step() -> bool:
        looks = 0
        for some in work:
            looks += some
            if looks >= STEP_LOOKS:
                return False
        return True

    if not step():
        store.jobs.append(step)
