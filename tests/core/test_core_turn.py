"""The line of keys: in the order in which they came, whatever leaves it from any place."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import pytest
from harness import World

from minibrokerd.core.model.index import Index
from minibrokerd.core.model.lane import KeyLane
from minibrokerd.core.model.standing import Standing
from minibrokerd.core.model.turn import Turn


@pytest.mark.parametrize("seed", range(20))
def test_a_turn_is_an_ordered_table_of_its_members(seed: int) -> None:
    random, turn, line = Random(seed), Turn(), OrderedDict[KeyLane, None]()
    lanes = [KeyLane(f"key-{n}", Index(1, Standing(), None)) for n in range(12)]
    for _ in range(400):
        lane, act = random.choice(lanes), random.randrange(5)
        if act == 0:
            turn.append(lane)
            line.setdefault(lane)
        elif act == 1:
            turn.leave(lane)
            line.pop(lane, None)
        elif act == 2 and line:
            turn.rotate()
            line.move_to_end(next(iter(line)))
        elif act == 3 and lane not in line and line:
            old = random.choice(list(line))
            turn.replace(old, lane)
            line = OrderedDict((lane if each is old else each, None) for each in line)
        elif act == 4 and line:
            last = random.choice(list(line))
            turn.rotate_past(last)
            for each in list(line)[: list(line).index(last) + 1]:
                line.move_to_end(each)
        assert list(turn) == list(line)
        assert len(turn) == len(line)
        assert [each for each in lanes if each in turn] == [each for each in lanes if each in line]


def test_a_key_with_one_message_keeps_its_turn_when_it_gets_more() -> None:
    """It stands in line by itself at first, then by its lane."""
    world = World()
    client = world.hello()
    for key in "abc":
        client.publish("q", b"1", key=key)
    client.publish("q", b"2", key="b")
    client.publish("q", b"3", key="b")
    handed = [client.receive_all("q", 1)[0] for _ in range(5)]
    assert [(each.key, each.body) for each in handed] == [
        ("a", b"1"),
        ("b", b"1"),
        ("c", b"1"),
        ("b", b"2"),
        ("b", b"3"),
    ]
    assert not world.queue("q").group.lanes.turns


@pytest.mark.parametrize("seed", range(20))
def test_many_at_once_come_in_the_order_of_one_by_one(seed: int) -> None:
    """Keys with one message, with many, with runs and with what came back, beside messages without a key."""
    orders = []
    for most in (1, 7, 1_000):
        random, world = Random(seed), World()
        client = world.hello()
        for _ in range(random.randrange(1, 12)):
            count = random.randrange(1, 9)
            keys = [random.choice(["", "a", "b", "c", f"key-{random.random()}"])] * count
            if random.random() < 0.7:
                keys = [random.choice("abcdef") for _ in range(count)]
            terms = {"max_attempts": 3} if random.random() < 0.2 else {}
            bodies = [random.randbytes(random.choice([1, 8])) for _ in range(count)]
            client.publish("q", *bodies, keys=keys, **terms)
        for back in client.receive_all("q", random.randrange(1, 5)):
            client.settle("release", back)
        order: list[bytes] = []
        while some := client.receive_all("q", most):
            order += [each.body for each in some]
        orders.append(order)
    assert orders[0] == orders[1] == orders[2]
    assert orders[0]


def test_a_purge_leaves_no_link_to_what_it_freed() -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"x"] * 10, keys=[f"key-{n}" for n in range(10)])
    client.publish("q", b"x", key="key-3")
    lanes = world.queue("q").group.lanes
    spans = list(lanes.items())
    assert client.request({"op": "purge", "queue": "q"}) is not None
    world.advance(1_000)
    assert not lanes.turns
    assert all(getattr(span, "behind", None) is None for span in spans)
