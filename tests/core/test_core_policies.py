"""protocol.md, section 5.16: a setting is chosen, else said by a policy, else the default; and within limits."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from core_client import Client
from harness import World
from hypothesis import given
from hypothesis import strategies as st
from msgpack import packb

from minibroker.contract import limits
from minibroker.contract.settings import LIMITABLE, SETTINGS
from minibrokerd.core.model.kept import POLICY
from minibrokerd.core.model.policies import CHOSEN, Decided, Policy
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.records import QueueMeta, decode


def policy(
    client: Client,
    name: str,
    pattern: str,
    priority: int = 0,
    operator: int = 0,
    **settings: int | str,
) -> Any:
    """Make or change a policy."""
    return client.request(
        {
            "op": "policy_set",
            "name": name,
            "pattern": pattern,
            "settings": settings,
            "priority": priority,
            "operator": operator,
        }
    )


def shown(client: Client, queue: str, *names: str) -> dict[str, tuple[int | str, str]]:
    """Return settings of a queue by these names, each with where it comes from."""
    value = client.request({"op": "queue_show", "queue": queue})["value"]
    return {
        name: (value["settings"][name], value["origins"].get(name, "default")) for name in names
    }


def delete(client: Client, name: str, operator: int = 0) -> int:
    """Delete a policy."""
    fields = {"op": "policy_delete", "name": name, "operator": operator}
    return int(client.request(fields)["value"]["deleted"])


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("comes_first", ["queue", "policy"])
def test_a_policy_holds_for_what_is_there_and_what_will_come(
    comes_first: str, *, restarts: bool
) -> None:
    world = World()
    client = world.hello()
    if comes_first == "queue":
        client.publish("tmp.a", b"1")
    policy(client, "short", "tmp.*", lease_ms=1_000)
    client.publish("tmp.a", b"2")
    client.publish("other", b"1")
    if restarts:
        world.restart()
        client = world.hello()
    assert shown(client, "tmp.a", "lease_ms") == {"lease_ms": (1_000, "policy short")}
    assert shown(client, "other", "lease_ms") == {"lease_ms": (30_000, "default")}
    assert client.receive("tmp.a")["lease_ms"] == 1_000
    assert delete(client, "short") == 1
    assert shown(client, "tmp.a", "lease_ms") == {"lease_ms": (30_000, "default")}
    assert delete(client, "short") == 0


def test_of_several_policies_each_setting_is_that_of_the_highest_priority() -> None:
    """They add up; of equal priorities the first by name says it."""
    world = World()
    client = world.hello()
    policy(client, "low", "*", priority=1, max_attempts=2, lease_ms=1_000, result_ms=7)
    policy(client, "high", "a*", priority=2, max_attempts=3)
    policy(client, "b", "*", max_wait_ms=1, result_ms=8)
    policy(client, "a", "*", max_wait_ms=2)
    client.publish("ab", b"1")
    assert shown(client, "ab", "max_attempts", "lease_ms", "result_ms", "max_wait_ms") == {
        "max_attempts": (3, "policy high"),
        "lease_ms": (1_000, "policy low"),
        "result_ms": (7, "policy low"),
        "max_wait_ms": (2, "policy a"),
    }


@pytest.mark.parametrize("op", ["queue_declare", "queue_set"])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_somebody_chose_goes_before_policies(op: str, *, restarts: bool) -> None:
    """Also if it is the default; what he did not name is theirs."""
    world = World()
    client = world.hello()
    policy(client, "p", "*", max_attempts=9, lease_ms=1_000)
    answer = client.request({"op": op, "queue": "q", "settings": {"max_attempts": 5}})
    assert answer["value"]["origins"] == {"max_attempts": CHOSEN, "lease_ms": "policy p"}
    if restarts:
        world.restart()
        client = world.hello()
    assert shown(client, "q", "max_attempts", "lease_ms") == {
        "max_attempts": (5, CHOSEN),
        "lease_ms": (1_000, "policy p"),
    }


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_not_chosen_any_more_is_said_by_policies(*, restarts: bool) -> None:
    world = World()
    client = world.hello()
    policy(client, "p", "*", max_attempts=9)
    client.set("q", max_attempts=3, lease_ms=700)
    unset = {"op": "queue_set", "queue": "q", "settings": {}, "unset": ["max_attempts"]}
    assert client.request(unset)["value"]["settings"]["max_attempts"] == 9
    if restarts:
        world.restart()
        client = world.hello()
    assert shown(client, "q", "max_attempts", "lease_ms") == {
        "max_attempts": (9, "policy p"),
        "lease_ms": (700, CHOSEN),
    }
    # That it was declared is known all the same: the next declaration changes nothing.
    client.request(unset | {"unset": ["lease_ms"]})
    declare = {"op": "queue_declare", "queue": "q", "settings": {"lease_ms": 100}}
    assert client.request(declare)["value"]["settings"]["lease_ms"] == 30_000
    assert client.request(unset | {"unset": ["nonsense"]})["code"] == "bad_value"


@pytest.mark.parametrize("name", LIMITABLE)
@pytest.mark.parametrize("says", ["nobody", "policy", "less", "more", "0"])
def test_nobody_lifts_a_limit(name: str, says: str) -> None:
    """The smaller one holds, and 0 is no bound: whoever says it."""
    world = World()
    client = world.hello()
    policy(client, "big", "*", operator=1, **{name: 80_000})
    policy(client, "small", "q*", operator=1, **{name: 50_000})
    value = {"less": 20_000, "more": 60_000, "0": 0}.get(says, 0)
    if says == "policy":
        policy(client, "p", "*", **{name: 70_000})
        client.publish("q", b"1")
    elif says == "nobody":
        client.publish("q", b"1")
    else:
        client.set("q", **{name: value})
    expected = (20_000, CHOSEN) if says == "less" else (50_000, "limit small")
    assert shown(client, "q", name) == {name: expected}
    delete(client, "small", 1)
    second = {"less": (20_000, CHOSEN), "more": (60_000, CHOSEN), "policy": (70_000, "policy p")}
    assert shown(client, "q", name) == {name: second.get(says, (80_000, "limit big"))}


def test_a_policy_and_a_limit_may_have_one_name() -> None:
    world = World()
    client = world.hello()
    policy(client, "p", "*", max_messages=5)
    policy(client, "p", "*", operator=1, max_messages=9)
    found = client.request({"op": "policies"})["value"]["policies"]
    assert [(each["name"], each["operator"]) for each in found] == [("p", 0), ("p", 1)]
    assert delete(client, "p", 1) == 1
    assert len(client.request({"op": "policies"})["value"]["policies"]) == 1


@pytest.mark.parametrize("asked_ms", [0, 500, 5_000])
@pytest.mark.parametrize("by", ["publish", "route"])
def test_no_message_lives_longer_than_the_limit_of_its_queue(asked_ms: int, by: str) -> None:
    world = World()
    client = world.hello()
    policy(client, "p", "*", operator=1, message_ttl_ms=1_000)
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    client.request({"op": "bind", "exchange": "e", "queue": "q"})
    where = {"op": "publish", "queue": "q"} if by == "publish" else {"op": "route", "exchange": "e"}
    client.sequenced([where | {"count": 1, "ttl_ms": asked_ms}], b"", b"\0\0\0\0\1\0\0\0", b"1")
    world.advance(min(asked_ms or 1_000, 1_000) - 20)
    assert len(world.states("q")) == 1
    world.advance(40)
    assert not world.states("q")


def test_a_publish_that_makes_a_queue_keeps_within_its_limits() -> None:
    """Its queue is not there when it is checked."""
    world = World()
    client = world.hello()
    policy(client, "p", "*", operator=1, max_messages=2)
    assert client.publish("q", b"1", b"2", b"3")["code"] == "too_large"
    assert "q" not in world.store.queues
    assert client.publish("q", b"1", b"2")["op"] == "confirm"
    assert client.publish("q", b"3")["code"] == "busy"
    assert not world.store.sums.full - {world.queue("q")}


def test_policies_of_dead_letters_are_those_that_say_so() -> None:
    world = World()
    client = world.hello()
    policy(client, "all", "*", max_messages=9)
    policy(client, "dead", "*.dlq", max_messages=7)
    client.publish("q", b"1")
    before = shown(client, "q.dlq", "max_messages")
    client.settle("reject", *client.receive_all("q"))
    assert shown(client, "q.dlq", "max_messages") == before
    assert before == {"max_messages": (7, "policy dead")}
    assert shown(client, "q", "max_messages") == {"max_messages": (9, "policy all")}
    client.set("q", durability="lazy")
    assert shown(client, "q.dlq", "durability", "max_messages") == {
        "durability": ("lazy", "default"),
        "max_messages": (7, "policy dead"),
    }


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"name": ""}, "bad_name", "name of a policy"),
        ({"name": "a b"}, "bad_name", "name of a policy"),
        ({"pattern": ""}, "bad_value", "no pattern"),
        ({"pattern": "a.?"}, "bad_value", "no pattern"),
        ({"settings": {}}, "bad_value", "no setting"),
        ({"settings": {"nonsense": 1}}, "bad_value", "unknown setting"),
        ({"settings": {"max_attempts": 0}}, "bad_value", "from 1 to"),
        ({"settings": {"durability": "lazy"}}, "bad_value", "promises"),
        ({"pattern": "*.dlq", "settings": {"key_rate": 1}}, "bad_value", "dead-letter queue"),
        ({"operator": 1, "settings": {"max_attempts": 3}}, "bad_value", "has no limit"),
        ({"operator": 1, "settings": {"max_messages": 0}}, "bad_value", "limits nothing"),
        ({"operator": 1, "priority": 1}, "bad_value", "no priority"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], code: str, text: str) -> None:
    world = World()
    client = world.hello()
    asked = {"op": "policy_set", "name": "p", "pattern": "*", "settings": {"max_messages": 1}}
    answer = client.request(asked | fields)
    assert (answer.get("code"), text in answer["text"]) == (code, True), answer
    assert not client.request({"op": "policies"})["value"]["policies"]


def test_there_are_so_many_policies_and_no_more() -> None:
    world = World()
    client = world.hello()
    for number in range(limits.MAX_POLICIES):
        policy(client, f"p{number}", "*", operator=number % 2, max_messages=number + 1)
    assert policy(client, "one-more", "*", max_messages=1)["code"] == "limit_reached"
    assert policy(client, "p0", "*", max_messages=2)["op"] == "reply"


def test_the_same_again_is_no_news() -> None:
    world = World()
    client = world.hello()
    assert policy(client, "p", "*", max_messages=1)["value"]["created"] == 1
    records = sum(len(batch.records) for batch in world.log)
    assert policy(client, "p", "*", max_messages=1)["value"]["created"] == 0
    assert sum(len(batch.records) for batch in world.log) == records


@pytest.mark.parametrize("use", ["show", "publish", "route", "receive", "set", "show dead"])
def test_a_queue_that_is_used_before_its_turn_has_the_new_value(use: str) -> None:
    """All queues are gone through in steps; this one is the last."""
    world = World()
    client = world.hello()
    for number in range(300):
        client.publish(f"q{number:03}", b"1")
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    client.request({"op": "bind", "exchange": "e", "queue": "q299"})
    client.settle("reject", *client.receive_all("q299"))
    policy(client, "p", "*", max_messages=1, lease_ms=4_000)
    policy(client, "d", "*.dlq", max_messages=1)
    assert world.store.policies.done is not None, "it is under way"
    if use == "show":
        assert shown(client, "q299", "max_messages") == {"max_messages": (1, "policy p")}
    elif use == "show dead":
        assert shown(client, "q299.dlq", "max_messages") == {"max_messages": (1, "policy d")}
    elif use == "publish":
        assert client.publish("q299", b"1", b"2")["code"] == "too_large"
    elif use == "route":
        part = {"op": "route", "exchange": "e", "count": 2}
        answer = client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0" * 2, b"12")
        assert answer["code"] == "too_large"
    elif use == "receive":
        client.publish("q298", b"2")  # full already
        assert client.receive("q298")["lease_ms"] == 4_000
    else:
        client.set("q299", max_attempts=3)
        assert shown(client, "q299", "lease_ms") == {"lease_ms": (4_000, "policy p")}
    assert world.store.policies.done is not None, "it is still under way"
    world.run_jobs()
    assert all(queue.max_messages == 1 for queue in world.store.queues.values())
    assert world.store.policies.done is None


def test_a_change_while_all_queues_are_gone_through_begins_anew() -> None:
    world = World()
    client = world.hello()
    for number in range(300):
        client.publish(f"q{number:03}", b"1")
    policy(client, "p", "*", max_messages=1)
    policy(client, "p", "*", max_messages=2)
    client.request({"op": "queue_delete", "queue": "q250", "force": 1})
    world.run_jobs()
    assert {queue.max_messages for queue in world.store.queues.values()} == {2}
    assert len(world.store.queues) == 299


def test_queues_of_one_policy_share_what_they_have() -> None:
    """A hundred thousand of them would take 150 MB otherwise."""
    world = World()
    client = world.hello()
    for number in range(20):
        client.publish(f"q{number}", b"1")
    policy(client, "p", "*", max_messages=1_000)
    client.settle("reject", *client.receive_all("q1"))
    world.run_jobs()
    assert len({id(queue.settings) for queue in world.store.queues.values()}) == 2, "DLQs apart"
    assert isinstance(world.queue("q1").settings, Decided)
    world.restart()
    assert len({id(queue.settings) for queue in world.store.queues.values()}) == 2
    delete(world.hello(), "p")
    assert all(queue.settings is DEFAULTS for queue in world.store.queues.values())


def test_no_queue_has_a_record_because_of_a_policy() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"1")
    policy(client, "p", "*", max_messages=1_000)
    client.set("q", lease_ms=500)
    metas = [decode(record) for batch in world.log for record in batch.records]
    *_, newest = (meta for meta in metas if isinstance(meta, QueueMeta))
    assert newest.chosen == ["lease_ms"]
    assert newest.settings["max_messages"] == 0
    assert newest.settings.keys() == SETTINGS.keys(), "the release before reads all of them"


def test_of_a_record_without_names_what_is_not_the_default_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of the release before: it filled in what nobody had said."""

    def older(queue: Queue) -> QueueMeta:
        return QueueMeta(queue.number, queue.name, queue.home, dict(queue.settings), None)

    monkeypatch.setattr(Queue, "record", older)
    world = World()
    world.hello().set("q", lease_ms=500)
    world.restart()
    client = world.hello()
    policy(client, "p", "*", lease_ms=100, max_attempts=9)
    assert shown(client, "q", "lease_ms", "max_attempts") == {
        "lease_ms": (500, CHOSEN),
        "max_attempts": (9, "policy p"),
    }
    declare = {"op": "queue_declare", "queue": "q", "settings": {"max_attempts": 2}}
    assert client.request(declare)["value"]["settings"]["max_attempts"] == 9, "it was declared"


