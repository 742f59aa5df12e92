"""Results in virtual time: kept with the end that they tell of, told to who asks before and after, bounded."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from core_client import Client, Delivered
from harness import World
from looks import counted

from minibroker.contract import limits, wire
from minibrokerd.core.core import RESULTS_SHARE
from minibrokerd.core.model import kept, results
from minibrokerd.core.model.results import Asked
from minibrokerd.core.verbs import results as results_verb

HOUR_MS = 3_600_000


def told(client: Client, *messages: Delivered, op: str = "complete", **fields: Any) -> Any:
    """Complete messages with their bodies as results, or say them as notes of a progress; return the answer."""
    part = {"op": op, "queue": messages[0].queue, "runs": len(messages), **fields}
    texts = [msgpack.packb(m.body) if op == "complete" else m.body for m in messages]
    columns = wire.pack_runs([m.run for m in messages]) + wire.pack_strings(texts)
    return client.sequenced([part], columns)


def ask(
    client: Client, id: tuple[int, int], queue: str = "jobs", wait_ms: int = 0, **more: int
) -> Any:
    """Ask for a result; None: the answer waits."""
    part = {"op": "result", "queue": queue, "runs": 1, "wait_ms": wait_ms, **more}
    answer = client.request(part, wire.pack_runs([(0, *id, 1)]))
    return answer if answer is None or answer["op"] == "error" else answer["value"]


def later(client: Client, request: int = 0) -> Any:
    """Take the answer of a request that waited; None: it is not there."""
    answer = client.answer(request=request or client.requests)
    return None if answer is None else answer["value"]


def working(*bodies: bytes, result_ms: int = HOUR_MS, **options: Any) -> Any:
    """Return a world, a client that holds messages of `jobs`, and those."""
    world = World(**options)
    client = world.hello()
    client.set("jobs", result_ms=result_ms)
    client.publish("jobs", *bodies)
    jobs = client.receive_all("jobs", len(bodies))
    world.auto_sync = False
    return world, client, jobs


def test_a_result_is_told_to_who_waits_when_the_ack_is_safe_and_not_before() -> None:
    """Within 20 ms of the ack: in the very step that its sync ends, no time passes."""
    world, client, (job,) = working(b"done")
    caller = world.hello("caller")
    assert ask(caller, job.id, wait_ms=30_000) is None
    told(client, job)
    assert later(caller) is None, "a crash could still undo it"
    behind = world.hello("behind")
    assert ask(behind, job.id) is None, "who asks now waits for it as well"
    now_ms = world.now_ms
    world.sync()
    value = later(caller)
    assert later(behind) == value
    assert (value["state"], msgpack.unpackb(value["result"])) == ("DONE", b"done")
    assert value["ended_unix_ms"] == world.unix_ms
    assert world.now_ms == now_ms
    assert ask(caller, job.id)["result"] == value["result"], "also afterwards, and twice"
    assert ask(caller, job.id, queue="")["state"] == "DONE"


@pytest.mark.parametrize("digests", [False, True])
def test_results_survive_restarts_and_their_segment_and_end_in_time(digests: bool) -> None:
    world, client, jobs = working(b"1", b"2")
    world.digests = digests
    told(client, jobs[0])
    client.settle("ack", jobs[1])
    world.sync()
    for _ in range(2):
        world.free(world.core.synced)
        world.restart()
        caller = world.hello()
        assert msgpack.unpackb(ask(caller, jobs[0].id)["result"]) == b"1"
        answer = ask(caller, jobs[1].id)
        assert (answer["state"], answer.get("result")) == ("DONE", None)
    world.advance(HOUR_MS + 1)
    assert ask(caller, jobs[0].id)["state"] == "NONE"
    world.advance(kept.BUCKET_MS)
    world.run_jobs()
    assert world.store.sums.kept_log_bytes == 0


@pytest.mark.parametrize("kept_in_time", [True, False])
def test_a_crash_before_the_sync_leaves_the_message_and_no_result(kept_in_time: bool) -> None:
    world, client, (job,) = working(b"1")
    told(client, job)
    if kept_in_time:
        world.sync()
    world.restart(clean=False)
    caller = world.hello()
    assert ask(caller, job.id)["state"] == ("DONE" if kept_in_time else "NONE")
    assert len(world.states("jobs")) == (0 if kept_in_time else 1)


def test_nothing_is_kept_where_nobody_asked() -> None:
    world, client, (one, two, three) = working(b"1", b"2", b"3", result_ms=0)
    told(client, one)
    client.settle("ack", two)
    told(client, three, kept_ms=60_000)
    world.sync()
    assert [ask(client, m.id)["state"] for m in (one, two, three)] == ["NONE", "NONE", "DONE"]


def test_a_message_that_dies_is_cancelled_or_purged_has_that_as_its_result() -> None:
    world, client, (dead, cancelled, purged, all_purged) = working(b"1", b"2", b"3", b"4")
    caller = world.hello()
    for message in (dead, cancelled, purged, all_purged):
        ask(caller, message.id, wait_ms=30_000)
    first = caller.requests - 3
    part = {"op": "reject", "queue": "jobs", "runs": 1}
    texts = wire.pack_strings([b"ValueError"]) + wire.pack_strings([b"never"])
    client.sequenced([part], wire.pack_runs([dead.run]) + texts)
    world.sync()
    value = later(caller, first)
    assert (value["state"], value["error_class"], value["error_text"]) == (
        "DEAD",
        "ValueError",
        "never",
    )
    client.request(
        {"op": "cancel_messages", "queue": "jobs", "runs": 1},
        wire.pack_runs([(0, *cancelled.id, 1)]),
    )
    client.settle("release", purged)
    client.request(
        {"op": "purge", "queue": "jobs", "runs": 1}, wire.pack_runs([(0, *purged.id, 1)])
    )
    world.sync()
    assert later(caller, first + 1)["state"] == "CANCELLED"
    assert later(caller, first + 2)["state"] == "PURGED"
    client.request({"op": "purge", "queue": "jobs", "runs": 0})
    world.sync()
    assert later(caller, first + 3)["state"] == "PURGED"
    assert world.store.results.waiting == {}
    # What was dead may be done all the same.
    client.request({"op": "redrive", "queue": "jobs.dlq", "runs": 0})
    world.run_jobs()
    world.sync()
    [again] = client.receive_all("jobs")
    told(client, again)
    world.sync()
    assert ask(caller, dead.id)["state"] == "DONE"


def test_a_lost_lease_stores_nothing() -> None:
    world, client, (job,) = working(b"1")
    client.settle("release", job)
    answer = told(client, job)
    world.sync()
    answer = answer or client.answer(sequence=client.sequence)
    assert answer["results"] == [{"lost": 1}]
    assert ask(client, job.id)["state"] == "NONE"


def test_a_result_is_a_part_of_a_step() -> None:
    world, client, (job,) = working(b"1")
    texts = wire.pack_strings([msgpack.packb(7)])
    done = {"op": "complete", "queue": "jobs", "runs": 1}
    next = {"op": "publish", "queue": "next", "count": 1}
    lengths = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    answer = client.sequenced([done, next], wire.pack_runs([job.run]) + texts, lengths, b"n")
    assert answer is None
    world.sync()
    assert msgpack.unpackb(ask(client, job.id)["result"]) == 7
    assert list(world.states("next").values()) == ["READY"]


def test_who_waits_too_long_or_goes_is_waited_for_no_more() -> None:
    world, client, (job,) = working(b"1")
    caller = world.hello()
    assert ask(caller, job.id, wait_ms=1_000) is None
    world.advance(992)
    assert later(caller) is None
    world.advance(16)
    assert later(caller)["state"] == "NONE"
    assert ask(caller, job.id, wait_ms=1_000) is None
    caller.request({"op": "withdraw", "withdrawn": caller.requests})
    assert ask(caller, job.id, wait_ms=1_000) is None
    world.disconnect(caller)
    assert world.store.results.waiting == {}
    told(client, job)
    world.sync()
    world.advance(2_000)


def test_a_result_is_of_the_queue_where_it_was_published_or_ended() -> None:
    world, client, (job,) = working(b"1")
    client.publish("other", b"x")
    world.sync()
    assert ask(client, job.id, queue="other", wait_ms=1_000) is None
    other = client.requests
    told(client, job)
    world.sync()
    assert later(client, other) is None
    assert ask(client, job.id, queue="other")["state"] == "NONE"
    assert ask(client, job.id, queue="nowhere")["code"] == "unknown_queue"


def test_results_are_bounded_in_number_and_bytes() -> None:
    """The oldest are forgotten; one that is too large is refused, and nothing is settled."""
    object.__setattr__(kept.RESULT, "most", 3)
    try:
        world, client, jobs = working(*(b"%d" % number for number in range(5)))
        told(client, *jobs)
        world.sync()
        states = [ask(client, job.id)["state"] for job in jobs]
        assert states == ["NONE", "NONE", "DONE", "DONE", "DONE"]
    finally:
        object.__setattr__(kept.RESULT, "most", limits.MAX_RESULTS)
    entry_bytes = kept.ENTRY_BYTES + 40 + limits.MAX_RESULT_BYTES // 2
    object.__setattr__(kept.RESULT, "most_bytes", 2 * entry_bytes + 200)
    try:
        half = b"x" * (limits.MAX_RESULT_BYTES // 2)
        world, client, jobs = working(half, half, half, b"x" * limits.MAX_RESULT_BYTES)
        told(client, *jobs[:3])
        world.sync()
        assert [ask(client, job.id)["state"] for job in jobs[:3]] == ["NONE", "DONE", "DONE"]
        assert told(client, jobs[3])["code"] == "too_large"
        assert world.states("jobs")[jobs[3].id] == "BEGUN"
    finally:
        object.__setattr__(kept.RESULT, "most_bytes", limits.MAX_RESULTS_BYTES)


def test_results_take_a_share_of_memory_and_no_more() -> None:
    """With 64 MiB for the process, 8,500 of 1 KB that were kept refused all publishes for an hour."""
    world, client, _ = working(b"first")
    world.core.limit_memory(RESULTS_SHARE * 10 * (kept.ENTRY_BYTES + 40 + 1_000))
    client.publish("jobs", *[b"x" * 950] * 30)
    world.sync()
    jobs = client.receive_all("jobs", 30)
    told(client, *jobs)
    world.sync()
    states = [ask(client, job.id)["state"] for job in jobs]
    assert states == ["NONE"] * states.count("NONE") + ["DONE"] * states.count("DONE")
    assert 8 <= states.count("DONE") <= 11
    assert world.store.sums.kept_bytes < 10 * (kept.ENTRY_BYTES + 40 + 1_000)
    world.core.limit_memory(2**40)
    assert world.store.kept._most_bytes == {kept.RESULT.number: limits.MAX_RESULTS_BYTES}


def test_progress_is_told_to_who_wants_it_and_left_behind_at_the_end() -> None:
    world, client, (job,) = working(b"half way")
    caller = world.hello()
    assert ask(caller, job.id, wait_ms=30_000, mark=0) is None
    with_it = caller.requests
    assert ask(caller, job.id, wait_ms=30_000) is None
    records = len(world.log)
    told(client, job, op="progress", permille=500)
    value = later(caller, with_it)
    assert (value["state"], value["permille"], value["note"]) == ("NONE", 500, "half way")
    assert later(caller) is None, "who did not ask for it hears of the end only"
    assert len(world.log) == records
    assert ask(caller, job.id, wait_ms=30_000, mark=value["mark"]) is None
    assert ask(world.hello(), job.id, wait_ms=30_000, mark=0)["permille"] == 500
    told(client, job)
    world.sync()
    assert later(caller)["state"] == "DONE"
    assert world.store.results.progress == {}
    assert told(client, job, op="progress", permille=1)["results"] == [{"lost": 1}]


def test_of_so_many_messages_it_is_known_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then those are forgotten that said nothing for longest."""
    monkeypatch.setattr(results, "MOST_PROGRESS", 2)
    world, client, jobs = working(b"a", b"b", b"c")
    for job in (*jobs[:2], *jobs[:1], jobs[2]):
        told(client, job, op="progress", permille=500)
    assert list(world.store.results.progress) == [jobs[0].id, jobs[2].id]


