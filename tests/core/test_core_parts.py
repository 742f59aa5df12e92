"""Promises about pieces of one publish that are written again together, whoever has them, in whatever order."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.records import CopyRunMeta, CopySomeMeta, PublishMeta, decode
from minibrokerd.log.seam import Record

KIB = 1024


def held(client: Client, count: int) -> list[Delivered]:
    """Return messages that are held, and not begun."""
    client.consume("q", prefetch=count)
    client.world.sync()
    return client.messages()


def records_of(world: World, *kinds: Any) -> list[Record]:
    """Return the records of these kinds in the log."""
    records = [record for batch in world.log for record in batch.records]
    return [record for record in records if isinstance(decode(record), kinds)]


def found_by_starts(world: World, messages: dict[Any, Delivered]) -> None:
    """A start finds these messages, each with its body and key: by records, and by digests."""
    should = {id: (message.body, message.key) for id, message in messages.items()}
    for digests in (False, True):
        world.digests = digests
        world.restart(clean=False)
        world.advance(10_000)
        world.check()
        found = held(world.hello(), 1_000)
        assert {message.id: (message.body, message.key) for message in found} == should


@pytest.mark.parametrize("shape", ["plain", "keys", "encodings", "delays"])
def test_acks_in_the_middle_of_a_publish_leave_one_record_of_it(shape: str) -> None:
    world = World()
    client = world.hello()
    shapes: dict[str, dict[str, Any]] = {
        "plain": {},
        "keys": {"keys": [f"key-{n % 7}" for n in range(200)]},
        "encodings": {"encodings": [n % 2 for n in range(200)]},
        "delays": {"delays": [n % 5 for n in range(200)]},
    }
    client.publish("q", *(b"%d" % n for n in range(200)), **shapes[shape])
    world.advance(100)
    messages = {message.id: message for message in held(client, 200)}
    for id in Random(7).sample(sorted(messages), 100):
        client.settle("ack", messages.pop(id))
    world.free(world.core.synced)
    assert len(records_of(world, CopySomeMeta, CopyRunMeta)) == 1
    found_by_starts(world, messages)


def test_copies_are_no_larger_than_what_they_are_copies_of() -> None:
    """Ten bytes that end between others free less than the head of a record takes."""
    world = World()
    client = world.hello()
    client.publish("q", *[bytes(10)] * 500)
    (published,) = records_of(world, PublishMeta)
    messages = held(client, 500)
    Random(1).shuffle(messages)
    for number in range(5):
        client.settle("ack", *messages[50 * number : 50 * number + 50])
        world.free(world.core.synced)
        (copy,) = records_of(world, CopySomeMeta)
        assert copy.size_bytes <= published.size_bytes + 64 - 500 * number


def test_what_stands_between_pieces_is_known_from_another_record() -> None:
    """Half of a publish waits, half is held, message by message: each half is written without the other."""
    world = World()
    client = world.hello()
    client.publish("q", *(b"%d" % n for n in range(40)))
    messages = {message.id: message for message in held(client, 40)}
    client.consume("q", prefetch=0)
    halves = sorted(messages)[::2], sorted(messages)[1::2]
    client.settle("release", *(messages[id] for id in halves[0]))
    world.free(world.core.synced)
    assert len(records_of(world, CopySomeMeta)) >= 1
    found_by_starts(world, messages)


def test_what_does_not_fit_into_the_segment_goes_on_in_the_next_one() -> None:
    """A publish is written in two records then, and stays whole for who waits for it."""
    world = World(auto_sync=False)
    client = world.hello()
    client.take_from("q")
    client.publish("q", *(b"%03d" % n + bytes(97) for n in range(100)))
    world.sync()
    upto = world.core.synced
    world.apply(Forward(upto, 2**30, rest_bytes=4 * KIB))
    first, second = world.closed
    assert 3 * KIB < sum(record.size_bytes for record in first.records) <= 4 * KIB
    assert any(isinstance(decode(record), CopyRunMeta) for record in second.records)
    world.sync()
    world.forget(upto)
    # The segment with the first of both is emptied, too: all of the publish is written again.
    world.free(first.number)
    messages = {message.id: message for message in client.receive_all("q", 100)}
    assert len(messages) == 100
    found_by_starts(world, messages)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_settled_between_the_steps_of_a_pass_nothing_is_lost(seed: int) -> None:
    random, world = Random(seed), World()
    client = world.hello()
    client.set("q", max_attempts=100, retry_delay_ms=0)
    for _ in range(random.randrange(1, 6)):
        count = random.choice((1, 3, 50, 300))
        keys = (
            [random.choice(("", "a", "b")) for _ in range(count)] if random.random() < 0.3 else None
        )
        client.publish("q", *(b"%d" % random.randrange(10**6) for _ in range(count)), keys=keys)
    client.consume("q", prefetch=200)
    has: dict[Any, Delivered] = {}
    for _ in range(60):
        has |= {message.id: message for message in client.messages()}
        for id in random.sample(sorted(has), min(len(has), random.randrange(8))):
            verb = random.choice(("ack", "ack", "release", "extend"))
            client.settle(verb, has[id] if verb == "extend" else has.pop(id))
        upto = random.randrange(world.core.synced + 1)
        room = random.choice((0, 300, 1_000, 5_000))
        world.apply(Forward(upto, random.choice((1, 500, 10**6)), rest_bytes=room))
        if world.core.clear_below > upto:
            world.forget(upto)
    before = set(world.states("q"))
    for digests in (False, True):
        world.digests = digests
        world.restart(clean=False)
        world.check()
        assert set(world.states("q")) == before
