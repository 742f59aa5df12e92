"""Promises about publishing: when a confirm leaves, what it names, and what a refused frame leaves behind."""

from __future__ import annotations

import struct

import pytest
from harness import START_UNIX_MS, World

from minibroker.contract import limits, wire
from minibrokerd.core.model.inputs import Frame
from minibrokerd.net.frames import read_frame


def test_a_confirm_leaves_when_its_batch_is_synced_and_not_before() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    assert client.publish("q", b"a") is None
    world.close_batch()
    assert client.answer(sequence=1) is None
    world.sync_one()
    assert client.answer(sequence=1)["results"] == [{"origin": 1, "first": 0, "durability": "sync"}]


def test_a_confirm_does_not_wait_for_a_later_batch() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a")
    world.close_batch()
    client.publish("q", b"b")
    world.close_batch()
    world.sync_one()
    assert client.answer(sequence=1) is not None
    assert client.answer(sequence=2) is None


def test_nothing_is_handed_out_before_it_is_safe() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.consume("q", prefetch=10)
    client.publish("q", b"a")
    world.close_batch()
    assert client.messages() == []
    world.sync()
    assert [message.body for message in client.messages()] == [b"a"]


def test_a_duplicate_gets_the_first_answer_and_rests_on_the_batch_of_the_first() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a")
    world.close_batch()
    client.publish("q", b"b")  # the open batch is another one now
    assert client.resend(1) is None
    world.sync_one()
    answers = [frame for frame in client.inbox if frame.get("sequence") == 1]
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert len(world.states("q")) == 2
    again = client.resend(1)  # synced: at once, whatever else is under way
    assert again["results"] == answers[0]["results"]


def test_other_bytes_under_the_same_sequence_are_an_id_conflict() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    client.sequence = 0
    assert client.publish("q", b"b")["code"] == "id_conflict"
    assert list(world.states("q")) == [(1, 0)]


def test_a_frame_whose_outcome_was_forgotten_is_outcome_unknown() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    client.answered_below = 2
    client.publish("q", b"b")
    assert client.resend(1)["code"] == "outcome_unknown"
    assert len(world.states("q")) == 2


@pytest.mark.parametrize("clean", [True, False])
def test_a_frame_resent_after_a_restart_gets_its_first_answer(clean: bool) -> None:
    world = World()
    client = world.hello()
    first = client.publish("q", b"a", b"b")
    world.restart(clean=clean)
    client2 = world.resume(client)
    assert client2.pop("welcome")["known"]
    assert client2.resend(1, client) == first
    assert len(world.states("q")) == 2


def test_a_frame_lost_in_a_crash_is_applied_when_it_is_resent() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a")
    world.restart(clean=False)
    client2 = world.resume(client)
    assert client2.pop("welcome")["known"] is False
    assert client2.resend(1, client) is None
    world.sync()
    assert client2.answer(sequence=1)["results"][0]["durability"] == "sync"


def test_a_frame_that_came_before_is_known_for_as_long_as_its_session() -> None:
    """Refused for want of room, it would be told that nothing was stored."""
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    world.restart(clean=False, wall_ms=limits.FRAME_OUTCOME_MS + 1)  # a jump of the clock will do
    client2 = world.resume(client)
    again = read_frame(client.sent[1], client2.connection, 0.0)
    assert isinstance(again, Frame)
    assert world.core.knows(again)
    again.sequence = 2
    assert not world.core.knows(again)


def test_a_restart_forgets_no_outcome_for_the_wall_clock() -> None:
    """It may have been set: a client that was away for a second would be told that its publish is new."""
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    for _ in range(2):
        world.restart(clean=False, wall_ms=limits.FRAME_OUTCOME_MS + 1)
        client2 = world.resume(client)
        assert client2.resend(1, client)["results"] == [
            {"origin": 1, "first": 0, "durability": "sync"}
        ]
        assert len(world.states("q")) == 1


def test_outcomes_are_kept_for_ten_minutes_of_silence_whatever_the_wall_clock_does() -> None:
    world = World()
    client = world.hello()
    first = client.publish("q", b"a")
    world.disconnect(client)
    world.advance(limits.FRAME_OUTCOME_MS - 10_000, wall_ms=24 * 3_600_000)
    client2 = world.resume(client)
    assert client2.resend(1, client) == first


