"""protocol.md 5.20, readers without a group in the core: a read is answered once; nothing is left of who went."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client
from harness import World
from test_core_logs import asked, log_of, make_log, read


def a_log(*, lag: bool = False) -> tuple[World, Client, Client]:
    """Return a world with a log, one who publishes and one who reads."""
    world = World()
    client = world.hello()
    make_log(client)
    world.files.lag = lag
    return world, client, world.hello()


def settle(world: World) -> None:
    """Let the files do all that is asked of them."""
    world.files.lag = False
    world.files.catch_up()
    world.files.retry()


def answers(client: Client) -> list[dict[str, Any]]:
    """Take the answers of reads out of the inbox."""
    found = [frame for frame in client.inbox if frame["op"] in ("log", "error")]
    client.inbox.clear()
    return found


def timers(world: World) -> list[Any]:
    """Return the timers of those who wait."""
    return [reader.timer for reader in log_of(world).readers.values()]


def nobody_is_left(world: World, timers: list[Any]) -> bool:
    """Whether no reader is left, and none of these timers runs."""
    left = [*log_of(world).readers, *world.store.retained.readers]
    return not left and not any(timer.armed for timer in timers)


def test_a_reader_waits_for_what_comes() -> None:
    """A read at the end is answered when there is something, once."""
    world, client, reader = a_log()
    assert read(reader, start="next", wait_ms=1_000) is None
    timers_before = timers(world)
    client.publish("log", b"a")
    (answer,) = answers(reader)
    assert [each.raw for each in answer["messages"]] == [b"a"]
    client.publish("log", b"b")
    assert not answers(reader)
    assert nobody_is_left(world, timers_before)


def test_a_wait_ends_with_nothing() -> None:
    """Nothing came: the answer says so, and where to go on."""
    world, client, reader = a_log()
    client.publish("log", b"a")
    assert read(reader, start="offset", at=1, wait_ms=1_000) is None
    world.advance(2_000)
    (answer,) = answers(reader)
    assert (answer["count"], answer["next"], answer["stop"]) == (0, 1, 1)
    client.publish("log", b"b")
    assert not answers(reader)


@pytest.mark.parametrize("wait_ms", [0, 1_000])
def test_what_comes_while_it_is_read_is_answered_once(wait_ms: int) -> None:
    """The log grows while the files are asked for a reader: he is answered once."""
    world, client, reader = a_log(lag=True)
    read(reader, start="first", wait_ms=wait_ms)
    for body in (b"a", b"b", b"c"):
        client.publish("log", body)
        if world.files.waiting:
            world.files.work()
    settle(world)
    assert len(answers(reader)) == 1
    assert not log_of(world).readers


def test_a_wait_that_ends_while_it_is_read_is_answered_once() -> None:
    """The files come back after the wait is over."""
    world, client, reader = a_log()
    client.publish("log", b"a")
    world.files.lag = True
    read(reader, start="first", wait_ms=1_000)
    world.advance(2_000)
    settle(world)
    assert len(answers(reader)) == 1


GOES: dict[str, Callable[[World, Client, Client], object]] = {
    "disconnected": lambda world, client, reader: world.disconnect(reader),
    "withdrawn": lambda world, client, reader: asked(reader, "withdraw", withdrawn=reader.requests),
}


@pytest.mark.parametrize("lag", [False, True])
@pytest.mark.parametrize("how", GOES)
def test_nothing_is_left_of_who_went(how: str, lag: bool) -> None:
    """Reader and timer go at once, and no answer follows."""
    world, client, reader = a_log()
    world.files.lag = lag
    assert read(reader, start="next", wait_ms=60_000) is None
    timers_before = timers(world)
    GOES[how](world, client, reader)
    assert nobody_is_left(world, timers_before)
    client.publish("log", b"a")
    settle(world)
    assert not answers(reader)


def test_a_withdrawn_read_that_is_under_way_is_not_answered() -> None:
    """Without a wait, too."""
    world, _, reader = a_log(lag=True)
    read(reader)
    assert asked(reader, "withdraw", withdrawn=reader.requests) == {}
    settle(world)
    assert not answers(reader)


@pytest.mark.parametrize("wait_ms", [0, 60_000])
@pytest.mark.parametrize("lag", [False, True])
def test_a_reader_is_told_once_that_the_log_is_gone(wait_ms: int, lag: bool) -> None:
    """One that waits, and one for whom the files are asked."""
    world, client, reader = a_log()
    client.publish("log", b"a")
    world.files.lag = lag
    read(reader, start="next", wait_ms=wait_ms)
    answers(reader) if not (lag or wait_ms) else None
    assert client.delete("log", force=True)["op"] == "reply"
    settle(world)
    world.advance(100_000)
    told = answers(reader)
    assert [frame["code"] for frame in told] == ["unknown_queue"] * bool(lag or wait_ms)
    assert not world.store.retained.logs


def test_a_number_that_waits_is_not_used_again() -> None:
    """As of a receive: the peer breaks the protocol."""
    _, _, reader = a_log()
    assert read(reader, start="next", wait_ms=60_000) is None
    reader.requests -= 1
    read(reader, start="next", wait_ms=60_000)
    assert reader.closed


def test_a_reader_behind_the_files_waits_for_its_offset() -> None:
    """Who starts at `next` while the files are behind gets what comes then, and not what came before."""
    world, client, reader = a_log(lag=True)
    client.publish("log", b"a")
    assert read(reader, start="next", wait_ms=60_000) is None
    client.publish("log", b"b")
    settle(world)
    (answer,) = answers(reader)
    assert [each.raw for each in answer["messages"]] == [b"b"]


def test_a_read_that_fails_is_answered() -> None:
    """The disk does not do it, once: the reader is told to come again, and nothing is left of the first time."""
    world, client, reader = a_log()
    client.publish("log", b"a")
    world.files.errors.append(OSError("not now"))
    refusal = read(reader)
    assert (refusal["code"], refusal["retryable"], "not now" in refusal["text"]) == (
        "busy",
        True,
        True,
    )
    assert [each.raw for each in read(reader)["messages"]] == [b"a"]
