"""Every operation, by every role, on right and wrong queues, over every kind of connection: a cell for each.

What is expected is written out here once more, by hand, and not read from the table that the server goes by.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hand import Hand, Peer, frame, part

from minibroker.contract.commands import COMMANDS, Phase
from minibroker.contract.wire import pack_runs, pack_strings
from minibrokerd.access.rights import RIGHTS, Grant, Right, touched, verdict
from minibrokerd.access.tokens import Row, make

TICKS = 100  # that an answer may take
P, C, M, A = Right.PUBLISH, Right.CONSUME, Right.MANAGE, Right.ADMIN
EVERYBODY = {P, C, M, A}
ALLOWED: dict[str, set[Right]] = {
    "publish": {P},
    "consume": {C},
    "cancel": EVERYBODY,
    "receive": {C},
    "begin": {C},
    "ack": {C},
    "complete": {C},
    "progress": {C},
    "result": {P, C},
    "nack": {C},
    "reject": {C},
    "release": {C},
    "extend": {C},
    "peek": {C, M},
    "redrive": {M},
    "redrive_start": {M},
    "redrive_show": {C, M},
    "redrive_stop": {M},
    "error_groups": {C, M},
    "purge": {M},
    "queue_set": {M},
    "queue_show": EVERYBODY,
    "key_set": {M},
    "keys": EVERYBODY,
    "queue_delete": {M},
    "stats": EVERYBODY,
    "accept": EVERYBODY,
    "times": EVERYBODY,
    "ping": EVERYBODY,
    "goodbye": EVERYBODY,
    "withdraw": EVERYBODY,
    "move": {M},
    "queue_declare": EVERYBODY,
    "explain": {C, M},
    "retime": {M},
    "cancel_messages": {M},
    "pause": {M},
    "unpause": {M},
    "pauses": EVERYBODY,
    "schedule_set": {P},
    "schedules": EVERYBODY,
    "schedule_delete": {P, M},
    "schedule_pause": {M},
    "schedule_run": {P},
    "route": {P},
    "exchange_set": {M},
    "exchanges": EVERYBODY,
    "exchange_delete": {M},
    "bind": {M},
    "unbind": {M},
    "bindings": EVERYBODY,
    "schema_set": {M},
    "schema_show": EVERYBODY,
    "policy_set": {A},
    "policies": {M, A},
    "policy_delete": {A},
    "log_group_set": {C, M},
    "log_group_seek": {M},
    "log_show": EVERYBODY,
    "log_read": {C},
}
# The field that names what is asked about, where that is no queue.
NAMED_BY = {
    "exchange_set": "name",
    "exchange_delete": "name",
    "exchanges": "name",
    "route": "exchange",
    "bind": "exchange",
    "unbind": "exchange",
    "bindings": "exchange",
}
ROLES = ({P}, {C}, {M}, {A}, {P, C}, {P, C, M})
MORE: dict[str, dict[str, Any]] = {
    "publish": {"count": 1},
    "consume": {"consumer": 1, "prefetch": 1},
    "cancel": {"consumer": 1},
    "receive": {"count": 1},
    "move": {"target": "mail.b"},
    "queue_set": {"settings": {}},
    "queue_declare": {"settings": {}},
    "withdraw": {"withdrawn": 77},
    "explain": {"runs": 0},
    "key_set": {"key": "k"},
    "pause": {"client": "w"},
    "unpause": {"client": "w"},
    "progress": {"permille": 1},
    "schedule_set": {"name": "s", "cron": "@yearly", "terms": {}},
    "schedule_delete": {"name": "s"},
    "schedule_pause": {"name": "s", "paused": 0},
    "schedule_run": {"name": "s"},
    "route": {"count": 1},
    "exchange_set": {"type": "fanout"},
    "bind": {"queue": "mail.b"},
    "unbind": {"queue": "mail.b"},
    "policy_set": {"name": "p", "pattern": "x", "settings": {"max_attempts": 1}},
    "policy_delete": {"name": "p"},
    "log_group_set": {"group": "g"},
    "log_group_seek": {"group": "g"},
    "schema_set": {"schema": b"{}"},
}
RUNS = (
    "begin",
    "ack",
    "complete",
    "progress",
    "nack",
    "reject",
    "release",
    "extend",
    "redrive",
    "retime",
)
SCHEDULES = ("schedules", "schedule_delete", "schedule_pause", "schedule_run")
POLICIES = "policy_set", "policies", "policy_delete"
NO_QUEUE = ("accept", "cancel", "ping", "goodbye", "withdraw", "pauses", *SCHEDULES, *POLICIES)
OURS, THEIRS = ("mail.a", "mail.a.dlq"), ("other", "other.dlq", "mailbox", "MAIL.a", "mail", "")


class Guarded(Hand):
    """A server that asks for tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.count = 0
        for name in ("mail.a", "mail.b", "other"):  # each with a message
            peer = self.login()
            lengths = struct.pack("<II", 0, 1)
            head = part("publish", queue=name, count=1)
            peer.give(frame(head, sequence=1, answered_below=1, lengths=lengths, blob=b"x"))
        self.door = self.server.connections.door
        self.door.set(self.rows)

    def token(self, may: set[Right], *queues: str, name: str = "") -> str:
        """Return a new token."""
        self.count += 1
        made = make(
            lambda size: self.count.to_bytes(size, "big"),
            self.rows,
            name=name or f"role{self.count}",
            queues=list(queues or ("mail.*",)),
            may=sorted(may, key=list(Right).index),
            created=0,
        )
        self.rows.append(made.row)
        self.door.set(self.rows)
        return made.text

    def enter(self, token: str, op: str = "hello", **fields: Any) -> tuple[Peer, dict[str, Any]]:
        """Return a new connection and what its login was answered."""
        peer = self.connect()
        columns = fields.pop("columns", b"")
        peer.give(frame(part(op, protocol=1, token=token, **fields), columns=columns))
        if not peer.transport.taken:  # a refusal takes its time
            self.loop.timers[-1].call()
            self.settle()
        return peer, peer.take()[0]


