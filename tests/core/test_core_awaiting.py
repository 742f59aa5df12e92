"""protocol.md, 4.3: what a session may have begun before a start goes nowhere else while the start waits for it.

`ACTS` has every operation that a peer can send, and `BY_ITSELF` what the server does without being asked: each is
tried on a queue that waits. What ends a message may do so; everything else leaves it to the one that may have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.verbs.operations import OPERATIONS

WORK: Final = b"at work"
QUEUES: Final = ("q", "q.dlq", "elsewhere", "elsewhere.dlq")
Act = Callable[[Client, Delivered], Any]


def request(op: str, **fields: Any) -> Act:
    """Return the act of a request that names no messages."""
    return lambda client, message: client.request({"op": op, **fields})


def named(op: str, **fields: Any) -> Act:
    """Return the act of a request that names the message by its id."""

    def act(client: Client, message: Delivered) -> Any:
        column = wire.pack_runs([(0, *message.id, 1)])
        return client.request({"op": op, "queue": "q", "runs": 1, **fields}, column)

    return act


def settling(op: str, **fields: Any) -> Act:
    """Return the act of one that settles what is another's, by its token."""

    def act(client: Client, message: Delivered) -> Any:
        part, columns = settle_part(op, "q", [message.run], **fields)
        if op in ("complete", "progress"):
            columns += wire.pack_strings([b"text"])
        return client.sequenced([part], columns)

    return act


def delete(client: Client, message: Delivered) -> Any:
    """Delete the queue, which nobody consumes any more."""
    for other in client.world.clients.values():
        for consumer in range(10, 10 + len(QUEUES)):
            other.cancel(consumer)
    return client.delete("q", force=True)


def route(client: Client, message: Delivered) -> Any:
    """Publish to an exchange that leads to the queue."""
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    client.request({"op": "bind", "exchange": "e", "queue": "q"})
    part = {"op": "route", "exchange": "e", "count": 1}
    return client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"1")


def nothing(client: Client, message: Delivered) -> None:
    """Do what is no matter of a message: it is about connections, schedules, or keys."""


def login(client: Client, message: Delivered) -> None:
    client.world.attach(client.world.resume(client.world.hello()))


ACTS: Final[dict[str, list[Act]]] = {
    **{op: [login] for op in ("hello", "resume", "attach")},
    "publish": [
        lambda client, _: client.publish("q", b"1", b"2", b"3"),
        lambda client, _: client.publish("q", b"new", uniques=["lock"]),
        lambda client, _: client.publish("q", b"new", uniques=["lock"], unique_mode="replace"),
        lambda client, message: client.publish(
            "q", b"after", after=wire.pack_runs([(0, *message.id, 1)])
        ),
    ],
    "route": [route],
    **{
        op: [settling(op)]
        for op in ("begin", "ack", "complete", "nack", "reject", "release", "extend")
    },
    "progress": [settling("progress", permille=5)],
    "result": [named("result")],
    "consume": [request("consume", queue="q", consumer=9, prefetch=100)],
    "cancel": [request("cancel", consumer=1)],
    "receive": [request("receive", queue="q", count=100)],
    "withdraw": [request("withdraw", withdrawn=1)],
    "peek": [request("peek", queue="q", count=100)],
    "stats": [request("stats")],
    "times": [request("times", queue="q")],
    "explain": [named("explain")],
    "retime": [named("retime", delay_ms=60_000), named("retime")],
    "cancel_messages": [named("cancel_messages")],
    "redrive": [request("redrive", queue="q.dlq", runs=0), named("redrive", queue="q.dlq")],
    "redrive_start": [request("redrive_start", queue="q.dlq", runs=0)],
    "redrive_show": [request("redrive_show", queue="q.dlq")],
    "redrive_stop": [request("redrive_stop", queue="q.dlq")],
    "error_groups": [request("error_groups", queue="q.dlq")],
    "move": [request("move", queue="q", target="elsewhere", runs=0), named("move", target="elsewhere")],
    "purge": [request("purge", queue="q", runs=0), named("purge")],
    "queue_set": [request("queue_set", queue="q", settings={"max_attempts": 1})],
    "queue_declare": [request("queue_declare", queue="q", settings={})],
    "queue_show": [request("queue_show", queue="q")],
    "queue_delete": [request("queue_delete", queue="q", force=0), delete],
    "pause": [request("pause", queue="q", for_ms=1_000)],
    "unpause": [request("unpause", queue="q")],
    **{
        op: [nothing]
        for op in (
            "key_set", "keys", "schedule_set", "schedules", "schedule_delete", "schedule_pause", "schedule_run",
            "pauses", "accept", "ping", "goodbye", "exchange_set", "exchanges", "exchange_delete", "bind",
            "unbind", "bindings", "policy_set", "policies", "policy_delete",
            "log_group_set", "log_group_seek", "log_show", "log_read",
            "schema_set", "schema_show",
        )
    },
}  # fmt: skip
# After these it is over, and the one that has it is told so: nobody else gets it.
ENDS: Final = ("publish 2", "cancel_messages 0", "purge 0", "purge 1", "queue_delete 1")
CASES: Final = [(op, at) for op in OPERATIONS for at in range(len(ACTS[op]))]


