"""What a replay keeps of a queue: a known id is replaced, whatever record says it again."""

from __future__ import annotations

from typing import NoReturn

from minibrokerd.bodies.store import BodyStore
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