class Only:
    """The scope of a token for some queues."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def covers(self, queue: str) -> bool:
        """Whether this one."""
        return queue in self._names


@pytest.mark.parametrize("covered", [True, False])
def test_who_names_no_queue_hears_of_those_that_its_token_is_for(covered: bool) -> None:
    world, client, (job,) = working(b"1")
    early, late = world.hello(), world.hello()
    for caller in (early, late):
        world.store.connections[caller.connection].scope = Only("jobs" if covered else "other")
    assert ask(early, job.id, queue="", wait_ms=30_000, mark=0) is None
    told(client, job, op="progress", permille=5)
    value = later(early)
    assert (value is not None) is covered
    assert ("permille" in ask(late, job.id, queue="")) is covered
    if covered:
        assert ask(early, job.id, queue="", wait_ms=30_000) is None
    told(client, job)
    world.sync()
    assert (later(early) is not None) is covered
    assert ask(late, job.id, queue="")["state"] == ("DONE" if covered else "NONE")
    client.request({"op": "queue_delete", "queue": "jobs", "force": 1})
    world.sync()


def test_who_waits_for_the_result_of_many_goes_without_a_look_at_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4,000 of a connection among 12,000 for one message: its end took everybody half a second."""
    world, client, (job,) = working(b"1")
    callers = [world.hello("caller") for _ in range(3)]
    for _ in range(50):
        for caller in callers:
            assert ask(caller, job.id, wait_ms=HOUR_MS) is None
    compared = []

    def equals(one: Asked, other: object) -> bool:
        compared.append(one)
        return one is other

    monkeypatch.setattr(Asked, "__eq__", equals)
    world.disconnect(callers[1].connection)
    assert len(compared) <= 50
    told(client, job)
    world.sync()
    assert [later(caller)["state"] for caller in (callers[0], callers[2])] == ["DONE"] * 2