@pytest.fixture(scope="module")
def guarded() -> Guarded:
    """One server for all cells: a cell that is refused changes nothing, one that is allowed little."""
    return Guarded()


def sent(op: str, queue: str, *, attached: bool, **more: Any) -> bytes:
    """Return a frame with this operation."""
    fields: dict[str, Any] = {} if op in NO_QUEUE else {NAMED_BY.get(op, "queue"): queue}
    fields |= MORE.get(op, {}) | ({"runs": 0} if op in RUNS else {}) | more
    if op in ("publish", "route"):
        names = {"sequence": 1, "answered_below": 1}
        return frame(part(op, **fields), **names, lengths=struct.pack("<II", 0, 1), blob=b"x")
    if (
        op in ("ack", "complete", "progress", "nack", "reject", "release", "extend")
        and not attached
    ):
        return frame(part(op, **fields), sequence=1, answered_below=1)
    return frame(part(op, **fields), request=9)


def refused(peer: Peer, data: bytes) -> bool:
    """Send a frame; return whether it was refused so: whatever else it meets is no matter of rights."""
    peer.give(data)
    for _ in range(TICKS):
        if peer.transport.taken or peer.closed:
            break
        # Those before looked at so much that this one waits for a tick; and the time of the loop stands still.
        peer.hand.server.engine.time_moved()
        peer.hand.settle()
    answers = peer.take()
    assert answers or peer.closed
    return any(answer.get("code") == "not_allowed" for answer in answers)


def connections(guarded: Guarded, token: str) -> Iterator[tuple[Phase, Peer]]:
    """Yield each kind of connection that a token can have."""
    main, welcome = guarded.enter(token)
    yield Phase.OPEN, main
    again = {"session": welcome["session"], "secret": welcome["secret"]}
    resumed, answer = guarded.enter(token, "resume", runs=0, **again)
    assert answer["op"] == "welcome"
    yield Phase.OPEN, resumed
    attached, answer = guarded.enter(token, "attach", **again)
    assert answer["op"] == "welcome"
    yield Phase.ATTACHED, attached


