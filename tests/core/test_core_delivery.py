"""Promises about delivery: HELD and BEGUN, who gets what and how much of it."""

from __future__ import annotations

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker.contract import limits


def bodies(messages: list[Delivered]) -> list[bytes]:
    return [message.body for message in messages]


def two_clients() -> tuple[World, Client, Client]:
    world = World()
    return world, world.hello("one"), world.hello("two")


# -- held ---------------------------------------------------------------------------------------


def test_held_messages_go_back_at_once_in_their_old_order_uncharged_and_marked() -> None:
    world, one, two = two_clients()
    one.publish("q", *[bytes([i]) for i in range(10)])
    one.consume("q", prefetch=6)
    held = one.messages()
    one.settle("ack", held[2])
    assert world.queue("q").group.held == 6
    world.advance(1_000)
    world.disconnect(one)
    assert world.queue("q").group.held == 0
    two.consume("q", prefetch=20)
    got = two.messages()
    assert [m.body[0] for m in got] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert {m.attempt for m in got} == {1}
    assert [m.marked for m in got] == [True] * 6 + [False] * 3
    assert all(m.token > held[0].token for m in got)


def test_fresh_messages_are_not_overtaken_because_one_that_came_back_is_with_them() -> None:
    """What came back rests on a record that is not safe yet, and so does the whole delivery."""
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b", b"c", b"d", b"e")
    client.consume("q", prefetch=3)
    a, b, c = client.messages()
    world.auto_sync = False
    nack, columns = settle_part("nack", "q", [a.run], delay_ms=0)
    ack, run = settle_part("ack", "q", [b.run])
    client.sequenced([nack, ack], columns + run)
    assert client.messages() == []  # a and d
    client.settle("ack", c)
    assert client.messages() == []  # e does not go before d
    world.sync()
    assert [message.body for message in client.messages()] == [b"a", b"d", b"e"]


def test_a_cancelled_consumer_gives_back_unmarked_what_it_has_not_begun() -> None:
    world, one, two = two_clients()
    one.publish("q", b"a", b"b", b"c")
    one.consume("q", prefetch=3)
    first, *_ = one.messages()
    one.begin(first)
    assert one.cancel()["value"] == {}
    two.consume("q", prefetch=10)
    got = two.messages()
    assert bodies(got) == [b"b", b"c"]
    assert not any(m.marked for m in got)
    assert one.settle("ack", first)["results"] == [{"lost": 0}]
    assert one.cancel(99)["value"] == {}
    one.publish("q", b"d")
    assert one.messages() == []
    world.check()


def test_no_delivery_follows_the_answer_to_a_cancel() -> None:
    world = World(auto_sync=False)
    one = world.hello()
    one.publish("q", b"a")
    world.sync()
    one.consume("q")
    world.sync()
    (message,) = one.messages()
    one.settle("nack", message, delay_ms=0)
    one.begin(message)  # passed over: it is not this token's any more
    assert one.messages() == []  # handed out again, but its RETURN is not safe yet
    assert one.cancel() is None
    world.sync()
    ops = [frame["op"] for frame in one.inbox]
    assert "deliver" in ops
    assert ops.index("deliver") < ops.index("reply")


def test_goodbye_gives_back_unmarked_and_ends_the_session_when_its_leases_have() -> None:
    world, one, two = two_clients()
    one.publish("q", b"a", b"b")
    one.consume("q", prefetch=2, lease_ms=1_000)
    begun, _ = one.messages()
    one.begin(begun)
    attached = world.attach(one)
    one.send(one.frame([{"op": "goodbye"}]))
    assert one.closed
    assert attached.closed
    two.consume("q", prefetch=2)
    (got,) = two.messages()
    assert (got.body, got.marked) == (b"b", False)
    world.advance(1_008)
    (again,) = two.messages()
    (entry,) = two.peek("q")[-1]["history"]
    assert (again.body, again.attempt, again.marked) == (b"a", 2, True)
    assert (entry["cause"], entry["client"]) == ("worker_lost", "one")
    world.advance(2 * limits.SESSION_KEPT_MS + 16)
    assert one.session not in world.store.sessions


def test_goodbye_on_an_attached_connection_ends_only_that_one() -> None:
    world, one, _ = two_clients()
    attached = world.attach(one)
    attached.send(attached.frame([{"op": "goodbye"}]))
    assert attached.closed
    assert not one.closed
    assert one.publish("q", b"a")["op"] == "confirm"


