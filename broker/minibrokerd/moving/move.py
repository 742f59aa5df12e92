"""One move: look at both ends, copy, read back and compare, make the target a log, and the source none.

A move that was ended goes on when it is begun again: a stream keeps what was copied, a directory is made anew.
The order makes it safe: until the target is whole no server starts on it, and until it says so none is kept from
the source for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.log.seam import Batch
from minibrokerd.moving.both_ends import CannotMove, How, Origin, Tally, Target

CHUNK_BYTES: Final = 8 * 1024 * 1024
CHUNK_BATCHES: Final = 500  # NATS takes 1,000 messages at once
TURN_S: Final = 0.02  # between two turns of the loop, in which a stream is told that it is led


@dataclass(frozen=True, slots=True)
class Moved:
    """What was moved, or would be. `resumed`: so many batches were there from a move that was ended."""

    batches: int
    records: int
    size_bytes: int
    digest: str
    queues: int
    messages: int
    sessions: int
    epoch: int
    resumed: int


async def move(origin: Origin, target: Target, how: How, advance: Callable[[int], object]) -> Moved:
    """Move a log, or copy it; `advance` is told how many batches were copied.

    Raises:
        LogError: see the text; begin again when its cause is mended.
    """
    try:
        await origin.open(how)
        if how is How.MOVE:
            await target.reserve(origin)
        all_of_it, core = await _looked_through(origin)
        there, is_whole = await target.look(origin)
        _refuse_another(there, all_of_it, target.name, is_whole=is_whole)
        if how is not How.LOOK and not is_whole:
            await target.open(origin)
            await _copy(origin, target, there, advance)
            await _compare(target, all_of_it)
            if how is How.MOVE:
                await origin.hold()
            await target.finish(origin)
        if how is How.MOVE:
            await origin.moved(target.name)
    finally:
        await target.close()
        await origin.close()
    store = core.store
    return Moved(
        all_of_it.batches,
        all_of_it.records,
        all_of_it.size_bytes,
        all_of_it.digest,
        len(store.queues),
        sum(queue.count() for queue in store.queues.values()),
        len(store.sessions),
        origin.epoch,
        there.batches,
    )


async def _looked_through(origin: Origin) -> tuple[Tally, Core]:
    tally, core = Tally(), Core(BodyStore())
    async for batch in _in_turns(origin.batches()):
        tally.add(batch)
        core.replay(batch)
    # As a start would: only then is it known what waits. Of millions it takes a while, so not in the loop.
    now_ms, clean = origin.now_ms + 1, origin.clean
    await asyncio.to_thread(core.opened, origin.epoch + 1, now_ms, origin.unix_ms, clean=clean)
    retained = [
        queue.name for queue in core.store.by_number.values() if queue.group.retained is not None
    ]
    if retained:
        raise CannotMove(
            f"cannot move {origin.name}: {retained[0]} is a retained log, whose messages are files beside "
            "the log, and those cannot be moved yet; nothing was changed: delete it, or stay"
        )
    return tally, core


def _refuse_another(there: Tally, all_of_it: Tally, name: str, *, is_whole: bool) -> None:
    if there.batches > all_of_it.batches or (is_whole and there != all_of_it):
        raise CannotMove(
            f"cannot move to {name}: another state of this log is there already; nothing was changed. "
            "Name a new one"
        )


async def _copy(
    origin: Origin, target: Target, there: Tally, advance: Callable[[int], object]
) -> None:
    passed = Tally()
    chunk: list[Batch] = []
    chunk_bytes = 0
    async for batch in _in_turns(origin.batches()):
        if passed.batches < there.batches:
            passed.add(batch)
            continue
        if passed != there:
            raise CannotMove(
                f"cannot move to {target.name}: what is there is no part of {origin.name}"
            )
        size_bytes = sum(record.size_bytes for record in batch.records)
        if chunk and (chunk_bytes + size_bytes > CHUNK_BYTES or len(chunk) == CHUNK_BATCHES):
            await target.append(chunk)
            advance(len(chunk))
            chunk, chunk_bytes = [], 0
        chunk.append(batch)
        chunk_bytes += size_bytes
    if passed != there:
        raise CannotMove(f"cannot move to {target.name}: what is there is no part of {origin.name}")
    if chunk:
        await target.append(chunk)
        advance(len(chunk))


async def _compare(target: Target, all_of_it: Tally) -> None:
    found = Tally()
    async for batch in _in_turns(target.batches()):
        found.add(batch)
    if found != all_of_it:
        raise CannotMove(
            f"{target.name} was read back, and is not what was written ({found.batches} batches of "
            f"{all_of_it.batches}): the source is as it was; see what the disk or the servers say"
        )


async def _in_turns(batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
    """Pass batches on; files come without a wait, and whoever leads a stream must not fall silent meanwhile."""
    turned_s = monotonic()
    async for batch in batches:
        yield batch
        if monotonic() - turned_s > TURN_S:
            await asyncio.sleep(0)
            turned_s = monotonic()