def test_the_walk(guarded: Guarded) -> None:
    """Operation x role x queue x connection."""
    assert set(ALLOWED) == {op for op, row in COMMANDS.items() if Phase.NEW not in row.phases}
    cells, wrong = 0, []
    for may in ROLES:
        token = guarded.token(may)
        for op, roles in ALLOWED.items():
            for queue in ("",) if op in NO_QUEUE else (*OURS, *THEIRS):
                for phase, peer in connections(guarded, token):
                    if phase not in COMMANDS[op].phases:
                        continue
                    # Of all queues these tell of those of the token: see below, and test_core_results.py.
                    of_all = op in ("stats", "explain", "result", "exchanges") and not queue
                    # And this is for the name that the server gives: tests/core/test_core_owning.py.
                    of_all |= op == "queue_declare" and not queue
                    is_ours = op in NO_QUEUE or queue in OURS or of_all
                    expected = not (may & roles and is_ours)
                    got = refused(peer, sent(op, queue, attached=phase is Phase.ATTACHED))
                    cells += 1
                    if got != expected:
                        wrong.append((op, sorted(right.value for right in may), queue, phase, got))
    assert not wrong
    assert cells > 1_500
    print(f"{cells} cells, {cells - len(wrong)} right")


@pytest.mark.parametrize(
    ("queue", "target", "expected"),
    [
        ("mail.a", "mail.b", False),
        ("mail.a", "other", True),
        ("other", "mail.a", True),
        ("other", "elsewhere", True),
    ],
)
def test_a_move_needs_both_queues(
    guarded: Guarded, queue: str, target: str, expected: bool
) -> None:
    """Else it would take from others, or give to them."""
    peer, _ = guarded.enter(guarded.token({M}))
    assert refused(peer, sent("move", queue, attached=False, target=target)) is expected


@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("bind", {"queue": "other"}),
        ("bind", {"target": "other"}),
        ("unbind", {"queue": "other"}),
        ("exchange_set", {"alternate": "other", "type": "fanout"}),
    ],
)
def test_what_an_exchange_leads_to_is_asked_for_too(
    guarded: Guarded, op: str, more: dict[str, Any]
) -> None:
    """Else a token could fill the queues of others."""
    peer, _ = guarded.enter(guarded.token({P, C, M}))
    fields = {NAMED_BY[op]: "mail.a", **more}
    peer.give(frame(part(op, **fields), request=9))
    assert peer.take()[0]["code"] == "not_allowed"


def test_exchanges_are_those_of_its_names(guarded: Guarded) -> None:
    """Others are not named."""
    whole, _ = guarded.enter(guarded.token({M}, "*"))
    for name in ("mail.x", "other.x"):
        whole.give(frame(part("exchange_set", name=name, type="fanout"), request=1))
        assert whole.take()[0]["op"] == "reply"
    peer, _ = guarded.enter(guarded.token({P}))
    peer.give(frame(part("exchanges"), request=1))
    names = [each["name"] for each in peer.take()[0]["value"]["exchanges"]]
    assert "mail.x" in names
    assert "other.x" not in names


def test_one_part_that_is_not_allowed_refuses_its_frame(guarded: Guarded) -> None:
    """All parts are applied as one, or none."""
    peer, _ = guarded.enter(guarded.token({C}))
    parts = [part("ack", queue=name, runs=0) for name in ("mail.a", "other")]
    peer.give(frame(*parts, sequence=1, answered_below=1))
    (answer,) = peer.take()
    assert (answer["code"], answer["sequence"]) == ("not_allowed", 1)


def test_stats_of_all_are_those_of_its_queues(guarded: Guarded) -> None:
    """With their dead-letter queues; others are not named."""
    peer, _ = guarded.enter(guarded.token({P}))
    peer.give(frame(part("stats"), request=1))
    (reply,) = peer.take()
    names = set(reply["value"]["queues"])
    assert "mail.a" in names
    assert not [name for name in names if not name.startswith("mail.")]


