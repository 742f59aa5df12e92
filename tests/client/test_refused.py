"""What the server refuses: tried again within the deadline and in order, taken apart, told by index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fake_server import FakeServer
from steps import settle_loop

import minibroker
from minibroker.session.calls import retry_delay_ms

BUSY = {"code": "busy", "text": "full", "retryable": True, "retry_ms": 20}
FULL = {"code": "disk_full", "text": "no room", "retryable": True}


def bodies(server: FakeServer, queue: str = "q") -> list[bytes]:
    """Return what is stored, in order."""
    return [stored[2] for stored in server.queue(queue).ready]


def publishes(decide: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> Any:
    """Return a `refuse` of the fake server that asks `decide` about the n-th publish frame."""
    count = 0

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal count
        part = header["parts"][0]
        if part["op"] != "publish":
            return None
        count += 1
        return decide(count, part)

    return refuse


@pytest.mark.parametrize("refusal", [BUSY, FULL], ids=["busy", "disk_full"])
async def test_what_is_refused_for_now_is_tried_again(
    broker: minibroker.Broker, server: FakeServer, refusal: dict[str, Any]
) -> None:
    server.refuse = publishes(lambda n, part: refusal if n <= 3 else None)
    confirm = await broker.queue("q").publish(b"a", timeout=10)
    assert confirm.id.sequence == 0
    assert len(server.parts("publish")) == 4


async def test_at_the_deadline_the_refusal_is_raised(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.refuse = publishes(lambda n, part: BUSY)
    with pytest.raises(minibroker.Busy):
        await broker.queue("q").publish(b"a", timeout=0.2)
    assert len(server.parts("publish")) > 2


@pytest.mark.parametrize("retry_ms", [0, 20, 1_500])
@pytest.mark.parametrize(("whole_ms", "answer_ms"), [(20_000, 900), (30_000, 900), (2_000, 90)])
def test_the_last_try_leaves_time_for_its_answer(
    whole_ms: int, answer_ms: int, retry_ms: int
) -> None:
    """Or what is known to be stored nowhere would end as OutcomeUnknown, on a busy machine."""
    error = minibroker.DiskFull("no room", retry_ms=retry_ms)
    now_ms, tries = answer_ms, 0
    while True:
        left_ms = whole_ms - now_ms
        delay_ms = retry_delay_ms(error, tries, left_ms, whole_ms, lambda low, high: high)
        if delay_ms is None:
            break
        now_ms += delay_ms + answer_ms
        tries += 1
        assert now_ms < whole_ms, "answered too late"
    assert now_ms >= 0.9 * whole_ms, "it gave up early"


async def test_a_request_refused_for_now_is_asked_again(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    asked: list[Any] = []

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        if header["parts"][0]["op"] != "purge":
            return None
        asked.append(header)
        return FULL if len(asked) < 3 else None

    server.refuse = refuse
    with pytest.raises(KeyError):  # the fake server has no counts
        await broker.queue("q").purge()
    assert len(asked) == 3


async def test_nothing_of_its_queue_overtakes_what_was_refused(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.refuse = publishes(lambda n, part: BUSY if n == 1 else None)
    queue = broker.queue("q")
    first = asyncio.ensure_future(queue.publish(b"1", key="k"))
    await settle_loop()
    assert bodies(server) == []
    later = [asyncio.ensure_future(queue.publish(b"%d" % n, key="k", timeout=20)) for n in (2, 3)]
    other = asyncio.ensure_future(broker.queue("other").publish(b"x"))
    await other  # another queue does not wait
    assert bodies(server) == []
    await asyncio.gather(first, *later)
    assert bodies(server) == [b"1", b"2", b"3"]


async def test_a_message_whose_key_was_overtaken_is_refused_not_reordered(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Two frames were under way; the second is stored, so the first of the same key cannot follow it."""
    server.refuse = publishes(lambda n, part: BUSY if n == 1 else None)
    queue = broker.queue("q")
    calls = [
        queue.publish(b"1", key="k", timeout=20),
        queue.publish(b"2", key="k", timeout=21),
        queue.publish(b"3", key="other", timeout=20),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], minibroker.Busy)
    assert bodies(server).index(b"2") >= 0
    assert b"1" not in bodies(server)


