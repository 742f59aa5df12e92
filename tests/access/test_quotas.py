"""Limits of a token: each is reached, said, and lets others be; what time helps with is tried again."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hand import Peer, frame, part
from test_rights_walk import Guarded

from minibrokerd.access.quotas import Quota
from minibrokerd.access.rights import Grant, Limits, Right
from minibrokerd.access.tokens import make

BODY = b"x" * 100


def limited(guarded: Guarded, name: str, **limits: int) -> str:
    """Return a new token with limits."""
    fields: dict[str, Any] = {"name": name, "queues": ["mail.*"], "may": list(Right), "created": 0}
    made = make(os.urandom, guarded.rows, **fields, **limits)
    guarded.rows.append(made.row)
    guarded.door.set(guarded.rows)
    return made.text


def look(guarded: Guarded) -> None:
    """Let the server count what waits."""
    queues = guarded.door.quotas
    queues.look(guarded.server.engine.core.store.queues.values())
    while queues.step():
        continue


def publish(peer: Peer, sequence: int, count: int = 1, queue: str = "mail.a") -> dict[str, Any]:
    """Publish, and return the answer."""
    lengths = struct.pack("<II", 0, len(BODY)) * count
    head = part("publish", queue=queue, count=count)
    bins: dict[str, Any] = {"lengths": lengths, "blob": BODY * count}
    peer.give(frame(head, sequence=sequence, answered_below=sequence, **bins))
    return peer.take()[-1]


def test_connections_are_counted_by_owner() -> None:
    """Both tokens of one, attached ones too; one that ends makes room."""
    guarded = Guarded()
    token = limited(guarded, "a", max_connections=2)
    first, welcome = guarded.enter(token)
    known = {"session": welcome["session"], "secret": welcome["secret"]}
    _, answer = guarded.enter(token, "attach", **known)
    assert answer["op"] == "welcome"
    _, answer = guarded.enter(limited(guarded, "a", max_connections=2))
    assert (answer["code"], answer["retryable"]) == ("limit_reached", True)
    _, answer = guarded.enter(guarded.token({Right.PUBLISH}))
    assert answer["op"] == "welcome"
    first.connection.connection_lost(None)
    guarded.settle()
    _, answer = guarded.enter(token)
    assert answer["op"] == "welcome"


def test_a_limit_that_was_taken_back_is_none_any_more() -> None:
    """A token was revoked while its client was there, and another one of that name made without limits."""
    guarded = Guarded()
    guarded.enter(limited(guarded, "a", max_connections=1))
    guarded.rows.clear()
    fresh = limited(guarded, "a")
    for _ in range(3):
        _, answer = guarded.enter(fresh)
        assert answer["op"] == "welcome", answer


@pytest.mark.parametrize("limits", [{"max_messages": 5}, {"max_bytes": 5 * 300}])
def test_what_waits_is_bounded(limits: dict[str, int]) -> None:
    """The one that was there counts, whoever published it; what was acked makes room with the next look."""
    guarded = Guarded()
    peer, _ = guarded.enter(limited(guarded, "a", **limits))
    assert publish(peer, 1)["code"] == "busy"  # not counted yet
    look(guarded)
    sequence, stored = 2, 0
    while (answer := publish(peer, sequence))["op"] == "confirm":
        sequence, stored = sequence + 1, stored + 1
    assert 2 <= stored < 10
    assert (answer["code"], answer["retryable"], answer["retry_ms"] > 0) == ("busy", True, True)
    look(guarded)
    assert publish(peer, sequence)["code"] == "busy"
    other, _ = guarded.enter(guarded.token({Right.PUBLISH}))
    assert publish(other, 1)["op"] == "confirm"
    peer.give(frame(part("purge", queue="mail.a"), request=1))
    peer.take()
    look(guarded)
    assert publish(peer, sequence)["op"] == "confirm"


def test_a_frame_that_came_again_is_not_counted_again() -> None:
    """Its answer is the one that it had."""
    guarded = Guarded()
    peer, _ = guarded.enter(limited(guarded, "a", max_rate=1))
    first = publish(peer, 1)
    assert first["op"] == "confirm"
    assert publish(peer, 1) == first
    assert publish(peer, 2)["code"] == "busy"


def test_what_is_routed_is_counted_as_it_is_published() -> None:
    """Once, whatever the number of its queues."""
    guarded = Guarded()
    peer, _ = guarded.enter(limited(guarded, "a", max_rate=2))
    for op, more in (
        ("exchange_set", {"name": "mail.e", "type": "fanout"}),
        ("bind", {"exchange": "mail.e", "queue": "mail.a"}),
        ("bind", {"exchange": "mail.e", "queue": "mail.b"}),
    ):
        peer.give(frame(part(op, **more), request=9))
        assert peer.take()[-1]["op"] == "reply"

    def route(sequence: int) -> dict[str, Any]:
        head = part("route", exchange="mail.e", count=1)
        names = {"sequence": sequence, "answered_below": sequence}
        peer.give(frame(head, **names, lengths=struct.pack("<II", 0, 1), blob=b"x"))
        answer: dict[str, Any] = peer.take()[-1]
        return answer

    assert [route(1)["op"], route(2)["op"]] == ["confirm", "confirm"]
    assert route(3)["code"] == "busy"


def test_queues_are_counted() -> None:
    """Those of its names, whoever made them; a publish to one that is there makes none."""
    guarded = Guarded()  # has two of them
    peer, _ = guarded.enter(limited(guarded, "a", max_queues=3))
    look(guarded)
    assert publish(peer, 1, queue="mail.a")["op"] == "confirm"
    assert publish(peer, 2, queue="mail.new")["op"] == "confirm"
    assert publish(peer, 3, queue="mail.newer")["code"] == "limit_reached"
    look(guarded)
    for op, more in (
        ("queue_declare", {"settings": {}}),
        ("queue_set", {"settings": {}}),
        ("consume", {"consumer": 1, "prefetch": 1}),
        ("receive", {"count": 1}),
    ):
        peer.give(frame(part(op, queue="mail.newer", **more), request=9))
        assert peer.take()[-1]["code"] == "limit_reached", op
    peer.give(frame(part("move", queue="mail.a", target="mail.newer"), request=9))
    assert peer.take()[-1]["code"] == "limit_reached"


def test_a_rate_is_kept_over_any_time() -> None:
    """A second's worth at once, then what time brings; a frame larger than that waits for all of it."""
    grant = Grant("a", "1", frozenset(Right), ("*",), Limits(rate=100))
    quota, stored = Quota(grant, 0.0), 0
    for tick in range(1_000):  # 10 s
        while not quota.may_publish(7, 1, tick / 100)[0]:
            stored += 7
    assert 1_000 <= stored <= 1_100
    quota = Quota(grant, 0.0)
    assert quota.may_publish(500, 1, 0.0)[0] == ""
    text, retry_ms = quota.may_publish(1, 1, 0.0)
    assert "100 messages a second" in text
    assert retry_ms == 4_010
    assert quota.may_publish(1, 1, retry_ms / 1_000)[0] == ""


def test_looks_are_taken_in_steps() -> None:
    """However many queues there are, the loop turns in between."""

    class Queue:
        name, log_bytes = "mail.a", 10

        def count(self) -> int:
            """One message each."""
            return 1

    grant = Grant("a", "1", frozenset(Right), ("*",), Limits(messages=25_001))
    quota = Quota(grant, 0.0)
    steps = sum(1 for _ in quota.look([Queue()] * 25_000))
    assert steps >= 12
    assert quota.may_publish(1, 1, 0.0)[0] == ""
    assert "may have 25001" in quota.may_publish(1, 1, 0.0)[0]