def test_schedules_are_those_of_its_queues() -> None:
    """Others are as if they were not there, and their names cannot be taken over."""
    guarded = Guarded()
    theirs, _ = guarded.enter(guarded.token({P, M}, "*"))
    mine, _ = guarded.enter(guarded.token({P, M}))
    column = pack_strings([b"", b""])

    def asked(peer: Peer, op: str, **fields: Any) -> Any:
        columns = column if op == "schedule_set" else b""
        peer.give(frame(part(op, **fields), request=1, columns=columns))
        (answer,) = peer.take()
        return answer.get("value", answer.get("code"))

    daily = {"cron": "@daily", "terms": {}}
    assert asked(theirs, "schedule_set", name="a", queue="other", **daily)["created"] == 1
    assert asked(mine, "schedule_set", name="b", queue="mail.a", **daily)["created"] == 1
    assert [each["name"] for each in asked(mine, "schedules")["schedules"]] == ["b"]
    assert [each["name"] for each in asked(theirs, "schedules")["schedules"]] == ["a", "b"]
    assert asked(mine, "schedules", name="a") == "unknown_schedule"
    assert asked(mine, "schedule_set", name="a", queue="mail.a", **daily) == "not_allowed"
    assert asked(mine, "schedule_pause", name="a", paused=1) == "unknown_schedule"
    assert asked(mine, "schedule_run", name="a") == "unknown_schedule"
    assert asked(mine, "schedule_delete", name="a") == {"deleted": 0}
    assert asked(theirs, "schedules", name="a")["schedules"][0]["paused"] == 0


def test_only_who_may_manage_every_queue_pauses_workers() -> None:
    """For a worker may work on any; of queues it sees its own pauses."""
    guarded = Guarded()
    theirs, _ = guarded.enter(guarded.token({P, C, M}, "*"))
    mine, _ = guarded.enter(guarded.token({P, C, M}))

    def asked(peer: Peer, op: str, **fields: Any) -> Any:
        peer.give(frame(part(op, **fields), request=1))
        (answer,) = peer.take()
        return answer.get("value", answer.get("code"))

    assert asked(mine, "pause", client="w") == "not_allowed"
    assert asked(theirs, "pause", client="w")["client"] == "w"
    assert asked(mine, "unpause", client="w") == "not_allowed"
    assert asked(mine, "pause", queue="mail.a")["queue"] == "mail.a"
    assert asked(theirs, "pause", queue="other")["queue"] == "other"
    assert [each["queue"] for each in asked(mine, "pauses")["pauses"]] == ["mail.a"]
    assert len(asked(theirs, "pauses")["pauses"]) == 3


def test_explain_tells_only_of_its_own_queues() -> None:
    """A message of another queue is as one that never was, whichever queue is asked."""
    guarded = Guarded()
    peer, _ = guarded.enter(guarded.token({C}))
    told = {}
    for request, (origin, queue) in enumerate(((1, ""), (3, ""), (3, "mail.a")), 1):
        run = pack_runs([(0, origin, 0, 1)])
        peer.give(frame(part("explain", queue=queue, runs=1), request=request, columns=run))
        (reply,) = peer.take()
        told[origin, queue] = (reply["value"]["queue"], reply["value"]["reason"])
    assert told[1, ""] == ("mail.a", "no_consumer")
    assert told[3, ""] == told[3, "mail.a"] == ("", "unknown")


def test_a_session_belongs_to_the_owner_of_its_token(guarded: Guarded) -> None:
    """Not to others, whatever they know of it; to all tokens of that owner."""
    token, other = guarded.token({C}, name="worker"), guarded.token({P, C, M}, "*", name="thief")
    _, welcome = guarded.enter(token)
    known = {"session": welcome["session"], "secret": welcome["secret"]}
    for op, more in (("resume", {"runs": 0}), ("attach", {})):
        _, answer = guarded.enter(other, op, **known, **more)
        assert answer["code"] == "login_refused"
        _, answer = guarded.enter("", op, **known, **more)
        assert answer["code"] == "token_refused"
        _, answer = guarded.enter(guarded.token({C}, name="worker"), op, **known, **more)
        assert answer["op"] == "welcome"