def test_more_than_1024_unanswered_frames_break_the_protocol() -> None:
    world = World()
    client = world.hello()
    for _ in range(limits.MAX_UNANSWERED_FRAMES):
        assert client.publish("q", b"") is not None
    client.publish("q", b"")
    assert client.closed
    assert client.inbox[-1]["code"] == "protocol_error"
    assert len(world.states("q")) == limits.MAX_UNANSWERED_FRAMES


REFUSED = {
    "bad_name": ("bad name!", [b"a"]),
    "too_large": ("new", [b"x" * (limits.MAX_MESSAGE_BYTES + 1), b"a"]),
    "busy": ("full", [b"a"]),
}


@pytest.mark.parametrize("code", [*REFUSED, "bad_name_dlq"])
def test_a_refused_publish_leaves_no_trace(code: str) -> None:
    world = World()
    client = world.hello()
    client.set("full", max_messages=1)
    client.publish("full", b"a")
    queue, bodies = REFUSED.get(code, ("q.dlq", [b"a"]))
    records, queues = sum(len(batch.records) for batch in world.log), dict(world.store.queues)
    next_sequence = world.queue("full").next_sequence
    assert code.startswith(client.publish(queue, *bodies)["code"])
    assert sum(len(batch.records) for batch in world.log) == records
    assert world.store.queues == queues
    assert world.queue("full").next_sequence == next_sequence
    assert 2 not in world.store.sessions[client.session].window
    assert not client.closed


def test_no_auto_create_refuses_to_make_a_queue_by_use() -> None:
    world = World(auto_create=False)
    client = world.hello()
    assert client.publish("q", b"a")["code"] == "unknown_queue"
    assert client.consume("q")["code"] == "unknown_queue"
    assert client.receive("q")["code"] == "unknown_queue"
    assert world.log == []
    client.set("q", lease_ms=1_000)
    assert client.publish("q", b"a")["op"] == "confirm"


HOSTILE_COLUMNS = {
    "delays too short": (["delay_ms"], struct.pack("<Q", 1)),
    "delays too long": (["delay_ms"], struct.pack("<3Q", 1, 1, 1)),
    "a delay beyond 2^53": (["delay_ms"], struct.pack("<2Q", 1, 2**53 + 1)),
    "keys that claim more than is there": (["key"], struct.pack("<2I", 2**32 - 1, 2**32 - 1)),
    "keys too short": (["key"], b"\x01\x00\x00"),
    "a key that is too long": (["key"], wire.pack_strings([b"k" * 256, b""])),
    "a key that is no text": (["key"], wire.pack_strings([b"\xff", b""])),
    "an unknown encoding": (["encoding"], b"\x00\x02"),
    "a column named twice": (["encoding", "encoding"], b"\x00\x00\x00\x00"),
    "an unknown column": (["run"], b"\x00" * 48),
    "bytes left over": ([], b"\x00"),
}


@pytest.mark.parametrize("case", HOSTILE_COLUMNS)
def test_columns_that_do_not_add_up_end_the_connection_and_change_nothing(case: str) -> None:
    names, columns = HOSTILE_COLUMNS[case]
    world = World()
    client = world.hello()
    part = {"op": "publish", "queue": "q", "count": 2, "columns": names}
    client.sequenced([part], columns, struct.pack("<4I", 0, 1, 0, 1), b"ab")
    assert client.inbox[-1]["code"] == "protocol_error"
    assert client.closed
    assert world.store.queues == {}
    assert world.log == []


@pytest.mark.parametrize(
    ("count", "lengths", "blob"),
    [
        (0, b"", b""),
        (2, struct.pack("<2I", 0, 1), b"a"),
        (1, struct.pack("<2I", 0, 2), b"a"),
        (1, struct.pack("<2I", 2**32 - 1, 2**32 - 1), b"a"),
        (1, b"\x00" * 7, b""),
    ],
)
def test_lengths_that_do_not_add_up_end_the_connection(
    count: int, lengths: bytes, blob: bytes
) -> None:
    world = World()
    client = world.hello()
    client.sequenced([{"op": "publish", "queue": "q", "count": count}], b"", lengths, blob)
    assert client.closed
    assert world.store.queues == {}