def test_a_policy_lets_queues_end_that_nobody_uses() -> None:
    world = World()
    client = world.hello()
    client.publish("tmp.old", b"1")
    policy(client, "p", "tmp.*", delete_unused_ms=60_000)
    client.publish("tmp.new", b"1")
    client.publish("other", b"1")
    world.advance(121_000)
    assert set(world.store.queues) == {"other"}


def test_a_policy_is_copied_out_of_the_oldest_segment() -> None:
    world = World()
    client = world.hello()
    policy(client, "p", "*", max_messages=7)
    policy(client, "gone", "*", operator=1, max_messages=3)
    delete(client, "gone", 1)
    for _ in range(20):
        client.publish("q", b"1")
        client.settle("ack", *client.receive_all("q"))
    world.free(world.store.synced)
    world.restart()
    client = world.hello()
    assert shown(client, "q", "max_messages") == {"max_messages": (7, "policy p")}


@pytest.mark.parametrize("wrong", ["pattern", "settings", "bytes", "text"])
def test_what_is_no_policy_any_more_is_set_aside(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stricter version starts all the same: it says so, the others hold, and the entry stays as it was."""
    world = World()
    client = world.hello()
    policy(client, "good", "*", max_messages=7)
    stored = {
        "pattern": (0, b"q?", packb({"max_messages": 3})),
        "settings": (0, b"q*", packb({"most_messages": 3})),
        "bytes": (0, b"q*", b"\xc1"),
        "text": (0, b"\xff", packb({"max_messages": 3})),
    }[wrong]
    with monkeypatch.context() as older:
        older.setattr(Policy, "value", lambda _: stored)
        policy(client, "bad", "q*", operator=1, max_messages=3)
    client.publish("q", b"1", b"2")
    for _ in range(2):  # it says so each time
        world.notes.clear()
        world.restart()
        world.run_jobs()
        (note,) = [each for each in world.notes if each.event == "policy_set_aside"]
        assert (note.is_warning, note.fields["name"], note.fields["kind"]) == (True, "bad", "limit")
        assert note.fields["text"]
    client = world.hello()
    assert shown(client, "q", "max_messages") == {"max_messages": (7, "policy good")}
    assert len(world.states("q")) == 2
    good, bad = client.request({"op": "policies"})["value"]["policies"]
    assert (good["name"], good["set_aside"]) == ("good", "")
    assert (bad["name"], bad["operator"]) == ("bad", 1)
    assert bad["set_aside"] == note.fields["text"]
    found = world.store.kept.get(world.store, POLICY, (1, "bad"))
    assert found == stored
    policy(client, "bad", "q*", operator=1, max_messages=3)
    assert shown(client, "q", "max_messages") == {"max_messages": (3, "limit bad")}
    assert not client.request({"op": "policies"})["value"]["policies"][1]["set_aside"]
    world.notes.clear()
    world.restart()
    world.run_jobs()
    assert "policy_set_aside" not in {each.event for each in world.notes}
    assert delete(world.hello(), "bad", 1) == 1


@given(
    pattern=st.text("ab.*", min_size=1, max_size=8), name=st.text("ab.", min_size=1, max_size=10)
)
def test_a_pattern_is_a_glob(pattern: str, name: str) -> None:
    """As the one of the standard library, of which only the star is taken."""
    policy = Policy("p", pattern, {}, 0, operator=False)
    fits = name.startswith(policy.first) and policy.takes(name)
    assert fits == fnmatchcase(name, pattern)


def test_a_pattern_costs_no_more_than_its_length() -> None:
    """A name that nearly fits is not tried in every way: counted, this would take longer than the world stands."""
    world = World()
    client = world.hello()
    policy(client, "p", "*a" * 62 + "b", max_messages=1)
    assert client.publish("a" * 124, b"1", b"2")["op"] == "confirm"