def test_a_connection_that_breaks_the_protocol_gets_nothing_more() -> None:
    world, one, two = two_clients()
    two.publish("q", b"a")
    one.consume("q", prefetch=5)
    assert len(one.messages()) == 1
    one.send(one.frame([{"op": "publish", "queue": "q", "count": 1}]))  # it has no sequence
    assert one.inbox[-1]["code"] == "protocol_error"
    assert one.closed
    two.publish("q", b"b")
    assert one.messages() == []
    assert list(world.states("q").values()) == ["READY", "READY"]


# -- who gets what ------------------------------------------------------------------------------


def test_prefetch_is_never_exceeded() -> None:
    _, one, two = two_clients()
    one.publish("q", *[b""] * 100)
    two.consume("q", prefetch=7)
    got = two.messages()
    assert len(got) == 7
    two.settle("ack", *got[:3])
    assert len(two.messages()) == 3
    two.begin(got[3])
    assert two.messages() == []
    two.consume("q", prefetch=9)
    assert len(two.messages()) == 2
    two.consume("q", prefetch=2)
    two.settle("ack", *got[3:])
    assert two.messages() == []


@pytest.mark.parametrize(("consumers", "messages"), [(2, 100), (3, 100), (7, 7), (4, 2), (5, 999)])
def test_waiting_consumers_get_no_more_than_their_share(consumers: int, messages: int) -> None:
    world = World()
    clients = [world.hello(str(i)) for i in range(consumers)]
    for client in clients:
        client.consume("q", prefetch=1_000)
    clients[0].publish("q", *[b""] * messages)
    counts = [len(client.messages()) for client in clients]
    assert sum(counts) == messages
    assert max(counts) <= -(-messages // consumers)


def test_consumers_take_turns_when_little_comes() -> None:
    world = World()
    clients = [world.hello(str(i)) for i in range(3)]
    for client in clients:
        client.consume("q", prefetch=100)
    for _ in range(9):
        clients[0].publish("q", b"")
    assert [len(client.messages()) for client in clients] == [3, 3, 3]


def test_lanes_take_turns_so_a_busy_key_keeps_nobody_waiting() -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"busy"] * 50, key="busy")
    client.publish("q", b"1", b"2", keys=["quiet", "other"])
    client.publish("q", *[b"none"] * 3)
    client.consume("q", prefetch=1)
    order = []
    while messages := client.messages():
        order += bodies(messages)
        client.settle("ack", *messages)
    assert order[:6] == [b"busy", b"1", b"2", b"none", b"busy", b"none"]
    assert len(order) == 55