def test_keys_delays_and_encodings_of_one_frame_reach_their_messages() -> None:
    world = World()
    client = world.hello()
    client.publish(
        "q",
        b"a",
        b"bb",
        b"",
        b"dd",
        keys=["", "k", "k", "ü"],
        delays=[0, 0, 50, 0],
        encodings=[0, 1, 0, 1],
    )
    got = {m.body: (m.key, m.encoding, m.published_unix_ms) for m in client.receive_all("q")}
    assert got == {
        b"a": ("", 0, START_UNIX_MS),
        b"bb": ("k", 1, START_UNIX_MS),
        b"dd": ("ü", 1, START_UNIX_MS),
    }
    world.advance(50 + 8)
    assert [(m.body, m.key, m.encoding) for m in client.receive_all("q")] == [(b"", "k", 0)]


def test_encodings_that_change_within_a_span_are_told_run_by_run() -> None:
    world = World()
    client = world.hello()
    encodings = [0, 1, 1, 0, 1]
    client.publish("q", *[bytes([i]) for i in range(5)], encodings=encodings)
    world.restart()
    client = world.hello()
    client.consume("q", prefetch=3)
    got = client.messages()
    client.settle("ack", *got)
    got += client.messages()
    assert [(m.body[0], m.encoding) for m in got] == list(enumerate(encodings))


# -- identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["memory", "lazy"])
def test_no_id_is_shown_before_its_reservation_is_synced(durability: str) -> None:
    world = World(auto_sync=False)
    client, other = world.hello(), world.hello("other")
    other.publish("q", b"so that it is there")
    world.sync()
    world.queue("q").reserved_until = world.queue("q").next_sequence  # as after a start
    other.purge("q")
    world.queue("q").configure({"durability": durability})
    other.consume("q")
    other.receive("q", wait_ms=1_000)
    world.sync()
    other.inbox.clear()
    assert client.publish("q", b"a") is None
    assert client.publish("q", b"b") is None
    assert other.messages() == []
    assert other.request({"op": "peek", "queue": "q"}) is None
    world.sync()
    assert client.answer(sequence=1)["results"][0]["first"] == 1
    assert len(other.messages()) == 2
    assert client.publish("q", b"c") is not None  # the reservation is safe: nothing to wait for


@pytest.mark.parametrize("durability", ["sync", "memory", "lazy"])
@pytest.mark.parametrize("clean", [True, False])
def test_ids_never_repeat_over_restarts(durability: str, clean: bool) -> None:
    world = World()
    ids = set()
    for _ in range(3):
        client = world.hello()
        client.set("q", durability=durability)
        for _ in range(3):
            first = client.publish("q", b"a")["results"][0]["first"]
            assert first not in ids
            ids.add(first)
        world.restart(clean=clean)


# -- durability ---------------------------------------------------------------------------------


def test_memory_messages_write_no_publish_record_and_vanish_at_a_restart() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.set("q", durability="memory")
    client.publish("q", b"a")
    world.sync()
    records = sum(len(batch.records) for batch in world.log)
    assert client.publish("q", b"b")["results"][0]["durability"] == "memory"
    first, second = client.receive_all("q")
    assert client.settle("ack", first) is not None
    assert client.settle("nack", second, delay_ms=0) is not None
    assert world.open == []
    assert sum(len(batch.records) for batch in world.log) == records
    world.restart()
    assert world.states("q") == {}


def test_lazy_messages_are_confirmed_at_once_and_survive_once_synced() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.set("q", durability="lazy")
    client.publish("q", b"a")
    world.sync()
    client.inbox.clear()
    assert client.publish("q", b"b")["results"][0]["durability"] == "lazy"
    world.sync()
    world.restart(clean=False)
    assert len(world.states("q")) == 2


def test_lazy_confirms_do_not_wait_for_a_disk_that_stalls_until_much_is_not_synced() -> None:
    """A crash of the machine takes at most what was confirmed in 100 ms, or 8 MiB while the disk stands still."""
    world = World(auto_sync=False)
    client = world.hello()
    client.set("q", durability="lazy")
    client.publish("q", b"a")
    world.sync()
    world.advance(1_000)
    assert client.publish("q", b"b") is not None
    world.close_batch()  # the disk hangs
    world.advance(60_000)
    body = bytes(1_000_000)
    answers = [client.publish("q", body) is not None for _ in range(9)]
    assert answers == [True] * 8 + [False]
    world.sync_one()
    world.sync()
    assert client.answer(sequence=client.sequence) is not None
    assert world.store.lazy_bytes == 0
    assert client.publish("q", body) is not None