def test_a_resume_takes_nothing_of_other_queues() -> None:
    """Ids and tokens of deliveries can be guessed: they are counted."""
    guarded = Guarded()
    theirs, _ = guarded.enter(guarded.token({C}, "*"))
    theirs.give(frame(part("consume", queue="other", consumer=1, prefetch=1), request=1))
    (delivered,) = [each for each in theirs.take() if each["op"] == "deliver"]
    origin, sequence = struct.unpack_from("<IQ", delivered["columns"])
    run = (delivered["token"], origin, sequence, 1)
    theirs.connection.connection_lost(None)  # it waits again
    guarded.settle()
    for queues, lost in ((("mail.*",), 1), (("*",), 0)):
        token = guarded.token({C}, *queues)
        _, welcome = guarded.enter(token)
        known = {"session": welcome["session"], "secret": welcome["secret"]}
        _, answer = guarded.enter(token, "resume", **known, runs=1, columns=pack_runs([run]))
        assert (answer["op"], answer["lost"]) == ("welcome", lost)


def test_a_begin_that_is_not_allowed_changes_nothing(guarded: Guarded) -> None:
    """It has no name, so there is nothing to answer; the connection goes on."""
    peer, _ = guarded.enter(guarded.token({P}))
    peer.give(frame(part("begin", queue="other", runs=0)))
    assert peer.take() == []
    peer.give(frame(part("ping"), request=2))
    assert peer.take()[0]["op"] == "pong"


def test_the_verdict_is_a_value() -> None:
    """(grant, operation, queues) -> why not; a queue for each field that names one."""
    grant = Grant("a", "1", frozenset({M}), ("mail.*",))
    assert verdict(grant, "move", ("mail.a", "mail.b")) == ""
    assert "other" in verdict(grant, "move", ("mail.a", "other"))
    assert "publish" in verdict(grant, "publish", ("mail.a",))
    for op, row in RIGHTS.items():
        asked = {"queue", "target", "exchange"}
        if op.startswith("exchange"):
            asked |= {"name", "alternate"}
        named = [f.name for f in COMMANDS[op].fields if f.name in asked]
        assert sorted(row.queues) == sorted(named), op
    assert not Grant("a", "1", frozenset({M}), ()).covers("")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("mail.*", "mail.a mail. mail.a.dlq", "mail mailxa xmail.a Mail.a mail"),
        ("mail", "mail mail.dlq", "mail.a xmail mailx"),
        ("*", "a a.dlq b.c", ""),
        ("a*b*c", "abc a.b.c aXbYc", "ab acb"),
        ("a.b", "a.b", "axb a.b.c"),
    ],
)
def test_patterns(pattern: str, inside: str, outside: str) -> None:
    """The dot is a dot, the star is anything, and a DLQ goes with its source."""
    grant = Grant("a", "1", frozenset(Right), (pattern,))
    assert not [name for name in inside.split() if not grant.covers(name)]
    assert not [name for name in outside.split() if grant.covers(name)]
    assert not grant.covers("a\nb") or pattern == "*"


def test_what_a_client_makes_up_is_not_remembered_without_end() -> None:
    """A name for each request."""
    grant = Grant("a", "1", frozenset(Right), ("*",))
    for number in range(10_000):
        assert grant.allows("publish", f"q{number}")
    assert len(grant._known) <= 4_096


def test_a_pattern_that_would_backtrack_does_not() -> None:
    """Steps are bounded by the length of the name: this would take hours otherwise."""
    grant = Grant("a", "1", frozenset(Right), ("a*" * 60 + "b",))
    assert not grant.covers("a" * 124)


def test_all_queues_of_an_operation_are_named() -> None:
    """`stats` of no queue touches none; every other operation with an empty name is refused by it."""

    class Fields:
        queue, target = "", "mail.b"

    assert touched("stats", Fields) == []
    assert touched("move", Fields) == ["", "mail.b"]
    assert touched("ping", Fields) == []
