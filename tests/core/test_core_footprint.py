"""What a waiting message takes of memory beside its bytes: counted by the interpreter, as bytes handed out."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from harness import World

FRAMES, SIZE = 20, 100
KEYS = "customer-{:07d}"
COLUMN_BYTES = 4 + 16  # of a key, as it came


def fill(world: World, kind: str) -> None:
    """Publish frames of messages that wait, each with what the kind says."""
    client = world.hello()
    for frame in range(FRAMES):
        client.answered_below = client.sequence + 1
        ids = range(frame * SIZE, (frame + 1) * SIZE)
        keys = [KEYS.format(id) for id in ids] if kind == "keyed" else []
        delays = [3_600_000 + id * 7_919 % 3_600_000 for id in ids] if kind == "delayed" else []
        columns = {"keys": keys, "delays": delays}
        client.publish(
            "q", *[b"x"] * SIZE, **{name: each for name, each in columns.items() if each}
        )
        world.log.clear()


def traced_bytes(kind: str) -> float:
    """Return what each message took, of those that the core was given."""
    world = World()
    gc.collect()
    tracemalloc.start()
    try:
        fill(world, kind)
        world.records.clear()
        gc.collect()
        took, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert world.queue("q").count() == FRAMES * SIZE
    return took / (FRAMES * SIZE)


def test_a_key_of_its_own_takes_no_more_than_that() -> None:
    traced_bytes("plain")  # what is made once is there
    more = traced_bytes("keyed") - traced_bytes("plain")
    assert more - COLUMN_BYTES <= 290


def test_a_delay_of_its_own_takes_no_more_than_that() -> None:
    traced_bytes("plain")
    more = traced_bytes("delayed") - traced_bytes("plain")
    assert (
        more - 8 <= 40
    )  # beside the delay as it came; a span and a timer of its own took ten times that


def charged_bytes(kind: str) -> float:
    """Return what is charged for a message of a kind beside its bytes, and nothing once all are gone."""
    world = World()
    fill(world, kind)
    charged = world.store.standing.item_bytes / (FRAMES * SIZE)
    world.check()
    world.hello().purge("q")
    world.run_jobs()
    assert world.store.standing.item_bytes == 0
    return charged


@pytest.mark.parametrize(
    ("kind", "came_bytes"), [("keyed", COLUMN_BYTES), ("delayed", 8)], ids=["keyed", "delayed"]
)
def test_what_waits_is_charged_for_what_it_takes(kind: str, came_bytes: int) -> None:
    """What 700 bytes for everything that is delayed, or has a key, were too much for, or too little."""
    traced_bytes("plain")
    took = traced_bytes(kind) - traced_bytes("plain") - came_bytes
    assert 0.75 <= charged_bytes(kind) / took <= 1.34
