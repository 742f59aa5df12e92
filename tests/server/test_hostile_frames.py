"""What a hostile frame may do: get one error frame, end its own connection, and cost next to nothing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import thread_time

import pytest
from hand import CHUNK_BYTES, Hand, Peer, frame, part, raw
from hostile import BEFORE_LOGIN, CLOSED, COSTLY, REFUSED, resume

SPARE_BYTES = 2 * 1024 * 1024  # what a frame may cost beyond its own length
SPARE_S = 0.005
REPETITIONS = 5


@pytest.fixture
def hand() -> Hand:
    """A server that knows the queue q."""
    hand = Hand()
    show = frame(part("queue_set", queue="q", settings={}), request=1)
    assert hand.login().give(show).take()[0]["op"] == "reply"
    return hand


def assert_alive(peer: Peer) -> None:
    """The connection still answers."""
    (answer,) = peer.give(frame(part("ping"), request=77)).take()
    assert (answer["op"], answer["request"]) == ("pong", 77)


def assert_ended(peer: Peer, code: str) -> None:
    """One error frame that names no frame came, of bounded length, and nothing follows it."""
    (error,) = peer.take()
    assert (error["op"], error["code"]) == ("error", code)
    assert "sequence" not in error
    assert "request" not in error
    assert error["retryable"] is False
    assert 0 < len(error["text"]) <= 500
    assert peer.closed
    assert not peer.transport.aborted


@pytest.mark.parametrize("name", CLOSED)
def test_one_error_frame_then_the_end(name: str, hand: Hand) -> None:
    """protocol.md 8: the state of the stream is lost; the server and its other clients go on."""
    other = hand.login()
    peer = hand.login().give(CLOSED[name]() + frame(part("ping"), request=1))
    assert_ended(peer, "protocol_error")
    assert_alive(other)
    assert hand.connections == 2  # the fixture's, and the other


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_frame_leaves_the_connection(name: str, hand: Hand) -> None:
    """protocol.md 8: the error names the frame, and the next frame is read."""
    code, make = REFUSED[name]
    peer = hand.login().give(make())
    (error,) = peer.take()
    assert (error["op"], error["code"]) == ("error", code)
    assert (error.get("sequence") or error.get("request")) == 1
    assert_alive(peer)


@pytest.mark.parametrize("name", COSTLY)
def test_the_most_that_a_frame_may_ask_for_is_answered(name: str, hand: Hand) -> None:
    """It is no breach of the protocol, only dear; what it costs stands below."""
    peer = hand.login().give(COSTLY[name]())
    (answer,) = peer.take()
    assert (answer["op"], answer["sequence"]) == ("confirm", 1)
    assert_alive(peer)


@pytest.mark.parametrize("name", BEFORE_LOGIN)
def test_before_login_everything_else_ends_the_connection(name: str, hand: Hand) -> None:
    """protocol.md 4.1; what follows in the same read is not looked at, a good hello either."""
    code, make = BEFORE_LOGIN[name]
    peer = hand.connect().give(make() + frame(part("hello", protocol=1)))
    assert_ended(peer, code)
    assert hand.connections == 1


@pytest.mark.parametrize("op", ["publish", "ack", "consume", "receive", "stats", "purge"])
def test_an_attached_connection_may_do_little(op: str, hand: Hand) -> None:
    """protocol.md 6: the phase of each command."""
    welcome = (main := hand.login()).hand.connect().hello()
    attach = part("attach", protocol=1, session=welcome["session"], secret=welcome["secret"])
    peer = hand.connect().give(frame(attach))
    assert [header["op"] for header in peer.take()] == ["welcome"]
    fields = {
        "publish": {"count": 1},
        "ack": {"runs": 0},
        "consume": {"consumer": 1, "prefetch": 1},
    }
    fields |= {"receive": {"count": 1}}
    named = {} if op == "stats" else {"queue": "q"}
    peer.give(frame(part(op, **named, **fields.get(op, {})), request=1))
    assert_ended(peer, "protocol_error")
    assert_alive(main)


def test_an_attached_connection_uses_no_sequence(hand: Hand) -> None:
    """protocol.md 3: the sequences are those of the main connection, and an outcome would be mistaken."""
    welcome = hand.connect().hello()
    attach = part("attach", protocol=1, session=welcome["session"], secret=welcome["secret"])
    peer = hand.connect().give(frame(attach))
    peer.take()
    assert_ended(peer.give(frame(part("release", queue="q", runs=0), sequence=1)), "protocol_error")


def test_a_secret_opens_its_own_session_only(hand: Hand) -> None:
    """protocol.md 4.1: the right secret of another session is a wrong one."""
    one, two = hand.connect().hello(), hand.connect().hello()
    good = hand.connect().give(resume(one["secret"], session=one["session"]))
    assert [header["op"] for header in good.take()] == ["welcome"]
    bad = hand.connect().give(resume(two["secret"], session=one["session"]))
    assert_ended(bad, "login_refused")


def test_keys_may_come_in_any_order_and_the_last_of_two_counts(hand: Hand) -> None:
    """protocol.md 3: one decoder reads a header, so there is nobody to disagree with."""
    header = b"\x83\xa7request\x01\xa5parts\x91\x81\xa2op\xa4ping\xa7request\x05"
    (pong,) = hand.login().give(raw(header)).take()
    assert pong["request"] == 5


# -- what they cost -------------------------------------------------------------------------------


def chunks_of(data: bytes) -> list[bytes]:
    """Return the reads in which a frame arrives."""
    return [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]


def feed(peer: Peer, chunks: list[bytes]) -> None:
    """What is measured: from the first byte to the answer."""
    for chunk in chunks:
        peer.give_chunk(chunk)
    peer.hand.settle()


def peak_bytes(open_: Callable[[], Peer], chunks: list[bytes]) -> int:
    """Return the most that was allocated at a time while a frame was fed."""
    peer = open_()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        feed(peer, chunks)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def best_s(open_: Callable[[], Peer], chunks: list[bytes]) -> float:
    """Return the processor time of the fastest of several feedings: others may keep the machine busy."""
    times = []
    for _ in range(REPETITIONS):
        peer = open_()
        began_s = thread_time()
        feed(peer, chunks)
        times.append(thread_time() - began_s)
    return min(times)


def copy_s(chunks: list[bytes]) -> float:
    """Return the time that the bytes of a frame take to be gathered at all."""
    times = []
    for _ in range(REPETITIONS):
        began_s = thread_time()
        buffer = bytearray()
        for chunk in chunks:
            buffer += chunk
        times.append(thread_time() - began_s)
    return min(times)


ALL = {
    **CLOSED,
    **{name: make for name, (_, make) in REFUSED.items()},
    **COSTLY,
}
LEGAL_BYTES, LEGAL_S = 4 * 1024 * 1024, 0.2  # what the most that may be asked for may cost


@pytest.mark.parametrize("name", ALL)
def test_it_costs_2_mib_and_5_ms_at_most(name: str, hand: Hand) -> None:
    """Beyond the frame's own bytes: nothing is allocated, and no time spent, for what a frame claims."""
    chunks = chunks_of(ALL[name]())
    size = sum(map(len, chunks))
    spent_bytes, spent_s = peak_bytes(hand.login, chunks) - size, best_s(hand.login, chunks)
    print(
        f"COST {name!r}: {size} bytes, {spent_bytes / 1024:.0f} KiB beyond, {spent_s * 1e3:.2f} ms"
    )
    assert spent_bytes <= (LEGAL_BYTES if name in COSTLY else SPARE_BYTES)
    assert spent_s - copy_s(chunks) <= (LEGAL_S if name in COSTLY else SPARE_S)


@pytest.mark.parametrize("length", [2**24, 2**24 + 1, 2**31, 2**32 - 1])
def test_a_length_alone_allocates_nothing(length: int, hand: Hand) -> None:
    """At most 64 KiB before the body comes."""
    assert peak_bytes(hand.login, [length.to_bytes(4, "big") + b"\x94"]) <= 64 * 1024


def test_the_process_grows_no_more_than_python_says() -> None:
    """Allocations that tracemalloc does not see: the peak of the resident set, in a process of its own."""
    script = Path(__file__).with_name("resident.py")
    # Whole blocks of memory come from the system and go back to it, so that the peak is theirs.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    ended = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env=environment,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line.rpartition(" ") for line in ended.stdout.splitlines()]
    grown = {name: int(kib) * 1024 for name, _, kib in lines}
    assert grown.pop("canary") > 8 * SPARE_BYTES, "this measure sees nothing"
    assert set(grown) == set(ALL)
    print(ended.stdout)
    assert not [name for name in grown if grown[name] > SPARE_BYTES and name not in COSTLY]