async def test_those_of_its_group_with_other_keys_are_stored(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """What shares a frame shares no fate: only messages of the key that was overtaken cannot follow."""
    server.refuse = publishes(lambda n, part: BUSY if n == 1 else None)
    queue = broker.queue("q")
    results = await asyncio.gather(
        queue.publish(b"1", key="k", timeout=20),
        queue.publish_many([b"a", b"b"], key="other", timeout=20),
        queue.publish(b"2", key="k", timeout=20),
        queue.publish(b"c", key="other", timeout=20),
        queue.publish(b"plain", timeout=20),
        queue.publish(b"3", key="k", timeout=21),
        return_exceptions=True,
    )
    assert [type(result).__name__ for result in results] == [
        "Busy", "Confirms", "Busy", "Confirm", "Confirm", "Confirm",
    ]  # fmt: skip
    assert bodies(server) == [b"3", b"a", b"b", b"c", b"plain"]


async def test_without_keys_both_are_stored(broker: minibroker.Broker, server: FakeServer) -> None:
    server.refuse = publishes(lambda n, part: BUSY if n == 1 else None)
    queue = broker.queue("q")
    await asyncio.gather(queue.publish(b"1", timeout=20), queue.publish(b"2", timeout=21))
    assert sorted(bodies(server)) == [b"1", b"2"]


@pytest.mark.parametrize("code", ["too_large", "bad_value", "id_conflict"])
async def test_a_refused_group_is_taken_apart(
    broker: minibroker.Broker, server: FakeServer, code: str
) -> None:
    """One of fifty calls is at fault: it alone is refused, and the others keep their order."""

    def decide(n: int, part: dict[str, Any]) -> dict[str, Any] | None:
        frame = server_frame(server)
        guilty = b"bad" in frame
        return {"code": code, "text": "no", "retryable": False} if guilty else None

    server.refuse = publishes(decide)
    queue = broker.queue("q")
    wishes = [b"%02d" % n if n != 17 else b"bad" for n in range(50)]
    results = await asyncio.gather(
        *(queue.publish(body, key="k") for body in wishes), return_exceptions=True
    )
    refused = [index for index, result in enumerate(results) if isinstance(result, Exception)]
    assert refused == [17]
    assert bodies(server) == [body for body in wishes if body != b"bad"]


def server_frame(server: FakeServer) -> bytes:
    """Return the frame that is being judged."""
    blob: bytes = server.judged.blob
    return blob


async def test_what_a_refused_group_is_taken_apart_into_is_what_each_call_said(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """The second half had the key, the encoding and the delay of the first."""
    server.refuse = publishes(lambda n, part: BUSY if n == 1 else None)
    queue = broker.queue("q")
    await asyncio.gather(
        queue.publish(b"raw", key="a", delay=0.05, timeout=10),
        queue.publish({"n": 1}, key="b", delay=7, timeout=10),
        queue.publish({"n": 2}, key="b", delay=7, timeout=10),
    )
    sent = server.parts("publish")[1:]
    said = [(part.get("key"), part.get("encoding", 0), part.get("delay_ms")) for part in sent]
    assert said == [("a", 0, 50), ("b", 1, 7_000)]


async def test_groups_fit_the_frames_of_the_server(server: FakeServer) -> None:
    server.max_frame_bytes = 60_000
    async with minibroker.connect() as broker:
        queue = broker.queue("q")
        await asyncio.gather(*(queue.publish(b"x" * 1_000) for _ in range(500)))
        await asyncio.gather(*(queue.publish(b"x" * 100) for _ in range(2_000)))
        await queue.publish_many([b"x" * 3_000] * 200, key="k" * 255, headers={"h": "v" * 100})
    assert max(map(len, server.payloads)) <= 60_000
    assert len(bodies(server)) == 2_700


async def test_publish_many_says_what_was_stored(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    refusal = {"code": "bad_value", "text": "no", "retryable": False}
    server.refuse = publishes(lambda n, part: refusal if n == 2 else None)
    with pytest.raises(minibroker.BadValue) as caught:
        await broker.queue("q").publish_many([b"%d" % n for n in range(1_200)])
    error = caught.value
    assert error.confirms is not None
    assert error.failed is not None
    assert sorted(error.failed) == list(range(500, 1_000))
    assert isinstance(error.failed[700], minibroker.BadValue)
    stored = [index for index, confirm in enumerate(error.confirms) if confirm is not None]
    assert stored == [*range(500), *range(1_000, 1_200)]
    confirm = error.confirms[1_000]
    assert confirm is not None
    assert confirm.id.sequence == 500


async def test_publish_many_that_runs_out_of_time_says_what_was_stored(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    queue = broker.queue("q")
    server.withhold_from = 2
    with pytest.raises(minibroker.OutcomeUnknown) as caught:
        await queue.publish_many([b"x"] * 700, timeout=0.2)
    assert caught.value.failed is not None
    assert sorted(caught.value.failed) == list(range(500, 700))


async def test_publish_many_that_is_cancelled_says_what_was_stored(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.withhold_from = 2
    call = asyncio.ensure_future(broker.queue("q").publish_many([b"x"] * 700))
    await settle_loop()
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    failed = caught.value.failed  # type: ignore[attr-defined]
    assert {type(failed[index]) for index in range(500, 700)} == {minibroker.OutcomeUnknown}
    assert caught.value.confirms[0].id.sequence == 0  # type: ignore[attr-defined]


async def test_parts_that_shared_a_refused_settle_frame_are_sent_alone(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    for name in ("a", "b"):
        await broker.queue(name).publish(b"x")
    [first] = await broker.queue("a").receive()
    [second] = await broker.queue("b").receive()

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        guilty = any(part["op"] == "ack" and part["queue"] == "a" for part in header["parts"])
        return {"code": "bad_value", "text": "no", "retryable": False} if guilty else None

    server.refuse = refuse
    await asyncio.gather(first.ack(), second.ack())
    await second.run.delivery.shell.drained()  # type: ignore[attr-defined]
    assert first.lost
    assert not second.lost
    assert [op for op, *_ in server.settled] == ["ack"]