def test_a_delivery_carries_about_a_mebibyte_and_at_least_one_message() -> None:
    world = World()
    client = world.hello()
    half = b"x" * (limits.DELIVERY_BYTES // 2)
    client.publish("q", half, half, b"tiny", half, b"")
    client.publish("q", b"y" * limits.MAX_MESSAGE_BYTES, b"z")
    client.consume("q", prefetch=100)
    world.run_jobs()  # after each MiB the shell has its turn
    deliveries = [frame for frame in client.inbox if frame["op"] == "deliver"]
    sizes = [sum(len(m.body) for m in frame["messages"]) for frame in deliveries]
    assert max(sizes) <= limits.DELIVERY_BYTES
    got = client.messages()
    assert [m.sequence for m in got] == list(range(7))
    assert len({m.token for m in got}) == len(deliveries) == 4
    world.check()


def test_a_large_credit_is_no_burst() -> None:
    """After a MiB the shell has its turn, in which it can say that the peer does not read."""
    world = World()
    client = world.hello()
    client.publish("q", *[b"x" * limits.MAX_MESSAGE_BYTES] * 8)
    client.publish("q", *[b"x" * limits.MAX_MESSAGE_BYTES] * 8)
    client.consume("q", prefetch=100)
    assert len(client.messages()) == 1
    empty = client.request({"op": "receive", "queue": "q", "count": 1})
    assert empty is None, "there is something, it only waits for its turn"
    world.flow(client, paused=True)
    world.run_jobs()
    assert client.messages() == []
    world.flow(client, paused=False)
    world.run_jobs()
    assert len(client.messages()) == 15
    world.check()


def test_a_delivery_to_a_consumer_that_does_not_read_waits_until_it_does() -> None:
    world, one, two = two_clients()
    one.consume("q", prefetch=5)
    world.flow(one, paused=True)
    two.publish("q", *[b""] * 3)
    assert one.messages() == []
    two.consume("q", prefetch=1)
    got = two.messages()
    assert len(got) == 1
    world.flow(one, paused=False)
    assert len(one.messages()) == 2
    world.flow(one, paused=False)
    line = list(world.queue("q").group.consumers or ())
    assert len(line) == len(set(line))
    two.settle("ack", *got)
    two.publish("q", b"")
    assert len(one.messages()) + len(two.messages()) == 1


def test_a_consumer_number_belongs_to_one_queue() -> None:
    _, one, _ = two_clients()
    one.consume("q")
    assert one.consume("other")["code"] == "bad_value"
    one.publish("q", b"a")
    assert len(one.messages()) == 1


# -- receive ------------------------------------------------------------------------------------


def test_receive_gives_what_is_ready_begun() -> None:
    world, one, _ = two_clients()
    one.publish("q", b"a", b"b", b"c")
    answer = one.receive("q", count=2)
    assert answer["begun"] is True
    assert bodies(answer["messages"]) == [b"a", b"b"]
    assert sorted(world.states("q").values()) == ["BEGUN", "BEGUN", "READY"]
    assert world.queue("q").group.consumer_count == 0


def test_receive_without_a_wait_is_answered_at_once() -> None:
    world, one, _ = two_clients()
    answer = one.receive("q")
    assert answer["count"] == 0
    assert world.queue("q").group.consumer_count == 0
    one.publish("q", b"a")
    assert one.messages() == []


def test_receive_waits_for_what_comes_and_not_longer_than_it_said() -> None:
    world, one, two = two_clients()
    assert one.receive("q", count=5, wait_ms=1_000) is None
    world.advance(999)
    assert one.inbox == []
    world.advance(9)
    assert one.answer(request=1)["count"] == 0
    assert one.receive("q", count=5, wait_ms=1_000) is None
    two.publish("q", b"a", b"b")
    assert bodies(one.answer(request=2)["messages"]) == [b"a", b"b"]
    world.advance(5_000)
    assert one.inbox == []


def test_several_waiting_receives_are_served_in_turn() -> None:
    world, one, two = two_clients()
    one.receive("q", wait_ms=1_000)
    two.receive("q", wait_ms=1_000)
    one.receive("q", wait_ms=1_000)
    two.publish("q", b"a")
    two.publish("q", b"b")
    assert bodies(one.answer(request=1)["messages"]) == [b"a"]
    assert bodies(two.answer(request=1)["messages"]) == [b"b"]
    assert one.inbox == []
    world.disconnect(one)
    assert world.queue("q").group.consumer_count == 0
    two.publish("q", b"c")
    assert list(world.states("q").values()).count("READY") == 1
    world.advance(2_000)


def test_a_receive_for_a_delayed_message_gets_it_when_its_time_comes() -> None:
    world, one, _ = two_clients()
    one.publish("q", b"a", delay_ms=500)
    assert one.receive("q", wait_ms=1_000) is None
    world.advance(508)
    assert bodies(one.answer(request=1)["messages"]) == [b"a"]


# -- frames that break the protocol -------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        {"op": "consume", "queue": "q", "consumer": 1, "prefetch": 1},
        {"op": "receive", "queue": "q", "count": 1},
        {"op": "ack", "queue": "q", "runs": 0},
        {"op": "purge", "queue": "q"},
    ],
)
def test_a_frame_that_needs_an_answer_needs_a_name(part: dict[str, object]) -> None:
    world, one, two = two_clients()
    two.publish("q", b"a")
    one.send(one.frame([part]))
    assert one.closed
    assert list(world.states("q").values()) == ["READY"]


def test_requests_share_a_frame_with_nothing_and_have_no_columns() -> None:
    world = World()
    purge = {"op": "purge", "queue": "q"}
    world.hello().publish("q", b"a")
    for parts, columns in (([purge, purge], b""), ([purge], b"x")):
        client = world.hello()
        client.send(client.frame(parts, columns, request=1))
        assert client.closed
    assert list(world.states("q").values()) == ["READY"]


def test_a_begin_without_a_name_gets_no_answer_even_for_an_unknown_queue() -> None:
    _, one, _ = two_clients()
    one.send(one.frame([{"op": "begin", "queue": "none", "runs": 0}]))
    assert one.inbox == []
    assert not one.closed


def test_a_peek_stays_below_the_size_of_a_delivery() -> None:
    _, one, _ = two_clients()
    big = b"x" * (limits.DELIVERY_BYTES // 3)
    for _ in range(5):
        one.publish("q", big)
    seen: list[int] = []
    while page := one.peek("q", skip=len(seen)):
        assert 1 <= len(page) <= 3
        seen += [entry["sequence"] for entry in page]
    assert seen == [0, 1, 2, 3, 4]
