"""What a replay keeps of a queue: a known id is replaced, whatever record says it again."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from harness import World

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core import surviving
from minibrokerd.core.durable.survivors import Live, Survivors
from minibrokerd.core.model.messages import SYNC, Block, Span
from minibrokerd.core.model.queues import DEFAULTS, Queue


def live(first: int, count: int) -> Live:
    """Return so many messages of one empty byte each."""
    block = Block(1, first, count, BodyStore().nothing, (1, None), 0, None, SYNC, 1, 0, 0, 1)
    return Live([Span(block, first, first + count, "", 0)], count)


def unread(*_: object) -> NoReturn:
    raise AssertionError("nothing is cold here")


def test_a_block_that_comes_again_takes_the_place_of_the_first() -> None:
    survivors = Survivors(Queue(1, "q", 1, DEFAULTS), unread)
    for first in (0, 10, 10, 0):
        survivors.add(first, live(first, 10), 10)
    assert survivors.firsts == [0, 10]
    assert sum(each.left for each in survivors.lives) == 20


@pytest.mark.parametrize("at", [5, 0, 10])
def test_a_block_that_has_ended_is_split_into_nothing(at: int) -> None:
    """It had fewer messages than none, and who cooled it ended by an IndexError."""
    whole = live(0, 10)
    for sequence in range(10):
        whole.cross_out(sequence)
    rest = whole.split(at)
    assert (whole.left, rest.left) == (0, 0)


def test_a_start_arranges_only_queues_that_have_settings_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be 100,000 of the others, and each look at their settings is a start's time."""
    world, arranged = World(), list[str]()
    client = world.hello()
    for name in "abc":
        client.publish(name, b"x")
    client.set("b", key_concurrency=1)
    arrange = surviving.arrange

    def noted(store: Any, queue: Any) -> None:
        arranged.append(queue.name)
        arrange(store, queue)

    monkeypatch.setattr(surviving, "arrange", noted)
    world.restart()
    assert arranged == ["b"]
    assert world.queue("b").group.keys is not None
    assert world.queue("a").settings is world.queue("c").settings
