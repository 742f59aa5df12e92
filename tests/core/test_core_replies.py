"""protocol.md, 7, `results_in`: a reply in memory writes nothing beside the ack of its request."""

from __future__ import annotations

import msgpack
import pytest
from core_client import Client, Delivered
from harness import World
from test_core_results import ask, later, told

from minibrokerd.core.model.records import AckMeta, FrameMeta, StateMeta

HOUR_MS = 3_600_000
REPLY = 1_000  # bytes


def asked(**settings: int | str) -> tuple[World, Client, Delivered]:
    """Return a world, a worker, and the request that it got from `jobs`."""
    world = World()
    worker = world.hello("worker")
    worker.set("jobs", result_ms=HOUR_MS, **settings)
    worker.publish("jobs", b"x" * REPLY)
    (job,) = worker.receive_all("jobs", 1)
    world.auto_sync = False
    return world, worker, job


def written(world: World, seen: int) -> list[object]:
    """Return what is said by the records of the batches behind the first `seen`."""
    return [record.says for batch in world.log[seen:] for record in batch.records]


@pytest.mark.parametrize("durability", ["sync", "lazy", "memory"])
def test_the_reply_is_in_no_record(durability: str) -> None:
    """What the log has of it is what it has of a plain ack; in a queue in memory that is nothing."""
    world, worker, job = asked(results_in="memory", durability=durability)
    seen = len(world.log)
    told(worker, job)
    world.sync()
    kinds = {type(meta) for meta in written(world, seen)}
    assert kinds <= {AckMeta, FrameMeta}
    assert sum(each.size_bytes for batch in world.log[seen:] for each in batch.records) < REPLY / 5
    assert (AckMeta in kinds) == (durability != "memory")
    assert msgpack.unpackb(ask(worker, job.id)["result"]) == b"x" * REPLY


def test_in_the_log_it_is_there() -> None:
    """As it is by default: the test above would see it."""
    world, worker, job = asked()
    seen = len(world.log)
    told(worker, job)
    world.sync()
    assert StateMeta in {type(meta) for meta in written(world, seen)}
    assert sum(each.size_bytes for batch in world.log[seen:] for each in batch.records) > REPLY


@pytest.mark.parametrize("waits", [True, False])
def test_it_is_told_when_the_ack_is_safe_and_not_before(waits: bool) -> None:
    """A crash would give the request to another worker, whose reply may be another one."""
    world, worker, job = asked(results_in="memory")
    caller = world.hello("caller")
    if waits:
        assert ask(caller, job.id, wait_ms=30_000) is None
    told(worker, job)
    if not waits:
        assert ask(caller, job.id, wait_ms=30_000) is None
    assert later(caller) is None
    world.sync()
    value = later(caller)
    assert (value["state"], msgpack.unpackb(value["result"])) == ("DONE", b"x" * REPLY)


def test_a_restart_forgets_it() -> None:
    """Who asks then is told that nothing is known; what is in the log by the setting of before stays."""
    world, worker, job = asked(results_in="memory")
    told(worker, job)
    world.sync()
    world.restart()
    assert ask(world.hello(), job.id, wait_ms=30_000) is None
    world.advance(2_000)
    world, worker, job = asked()
    told(worker, job)
    world.sync()
    world.auto_sync = True
    worker.set("jobs", results_in="memory")
    world.restart()
    assert ask(world.hello(), job.id)["state"] == "DONE"