def at_work(
    queue: str = "q", *, redrive: bool = False, **settings: Any
) -> tuple[World, Client, Delivered]:
    """Return a world that waits for a session, and what that has begun without a record of it.

    `redrive`: one is under way of all that is dead, and waits for room in "q".
    """
    world = World(auto_sync=False)
    client = world.hello("publisher")
    client.set("q", **settings)
    client.publish("q", WORK, uniques=["lock"], ttl_ms=1_000 if "on_expired" in settings else 0)
    world.sync()
    if queue == "q.dlq":
        client.take_from("q")
        client.settle("reject", *client.receive_all("q"))
        world.sync()
    if redrive:
        client.set("q", max_messages=1)
        client.publish("q", b"full")
        world.sync()
        client.request({"op": "redrive_start", "queue": "q.dlq"})
        world.run_jobs()
        world.sync()
    client.send(client.frame([{"op": "goodbye"}]))
    worker = world.hello("worker")
    worker.consume(queue)
    world.sync()
    (message,) = worker.messages()
    worker.begin(message)
    world.restart(clean=False, waits=True)
    world.auto_sync = True
    return world, worker, message


def thief(world: World) -> Client:
    """Return a client that takes whatever it can get."""
    client = world.hello("thief")
    for number, queue in enumerate(QUEUES, 10):
        client.consume(queue, prefetch=100, consumer=number)
    return client


def is_lost(world: World, worker: Client, message: Delivered) -> bool:
    """Let the session come back in the last moment; return whether what it had is lost to it."""
    again = world.resume(worker, [message])
    lost = bool(again.pop("welcome")["lost_runs"])
    assert bool(again.settle("ack", message)["lost_runs"]) is lost
    return lost


def taken(world: World, client: Client) -> list[bytes]:
    """Return what a client got of the work, also when the wait is long over."""
    world.run_jobs()
    world.advance(limits.RESUME_WAIT_MS + 60_000)
    world.run_jobs()
    return [each.body for each in client.messages() if each.body == WORK]


def test_every_operation_is_tried() -> None:
    assert set(ACTS) == set(OPERATIONS)


@pytest.mark.parametrize(("op", "at"), CASES, ids=lambda case: str(case))
def test_what_may_be_at_work_is_nobody_elses_whatever_is_asked(op: str, at: int) -> None:
    is_of_dead = op.startswith("redrive") or op == "error_groups"
    world, worker, message = at_work("q.dlq" if is_of_dead else "q")
    other = thief(world)
    person = world.hello("person")
    ACTS[op][at](person, message)
    assert not person.closed, "it is as the protocol says"
    world.advance(limits.RESUME_WAIT_MS - 100)
    assert is_lost(world, worker, message) is (f"{op} {at}" in ENDS)
    assert taken(world, other) == []
    world.check()


@pytest.mark.parametrize("on_expired", ["drop", "dead-letter"])
def test_it_does_not_expire_as_it_may_have_begun_in_time(on_expired: str) -> None:
    world, worker, message = at_work(on_expired=on_expired)
    other = thief(world)
    world.advance(limits.RESUME_WAIT_MS - 100)
    assert not is_lost(world, worker, message)
    assert taken(world, other) == []


@pytest.mark.parametrize("on_expired", ["drop", "dead-letter"])
def test_what_was_not_at_work_expires_when_the_wait_is_over(on_expired: str) -> None:
    world, worker, message = at_work(on_expired=on_expired)
    assert not is_lost(world, worker, message)
    client = world.hello()
    client.publish("q", b"1", ttl_ms=1_000)
    world.advance(900)
    assert list(world.states("q").values()) == ["READY"]
    world.advance(300)
    assert world.states("q") == {}
    assert len(world.states("q.dlq")) == (on_expired == "dead-letter")


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
def test_it_does_not_leave_a_full_queue(overflow: str) -> None:
    world, worker, message = at_work(max_messages=1, overflow=overflow)
    other, client = thief(world), world.hello()
    answer = client.publish("q", b"new")
    assert (answer["code"], answer["retryable"]) == ("busy", True)
    assert not is_lost(world, worker, message)
    assert taken(world, other) == []


def test_a_redrive_goes_on_after_a_start_when_all_are_back() -> None:
    world, worker, message = at_work("q.dlq", redrive=True)
    other = thief(world)
    other.settle("ack", *other.messages())  # what filled the queue
    world.advance(limits.RESUME_WAIT_MS - 100)
    assert not is_lost(world, worker, message)
    assert taken(world, other) == []


def test_one_that_was_moved_before_it_was_begun_is_given_back_where_it_is() -> None:
    """Its id says where it was published; it is looked for where the session took from, too."""
    world = World(auto_sync=False)
    client = world.hello("publisher")
    client.publish("from", WORK)
    world.sync()
    client.request({"op": "move", "queue": "from", "target": "q"})
    world.sync()
    worker = world.hello("worker")
    worker.consume("q")
    world.sync()
    (message,) = worker.messages()
    worker.begin(message)
    world.restart(clean=False, waits=True)
    world.auto_sync = True
    other = thief(world)
    assert not is_lost(world, worker, message)
    assert taken(world, other) == []
