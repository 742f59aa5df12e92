"""Room for publishes, asked for again and again: whoever uses none of it takes it from nobody."""

from __future__ import annotations

from pathlib import Path

from log_world import Engine

from minibrokerd.log.seam import Room

SMALL = 4096


async def test_publishes_that_store_less_than_they_asked_for_do_not_use_room_up(
    tmp_path: Path,
) -> None:
    """A refused publish stores nothing, and most of the others less than they might have.

    Nothing would ever tell who waits then: no write is under way, and no space is missing.
    """
    engine = Engine(tmp_path / "d", segment_bytes=SMALL).open()
    assert [engine.log.room_for(600) for _ in range(50)] == [Room.GRANTED] * 50
    engine.close()