def test_the_first_publish_to_a_queue_in_memory_waits_for_no_disk() -> None:
    """Its sequences were reserved when it was made so."""
    world = World(auto_sync=False)
    client = world.hello()
    client.set("new", durability="memory")
    client.set("old")
    world.sync()
    client.set("old", durability="memory")
    world.sync()
    assert client.publish("new", b"a") is not None
    assert client.publish("old", b"a") is not None


def test_a_dlq_is_never_less_durable_than_its_source() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="memory", max_attempts=1)
    client.publish("q", b"a")
    client.settle("nack", *client.receive_all("q"))
    refused = client.set("q.dlq", durability="lazy")
    assert refused["code"] == "bad_value"
    client.set("q", durability="sync")
    client.publish("q", b"b")
    client.settle("nack", *client.receive_all("q"))
    assert (
        client.request({"op": "queue_show", "queue": "q.dlq"})["value"]["settings"]["durability"]
        == "sync"
    )
    world.restart(clean=False)
    assert list(world.states("q.dlq").values()) == ["READY"]


# -- delays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_ms", [1, 7, 8, 9, 2_047, 2_048, 3_600_000, 2**32, 2**53])
def test_a_delay_of_any_length_is_never_early_and_at_most_one_tick_late(delay_ms: int) -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", delay_ms=delay_ms)
    assert list(world.states("q").values()) == ["DELAYED"]
    world.advance(delay_ms - 1)
    assert list(world.states("q").values()) == ["DELAYED"]
    world.advance(8)
    assert list(world.states("q").values()) == ["READY"]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    ("down_ms", "left_ms"),
    [(0, 59_000), (20_000, 39_000), (59_000, 0), (10**9, 0), (-30_000, 60_000), (-(10**9), 60_000)],
)
def test_after_a_restart_a_delay_is_what_remains_of_it_and_never_longer(
    clean: bool, down_ms: int, left_ms: int
) -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"published", delay_ms=60_000)
    client.publish("r", b"failed")
    client.settle("nack", *client.receive_all("r"), delay_ms=60_000)
    world.advance(1_000)
    world.restart(clean=clean, wall_ms=down_ms)
    for queue in ("q", "r"):
        assert list(world.states(queue).values()) == ["DELAYED" if left_ms else "READY"]
    if left_ms:
        world.advance(left_ms - 1)
        assert list(world.states("q").values()) == ["DELAYED"]
        assert list(world.states("r").values()) == ["DELAYED"]
        world.advance(8)
        assert list(world.states("q").values()) == ["READY"]
        assert list(world.states("r").values()) == ["READY"]


@pytest.mark.parametrize("jump_ms", [-(10**10), 10**10])
def test_a_step_of_the_wall_clock_moves_no_delay_and_no_lease(jump_ms: int) -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", delay_ms=10_000)
    client.publish("r", b"b")
    client.receive_all("r", lease_ms=10_000)
    world.unix_ms += jump_ms
    world.advance(9_999)
    assert [*world.states("q").values(), *world.states("r").values()] == ["DELAYED", "BEGUN"]
    world.advance(9)
    assert [*world.states("q").values(), *world.states("r").values()] == ["READY", "READY"]


def test_new_work_does_not_overtake_old_after_a_reboot() -> None:
    world = World()
    world.advance(10**6)
    client = world.hello()
    client.publish("q", b"old")
    world.restart(clean=False, wall_ms=-(10**9))
    client = world.hello()
    client.publish("q", b"new")
    world.advance(1_000)
    assert [m.body for m in client.receive_all("q")] == [b"old", b"new"]


def test_a_later_sync_of_an_earlier_publish_does_not_change_the_order() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"warm")
    world.sync()
    client.receive_all("q")
    client.publish("q", b"first")
    client.set("q", durability="lazy")
    client.publish("q", b"second")
    world.sync()
    assert [m.body for m in client.receive_all("q")] == [b"first", b"second"]
