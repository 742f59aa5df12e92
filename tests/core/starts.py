"""What a start finds in a world's log, in a form to compare."""

from __future__ import annotations

from typing import Any

from harness import World


def everything(world: World) -> dict[str, list[Any]]:
    """Return all that a core knows of its messages."""
    world.check()
    found: dict[str, list[Any]] = {}
    for queue in world.store.queues.values():
        entries = []
        for state, item in queue.group.items():
            for sequence in range(item.first, item.stop):
                entries.append(describe(state.name, item, sequence))
        found[queue.name] = sorted(entries, key=lambda entry: entry[0])
        found[queue.name].append((queue.number, queue.home, queue.reserved_until, queue.settings))
    return found


def describe(state: str, item: Any, sequence: int) -> Any:
    """Return one message as a tuple; deadlines are in ticks."""
    names = ("attempts", "history", "dropped", "redriven", "ended_token", "started_unix_ms")
    own = [getattr(item, name, None) or None for name in names]
    own[0] = None if own[0] == (0, 0, 0) else own[0]
    lease = None
    if state == "BEGUN":
        lease = (item.token, item.lease_ms, item.delivery.session, item.timer.tick)
    block = item.block
    return (
        (block.origin, sequence, state, item.key, item.marked, item.releases, item.ready_at_ms),
        (block.epoch, block.unix_ms, block.durability, block.encoding_of(sequence), own),
        lease,
    )


def known(world: World, *, digests: bool = False, cools: int = 0) -> Any:
    """Return what a start on a copy of the log would know: messages, with their bodies, and outcomes of frames.

    It reads `digests`, or cools behind each `cools` batches.
    """
    other = World(segment_batches=world.segment_batches)
    other.log, other.records = list(world.log), dict(world.records)
    other.unix_ms, other.epoch, other.digests = world.unix_ms, world.epoch, digests
    other.cools = cools
    other.restart(clean=False)
    other.thaw()
    outcomes = {
        session.id: {
            sequence: (outcome.checksum, outcome.size, outcome.results, outcome.lost)
            for sequence, outcome in session.window.items()
        }
        for session in other.store.sessions.values()
    }
    numbers = (other.store.next_queue_number, other.store.hold_until_ms > 0)
    return everything(other), outcomes, numbers
