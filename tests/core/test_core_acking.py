"""Acks of one run that starts a held span, and of one begun message: at once, or step by step as all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.verbs import acking

COUNT = 6
Run = tuple[int, int, int, int]


def start(client: Client, run: Run) -> Any:
    return client.settle_runs("ack", "q", [(*run[:3], 2)])


def all_of_it(client: Client, run: Run) -> Any:
    return client.settle_runs("ack", "q", [run])


def bit_by_bit(client: Client, run: Run) -> Any:
    token, origin, first, count = run
    for at in range(0, count, 2):
        client.settle_runs("ack", "q", [(token, origin, first + at, 2)])
        client.world.advance(1_500)
    return client.stats("q")


def too_many(client: Client, run: Run) -> Any:
    token, origin, first, count = run
    return client.settle_runs("ack", "q", [(token, origin, first, count + 1)])


def twice(client: Client, run: Run) -> Any:
    client.settle_runs("ack", "q", [run])
    return client.settle_runs("ack", "q", [run])


def again(client: Client, run: Run) -> Any:
    """The same frame once more: a connection had ended."""
    client.settle_runs("ack", "q", [run])
    return client.resend(client.sequence)


def middle(client: Client, run: Run) -> Any:
    token, origin, first, _ = run
    return client.settle_runs("ack", "q", [(token, origin, first + 2, 2)])


def after_a_begin(client: Client, run: Run) -> Any:
    client.settle_runs("begin", "q", [(*run[:3], 2)])
    client.settle_runs("ack", "q", [(*run[:3], 1)])
    return all_of_it(client, run)


def one_by_one(client: Client, run: Run) -> Any:
    """Each is begun alone; the last one takes its delivery with it."""
    token, origin, first, count = run
    for at in range(count):
        client.settle_runs("begin", "q", [(token, origin, first + at, 1)])
        client.world.advance(300)
        client.settle_runs("ack", "q", [(token, origin, first + at, 1)])
    return client.stats("q")


def begun_and_more(client: Client, run: Run) -> Any:
    client.settle_runs("begin", "q", [(*run[:3], 1)])
    return client.settle_runs("ack", "q", [(*run[:3], 2)])


def begun_and_given_back(client: Client, run: Run) -> Any:
    client.settle_runs("begin", "q", [(*run[:3], 1)])
    client.settle_runs("release", "q", [(*run[:3], 1)])
    return client.settle_runs("ack", "q", [(*run[:3], 1)])


def of_another_token(client: Client, run: Run) -> Any:
    return client.settle_runs("ack", "q", [(run[0] + 1, *run[1:])])


def of_another_origin(client: Client, run: Run) -> Any:
    return client.settle_runs("ack", "q", [(run[0], run[1] + 1, *run[2:])])


def of_another_queue(client: Client, run: Run) -> Any:
    client.publish("other", b"x")
    return client.settle_runs("ack", "other", [run])


def by_somebody_else(client: Client, run: Run) -> Any:
    """A token is no secret."""
    return client.world.hello("thief").settle_runs("ack", "q", [run])


def as_a_request(client: Client, run: Run) -> Any:
    part = {"op": "ack", "queue": "q", "runs": 1}
    return client.request(part, acking.RUN.pack(*run))


def none_of_it(client: Client, run: Run) -> Any:
    client.settle_runs("ack", "q", [(*run[:3], 0)])
    return client.closed


def with_a_column_too_many(client: Client, run: Run) -> Any:
    client.sequenced([{"op": "ack", "queue": "q", "runs": 1}], acking.RUN.pack(*run) + b"x")
    return client.closed


STORIES = (
    start,
    all_of_it,
    bit_by_bit,
    too_many,
    twice,
    again,
    middle,
    after_a_begin,
    one_by_one,
    begun_and_more,
    begun_and_given_back,
    of_another_token,
    of_another_origin,
    of_another_queue,
    by_somebody_else,
    as_a_request,
    none_of_it,
    with_a_column_too_many,
)
SETTINGS: dict[str, dict[str, int | str]] = {
    "plain": {},
    "lazy": {"durability": "lazy"},
    "memory": {"durability": "memory"},
    "results": {"result_ms": 60_000},
    "circuit": {"circuit_failures_percent": 50},
    "key_rate": {"key_rate": 1_000},
    "times_by": {"times_by": "key"},
}


def told(story: Callable[[Client, Run], Any], settings: dict[str, int | str]) -> list[object]:
    """Return all that can be seen of a story: answers, deliveries, records, counts and times."""
    world = World()
    client = world.hello("worker")
    client.set("q", **settings)
    seen: list[object] = []
    client.publish("q", *[b"body"] * COUNT)
    client.publish("q", *[b"next"] * COUNT)
    client.consume("q", prefetch=COUNT)
    world.advance(700)
    (message, *_) = client.messages()
    run = (message.token, message.origin, message.sequence, COUNT)
    seen.append(story(client, run))
    world.advance(10)
    world.check()
    seen += [client.inbox, client.closed, world.notes]
    seen += [
        (record.type, record.meta, bytes(record.tail))
        for each in world.log
        for record in each.records
    ]
    watcher = world.hello("watcher")
    seen.append(watcher.stats("q"))
    seen.append(watcher.request({"op": "times", "queue": "q"}))
    seen.append(watcher.explain((message.origin, message.sequence)))
    circuit = world.queue("q").group.circuit
    seen += [getattr(circuit, name) for name in getattr(circuit, "__slots__", ())]
    sums = world.store.sums
    seen += [sums.waits_ms.counts, sums.runs_ms.counts, sums.held_bytes, sums.live_bytes]
    return seen


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("story", STORIES)
def test_a_plain_ack_does_what_the_general_way_does(
    story: Callable[[Client, Run], Any],
    settings: dict[str, int | str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_one_go = told(story, settings)
    monkeypatch.setattr(acking, "_plain", lambda *arguments: None)
    assert in_one_go == told(story, settings)


@pytest.mark.parametrize("story", [start, all_of_it, one_by_one])
def test_a_plain_ack_is_one(
    story: Callable[[Client, Run], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing was compared."""

    def fail(*arguments: object) -> None:
        raise AssertionError("a plain ack goes the general way")

    monkeypatch.setattr(acking, "check_settlement", fail)
    told(story, {})
