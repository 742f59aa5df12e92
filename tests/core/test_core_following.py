"""A core that follows a log for long, as of a broker that stands by: it forgets what is over, and nothing else."""

from __future__ import annotations

from core_client import Client
from harness import World

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core

DAY_MS = 86_400_000


def followed(world: World) -> Core:
    """Return a core that has replayed what is in the log, and is not open."""
    core = Core(BodyStore())
    for batch in world.log:
        core.replay(batch)
    return core


def goodbye(client: Client) -> None:
    """Say goodbye; the session ends."""
    client.send(client.frame([{"op": "goodbye"}]))


def test_sessions_that_came_and_went_are_forgotten_and_one_that_may_ask_again_is_not() -> None:
    world = World()
    for count in range(20):
        client = world.hello(f"client {count}")
        client.publish("q", b"x")
        goodbye(client)
    there = world.hello("there")
    there.publish("q", b"y")
    core = followed(world)
    assert len(core.store.sessions) == 21
    core.tidy(world.unix_ms)
    assert [len(session.window) for session in core.store.sessions.values()] == [1]
    core.opened(
        9, world.now_ms + 1, world.unix_ms, clean=False, next_batch=world.log[-1].number + 1
    )
    assert len(core.store.sessions) == 1
    assert core.store.queues["q"].count() == 21


def test_what_is_kept_for_a_time_is_forgotten_after_it() -> None:
    world = World()
    client = world.hello("client")
    client.publish("q", b"x", dedupes=["a"])
    core = followed(world)
    before = len(list(core.store.kept))
    assert before
    core.tidy(world.unix_ms)
    assert len(list(core.store.kept)) == before
    core.tidy(world.unix_ms + 366 * DAY_MS)
    assert len(list(core.store.kept)) < before
