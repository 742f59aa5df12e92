"""Settlements one by one on a disk with no byte free: they go on, whatever they leave of what was published.

`make full-disk` does it with processes and a file system; here a case takes seconds, and is the same each time.
"""

from __future__ import annotations

import os

import pytest
from full_world import FullWorld, SmallDisk

SEGMENT_BYTES = 64 * 1024  # the smallest that `serve` takes: where what copying costs counts most
DISK_BYTES = 16 * SEGMENT_BYTES
WINDOW = 1_000


@pytest.mark.parametrize(
    ("count", "body_bytes", "keys", "acks", "begun", "nacked"),
    [
        pytest.param(500, 10, 0, 600, 0.0, 0.0, id="tiny bodies"),
        pytest.param(16, 100, 20, 400, 0.0, 0.0, id="keys"),
        pytest.param(16, 100, 0, 450, 0.5, 0.5, id="begun and nacked"),
        pytest.param(3, 7_000, 0, 60, 0.2, 0.2, id="large bodies"),
    ],
)
def test_acks_go_on_on_a_full_disk(
    count: int, body_bytes: int, keys: int, acks: int, begun: float, nacked: float
) -> None:
    """Each in a batch of its own, in any order, over a restart; nothing comes back and nothing is lost."""
    world = FullWorld(SEGMENT_BYTES, DISK_BYTES)
    messages = world.fill(count, body_bytes, keys)
    world.consume(WINDOW)
    for number in range(1, acks + 1):
        if world.random.random() < nacked:
            assert world.settle("nack", world.take(), delay_ms=0), number
        message = world.take()
        if world.random.random() < begun:
            assert world.settle("extend", message, lease_ms=30_000), number
        assert world.settle("ack", message), number
        if number == 3 * acks // 4:
            world.restart()
            world.consume(WINDOW)
    assert world.living() == messages - acks


def test_what_was_rejected_until_the_disk_took_no_more_leaves_acks_their_room() -> None:
    """A dead message is larger than it was: without an end that cannot go on, and acks may not pay for it."""
    world = FullWorld(SEGMENT_BYTES, DISK_BYTES // 2)
    world.fill(16, 100)
    world.consume(WINDOW)
    while world.settle("reject", world.take()):
        continue
    for number in range(150):
        assert world.settle("ack", world.take()), number


def test_the_disk_gives_what_it_has() -> None:
    disk = SmallDisk()
    disk.most_bytes = 10_000
    descriptor = disk.open("/log/one", os.O_CREAT)
    disk.allocate(descriptor, 8_000)
    with pytest.raises(OSError, match="No space left"):
        disk.allocate(descriptor, 11_000)
    with pytest.raises(OSError, match="No space left"):
        disk.write(descriptor, bytes(2), 9_999)
    assert disk.used_bytes == 8_000
    disk.unlink("/log/one")
    assert disk.used_bytes == 0