def moved(world: World, client: Client) -> None:
    client.request({"op": "move", "queue": "jobs", "target": "other", "runs": 0})


def delayed(world: World, client: Client) -> None:
    client.retime("jobs", (1, 0), HOUR_MS)


def begun(world: World, client: Client) -> None:
    client.receive_all("jobs", 2, lease_ms=HOUR_MS)


def held(world: World, client: Client) -> None:
    client.consume("jobs", prefetch=9)


def dead(world: World, client: Client) -> None:
    client.settle("reject", *client.receive_all("jobs", 2))


def of_a_deleted_queue(world: World, client: Client) -> None:
    moved(world, client)
    client.delete("jobs", force=True)


@pytest.mark.parametrize("where", [moved, delayed, begun, held, dead, of_a_deleted_queue])
def test_who_waits_for_what_is_somewhere_goes_on_waiting(where: Any) -> None:
    world = World()
    client, caller = world.hello(), world.hello("caller")
    client.publish("jobs", b"1", b"2")
    where(world, client)
    assert ask(caller, (1, 0), queue="", wait_ms=30_000) is None
    world.advance(29_000)
    assert later(caller) is None
    world.advance(2_000)
    assert later(caller) == {"state": "NONE"}


@pytest.mark.parametrize("id", [(1, 2**30), (9, 0), (0, 0)])
def test_who_waits_for_what_never_was_is_told_at_once(id: tuple[int, int]) -> None:
    _, client, _ = working(b"1")
    answer = ask(client, id, queue="", wait_ms=30_000)
    if id[0]:
        assert (answer["code"], answer["retryable"]) == ("unknown_message", False)
    assert ask(client, id, queue="")["state"] == "NONE", "what is there now"


@pytest.mark.parametrize("start", [False, True])
def test_who_waits_for_what_has_ended_is_told_within_a_second(start: bool) -> None:
    world, client, (job, other) = working(b"1", b"2", result_ms=0)
    client.settle("ack", job)
    world.sync()
    if start:
        world.restart()
        client = world.hello()
    assert ask(client, job.id, wait_ms=30_000) is None
    first = client.requests
    assert ask(client, other.id, wait_ms=30_000) is None
    world.advance(1_100)
    assert client.answer(request=first)["code"] == "unknown_message"
    assert client.answer(request=client.requests) is None
    assert list(world.store.results.waiting) == [other.id]
    assert len(world.store.connections[client.connection].asked) == 1


def test_to_look_for_what_very_many_wait_for_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_verb, "MOST_IDS", 20)
    world, client, jobs = working(*[b"x"] * 300, result_ms=0)
    client.settle("ack", *jobs)
    world.sync()
    for job in jobs:
        assert ask(client, job.id, wait_ms=30_000) is None
    with counted(world) as looks:
        world.advance(1_500)
    assert sum(frame["op"] == "error" for frame in client.inbox) == 300
    assert looks.most <= 100, looks.applies
