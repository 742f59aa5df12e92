"""Counts what an apply looks at: the items that it takes from the containers of the state, one after the other.

    world = many(queues=3_000, keys=3_000)
    with counted(world) as looks:
        client.request({"op": "stats"})
    assert looks.most <= MOST

`counted` puts counting containers in the place of those of the state (of the store, its queues, lanes, deliveries,
sessions, connections, and what waits to be copied), and notes each apply. Looking up a key is no look;
walking, copying, sorting or searching a container is one for each item. Time is not measured.

The budget of the product (`budgets.MOST_LOOKS`) is made small by the fixture `small_budget`, so that some thousand
things are many; MOST is what an apply may look at then. A command of yours: build a state with `many`, add what it
needs, run the command inside `counted`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model import budgets
from minibrokerd.core.model.effects import Effects
from minibrokerd.core.model.inputs import Command

BUDGET: Final = 100
MOST: Final = (
    3 * BUDGET
)  # an apply may exceed its budget by one thing, and a thing may be looked at twice

_count = 0


def _each(items: Iterable[Any]) -> Iterator[Any]:
    global _count
    for item in items:
        _count += 1
        yield item


def _add(looks: int) -> None:
    global _count
    _count += looks


class CountedDict(dict[Any, Any]):
    """A dict that counts what is taken from it in turn."""

    def __iter__(self) -> Iterator[Any]:
        return _each(super().keys())

    def __reversed__(self) -> Iterator[Any]:
        return _each(super().__reversed__())

    def keys(self) -> Any:
        return _each(super().keys())

    def values(self) -> Any:
        return _each(super().values())

    def items(self) -> Any:
        return _each(super().items())

    def popitem(self) -> Any:
        _add(1)
        return super().popitem()


class CountedDeque(deque[Any]):
    """A deque that counts what is taken from it in turn."""

    def __iter__(self) -> Iterator[Any]:
        return _each(self._plain())

    def __reversed__(self) -> Iterator[Any]:
        return _each(super().__reversed__())

    def remove(self, value: Any) -> None:
        _add(len(self))
        super().remove(value)

    def _plain(self) -> Iterator[Any]:
        return super().__iter__()


class CountedList(list[Any]):
    """A list that counts what is taken from it in turn."""

    def __iter__(self) -> Iterator[Any]:
        return _each(super().__iter__())

    def __reversed__(self) -> Iterator[Any]:
        return _each(super().__reversed__())

    def remove(self, value: Any) -> None:
        _add(len(self))
        super().remove(value)

    def sort(self, **how: Any) -> None:
        _add(len(self))
        super().sort(**how)


_COUNTED: Final[dict[Any, Any]] = {dict: CountedDict, deque: CountedDeque, list: CountedList}
_WALKED: Final = (
    "Store", "Standing", "Queue", "Lanes", "Lane", "KeyLane", "Delivery", "Session", "Connection", "Sums",
    "Pauses", "Chains", "Chain",
)  # fmt: skip


def _instrument(thing: Any, seen: set[int]) -> None:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    for name in _names(type(thing)) or vars(thing):
        value: Any = getattr(thing, name, None)
        _follow(value, seen)
        counted = _COUNTED.get(type(value))
        # A lane has lists of one and deques that stay empty, which are what they are.
        if counted is not None and len(value) != 1 and getattr(value, "maxlen", None) != 0:
            setattr(thing, name, counted(_counted_inside(value)))


def _counted_inside(value: Any) -> Any:
    """Dicts of dicts: the buckets."""
    if type(value) is dict:
        return {k: CountedDict(v) if type(v) is dict else v for k, v in value.items()}
    return value


def _names(kind: type) -> list[str]:
    return [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]


def _follow(value: Any, seen: set[int]) -> None:
    if type(value).__name__ in _WALKED:
        _instrument(value, seen)
    elif isinstance(value, dict):
        for key, each in list(dict.items(value)):
            _follow(key, seen)
            _follow(each, seen)
    elif isinstance(value, list | deque):
        for each in list(value):
            _follow(each, seen)


class Looks:
    """What was counted: for each apply its command, the looks, and the bytes of records that it emitted."""

    def __init__(self) -> None:
        self.applies: list[tuple[str, int, int]] = []

    @property
    def most(self) -> int:
        """The most looks of one apply."""
        return max((looks for _, looks, _ in self.applies), default=0)

    @property
    def most_bytes(self) -> int:
        """The most bytes of records of one apply."""
        return max((size for _, _, size in self.applies), default=0)


@contextmanager
def counted(world: World, *more: Any) -> Iterator[Looks]:
    """Count the looks of each apply of a world; `more`: also in these, which are not counted else."""
    seen: set[int] = set()
    for thing in (world.store, *more):
        _instrument(thing, seen)
    looks, apply = Looks(), world.core.apply

    def counting(command: Command, now_ms: int, unix_ms: int) -> Effects:
        before = _count
        effects = apply(command, now_ms, unix_ms)
        size = sum(record.size_bytes for record in effects.records)
        looks.applies.append((type(command).__name__, _count - before, size))
        return effects

    world.core.apply = counting  # type: ignore[method-assign]
    try:
        yield looks
    finally:
        world.core.apply = apply  # type: ignore[method-assign]


@pytest.fixture
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make some thousand things many."""
    monkeypatch.setattr(budgets, "MOST_LOOKS", BUDGET)


def many(
    *,
    queues: int = 0,
    fresh: int = 0,
    keys: int = 0,
    delayed: int = 0,
    dead: int = 0,
    begun: int = 0,
    held: int = 0,
    sessions: int = 0,
    outcomes: int = 0,
) -> tuple[World, Client]:
    """Return a world with so many of each, and a client of it; each message was published by itself.

    `sessions` have no connection any more; `outcomes` are kept of each. Dead messages are in "dead.dlq", others
    in queues of their names.
    """
    world = World()
    client = world.hello("many")
    for number in range(queues):
        _publish(client, f"queue-{number}")
    for number in range(keys):
        _publish(client, "keys", key=f"key-{number}")
    for number in range(delayed):
        _publish(client, "delayed", delay_ms=10**7 + number)
    for name, count in (("dead", dead), ("begun", begun), ("held", held), ("fresh", fresh)):
        for _ in range(count):
            _publish(client, name)
    world.sync()
    for first in range(0, dead, 50):
        got = client.receive_all("dead", min(50, dead - first))
        client.settle("reject", *got, error=("E", "e"))
    for first in range(0, begun, 50):
        client.receive_all("begun", min(50, begun - first), lease_ms=43_200_000)
    for _ in range(0, held, 50):
        world.hello("holder").consume("held", 50)
    for _ in range(sessions):
        other = world.hello("gone")
        for _ in range(outcomes):
            other.publish("outcomes", b"x")
        world.disconnect(other)
    return world, client


def _publish(client: Client, queue: str, **fields: Any) -> None:
    """Publish one message; a batch has some of them."""
    world = client.world
    client.answered_below = client.sequence + 1  # so that few outcomes are kept
    world.auto_sync = client.sequence % 20 == 0
    client.publish(queue, b"x", **fields)
    world.auto_sync = True
