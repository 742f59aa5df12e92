"""What a scrape shows of times: so many queues have their own, all others come to one, and nothing ever falls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.histogram import Histogram
from minibrokerd.core.model.state import REST_MS
from minibrokerd.core.model.timed import MOST_TIMED
from minibrokerd.core.model.times import WINDOW_MS

SECOND_MS = 1_000
OTHERS = "others"


def work(client: Client, queue: str, count: int = 1) -> None:
    """Publish messages, wait a second for each, run them for two."""
    client.publish(queue, *[b"x"] * count)
    client.world.advance(SECOND_MS)
    got = client.receive_all(queue, count)
    client.world.advance(2 * SECOND_MS)
    client.settle("ack", *got)


def seen(world: World) -> dict[str, tuple[int, int, int, int]]:
    """Return of each that is shown how many waits and runs there were, and how long all took, in ms."""
    sums = world.store.sums
    both = zip(sums.timed.waits(sums.waits_ms), sums.timed.runs(sums.runs_ms), strict=True)
    found = {}
    for (group, waits), (same, runs) in both:
        assert group is same
        name = OTHERS if group is None else group.queue.name
        assert min(*waits.counts, *runs.counts, waits.total, runs.total) >= 0
        found[name] = waits.count, runs.count, waits.total, runs.total
    return found


def never_falls(world: World, client: Client) -> Iterator[dict[str, tuple[int, int, int, int]]]:
    """Yield what is seen, each time asked; what each queue has never falls while it is there."""
    before: dict[str, tuple[int, int, int, int]] = {}
    while True:
        now = seen(world)
        for name, numbers in now.items():
            assert all(a >= b for a, b in zip(numbers, before.get(name, (0,) * 4), strict=True))
        before = now
        yield now


@pytest.fixture
def world() -> World:
    """Return a world without queues."""
    return World()


def test_they_last_when_the_windows_are_over(world: World) -> None:
    """In a window, behind it, and when the queue gave everything back; one that began anew adds to it."""
    client = world.hello()
    looks = never_falls(world, client)
    work(client, "a", 3)
    assert next(looks)["a"] == (3, 3, 3_000, 6_000)
    for count in range(1, 4):
        world.advance(WINDOW_MS * count)
        work(client, "a")
        assert next(looks)["a"] == (
            3 + count,
            3 + count,
            3_000 + 1_000 * count,
            6_000 + 2_000 * count,
        )
    world.advance(REST_MS + 100)
    world.run_jobs()
    world.advance(3 * WINDOW_MS)
    assert world.store.queues["a"].group.times is None
    assert next(looks)["a"] == (6, 6, 6_000, 12_000)
    work(client, "a")
    assert next(looks) == {"a": (7, 7, 7_000, 14_000), OTHERS: (0, 0, 0, 0)}


def test_failed_attempts_are_runs_here_and_in_the_sums(world: World) -> None:
    client = world.hello()
    client.set("a", retry_delay_ms=0)
    client.publish("a", b"x")
    got = client.receive_all("a")
    world.advance(SECOND_MS)
    client.settle("nack", *got)
    assert seen(world) == {"a": (1, 1, 0, 1_000), OTHERS: (0, 0, 0, 0)}


def test_what_is_begun_and_done_in_one_turn_ran_for_no_time(world: World) -> None:
    client = world.hello()
    client.consume("a", 5)
    client.publish("a", b"x", b"y")
    client.settle("ack", *client.messages())
    assert seen(world)["a"][:2] == (2, 2)
    assert seen(world)[OTHERS] == (0, 0, 0, 0)


def test_the_first_hundred_have_their_own_and_the_others_one(world: World) -> None:
    """A queue that gets its own when another is deleted begins at 0; the others keep what they had."""
    client = world.hello()
    looks = never_falls(world, client)
    for number in range(MOST_TIMED + 2):
        work(client, f"q{number}")
        next(looks)
    timed = world.store.sums.timed
    found = next(looks)
    assert len(found) == MOST_TIMED + 1
    assert found[OTHERS] == (2, 2, 2_000, 4_000)
    assert timed.left_out == 2
    client.request({"op": "queue_delete", "queue": "q5", "force": 1})
    world.run_jobs()
    work(client, f"q{MOST_TIMED}", 2)  # in the window that it had when it was one of the others
    assert next(looks)[OTHERS] == (4, 4, 4_000, 8_000)
    world.advance(WINDOW_MS)
    work(client, f"q{MOST_TIMED}")
    found = next(looks)
    assert found[f"q{MOST_TIMED}"] == (1, 1, 1_000, 2_000)
    assert found[OTHERS] == (4, 4, 4_000, 8_000)
    assert timed.left_out == 1
    world.advance(WINDOW_MS)
    work(client, f"q{MOST_TIMED}")
    assert next(looks)[f"q{MOST_TIMED}"] == (2, 2, 2_000, 4_000)
    world.advance(REST_MS + 100)
    world.run_jobs()
    world.advance(4 * WINDOW_MS)
    assert timed.left_out == 0
    assert next(looks)[OTHERS] == (4, 4, 4_000, 8_000)


def test_a_deleted_queue_takes_nothing_from_the_others(world: World) -> None:
    """Nor does one that is made again under its name go on where it was."""
    client = world.hello()
    work(client, "a")
    client.request({"op": "queue_delete", "queue": "a", "force": 1})
    world.run_jobs()
    assert seen(world) == {OTHERS: (0, 0, 0, 0)}
    work(client, "a")
    assert seen(world) == {"a": (1, 1, 1_000, 2_000), OTHERS: (0, 0, 0, 0)}


def test_consumers_that_left_are_counted(world: World) -> None:
    """Ten seconds there, of which it had something for three."""
    client = world.hello()
    work(client, "a")
    client.consume("a", 2)
    world.advance(4 * SECOND_MS)
    client.publish("a", b"x")
    messages = client.messages()
    world.advance(3 * SECOND_MS)
    client.settle("ack", *messages)
    world.advance(3 * SECOND_MS)
    world.disconnect(client)
    world.run_jobs()
    lasting = world.store.sums.timed.shown[world.store.queues["a"].group]
    assert (lasting.there_ms, lasting.idle_ms) == (10_000, 7_000)


def test_a_histogram_takes_all_of_a_spread() -> None:
    world = World()
    client = world.hello()
    work(client, "a", 2)
    times = world.store.queues["a"].group.times
    histogram = Histogram()
    histogram.note(1)
    histogram.add(times.runs)
    assert (histogram.count, histogram.total) == (3, 4_001)
