"""protocol.md, `route` and the bindings of exchanges: who gets a message, all or nothing, one body for all."""

from __future__ import annotations

import random
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.model.exchanges import takes_headers
from minibrokerd.core.model.kept import BINDING
from minibrokerd.core.model.records import PublishMeta, decode
from minibrokerd.core.model.topics import Topics


def asked(client: Client, op: str, **fields: Any) -> dict[str, Any]:
    """Return the value that a request is answered with, or the error."""
    answer = client.request({"op": op, **fields})
    assert answer is not None
    value: dict[str, Any] = answer.get("value", answer)
    return value


def make(client: Client, name: str, type: str, **more: str) -> None:
    """Make an exchange."""
    assert asked(client, "exchange_set", name=name, type=type, **more)["created"] == 1


def bind(
    client: Client, exchange: str, queue: str = "", pattern: str = "", target: str = ""
) -> None:
    """Bind an exchange to a queue, or to another one."""
    value = asked(client, "bind", exchange=exchange, queue=queue, pattern=pattern, target=target)
    assert value == {"created": 1}, value


def route(
    client: Client, exchange: str, routing_key: str = "", *bodies: bytes, **fields: Any
) -> Any:
    """Publish to an exchange; return the answer."""
    some = bodies or (b"x",)
    lengths = b"".join(b"\0\0\0\0" + len(body).to_bytes(4, "little") for body in some)
    part = {
        "op": "route",
        "exchange": exchange,
        "routing_key": routing_key,
        "count": len(some),
        **fields,
    }
    return client.sequenced([part], b"", lengths, b"".join(some))


def reached(answer: dict[str, Any]) -> set[str]:
    """Return the names of the queues that a confirm names."""
    (result,) = answer["results"]
    names = set(result["queues"].split())
    assert result["routed"] == len(names) == len(answer["lost_runs"])
    return names


def bodies(client: Client, queue: str) -> list[bytes]:
    """Return what is in a queue."""
    return [each["body"] for each in client.peek(queue)]


def test_a_direct_exchange_goes_by_equal_keys() -> None:
    """Each queue that is bound with the routing key gets one copy, whatever the number of its bindings."""
    world = World()
    client = world.hello()
    make(client, "jobs", "direct")
    bind(client, "jobs", "mail", "signup")
    bind(client, "jobs", "crm", "signup")
    bind(client, "jobs", "crm", "signout")
    assert reached(route(client, "jobs", "signup", b"1", b"2")) == {"mail", "crm"}
    assert reached(route(client, "jobs", "signout", b"3")) == {"crm"}
    assert bodies(client, "mail") == [b"1", b"2"]
    assert bodies(client, "crm") == [b"1", b"2", b"3"]
    answer = route(client, "jobs", "else")
    assert (answer["op"], answer["code"], answer["retryable"]) == ("error", "unroutable", False)


def oracle(pattern: str, key: str) -> bool:
    """Whether a topic pattern takes a key, by trying everything."""
    return _oracle(pattern.split(".") if pattern else [], key.split(".") if key else [])


def _oracle(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_oracle(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _oracle(pattern[1:], words[1:])


def test_a_trie_of_topics_finds_what_trying_finds() -> None:
    """Random patterns come and go; what is found is what each pattern alone would take."""
    rng = random.Random(64)
    topics: Topics[int] = Topics()
    standing: dict[int, str] = {}
    found_some = 0
    for number in range(2_000):
        if standing and rng.random() < 0.3:
            gone = rng.choice(list(standing))
            topics.remove(standing.pop(gone), gone)
        words = [rng.choice(["a", "b", "*", "#", "c"]) for _ in range(rng.randrange(5))]
        standing[number] = ".".join(words)
        topics.add(standing[number], number)
        key = ".".join(rng.choice("abcd") for _ in range(rng.randrange(5)))
        found = topics.match(key)
        assert found is not None
        assert sorted(found) == [n for n, pattern in standing.items() if oracle(pattern, key)]
        found_some += bool(found)
    assert found_some > 500
    for number, pattern in standing.items():
        topics.remove(pattern, number)
    assert not topics._root.children, "what nobody needs is given back"


def test_headers_are_compared_as_text() -> None:
    """All pairs, or any; a name alone asks that the header is there."""
    headers: dict[str, int | str] = {"format": "pdf", "pages": 7}
    assert takes_headers("all format=pdf pages=7", headers)
    assert not takes_headers("all format=pdf pages=8", headers)
    assert takes_headers("any format=zip pages=7", headers)
    assert takes_headers("all pages", headers)
    assert not takes_headers("any colour format=zip", headers)
    assert takes_headers("all", {})
    assert not takes_headers("any", headers)


@pytest.mark.parametrize(
    ("type", "pattern"),
    [("headers", "some a=1"), ("headers", "all  a"), ("hash", "0"), ("hash", "x"), ("fanout", "a")],
)
def test_a_pattern_that_is_none_is_refused(type: str, pattern: str) -> None:
    """The text says what it should be; nothing is bound, and no queue is made."""
    client = World().hello()
    make(client, "e", type)
    answer = asked(client, "bind", exchange="e", queue="q", pattern=pattern)
    assert answer["code"] == "bad_value"
    assert asked(client, "bindings", exchange="e") == {"bindings": []}
    assert asked(client, "queue_show", queue="q")["code"] == "unknown_queue"


def test_a_hash_gives_each_routing_key_one_queue_by_weight() -> None:
    """A binding that comes takes keys for itself alone: none moves between the others."""
    client = World().hello()
    make(client, "shards", "hash")
    for name, weight in (("a", ""), ("b", "1"), ("c", "2")):
        bind(client, "shards", name, weight)

    def spread() -> dict[int, str]:
        return {n: reached(route(client, "shards", f"user-{n}")).pop() for n in range(600)}

    before = spread()
    client.answered_below = client.sequence
    counts = {name: list(before.values()).count(name) for name in "abc"}
    assert 110 < counts["a"] < 190
    assert 110 < counts["b"] < 190
    assert 250 < counts["c"] < 350
    assert spread() == before
    client.answered_below = client.sequence
    bind(client, "shards", "d")
    moved = {n: queue for n, queue in spread().items() if queue != before[n]}
    assert set(moved.values()) == {"d"}
    assert 70 < len(moved) < 170


def test_exchanges_lead_to_exchanges_and_circles_end() -> None:
    """A queue that is reached by several ways gets one copy."""
    client = World().hello()
    for name in ("a", "b", "c"):
        make(client, name, "topic")
        bind(client, name, "all", "#")
    bind(client, "a", target="b", pattern="x.*")
    bind(client, "b", target="c", pattern="#.y")
    bind(client, "c", target="a", pattern="#")
    bind(client, "c", "deep", "x.y")
    assert reached(route(client, "a", "x.y")) == {"all", "deep"}
    assert reached(route(client, "a", "x.z")) == {"all"}
    assert bodies(client, "all") == [b"x"] * 2


def test_what_no_binding_takes_is_refused_dropped_or_goes_to_the_alternate() -> None:
    """The alternate of the alternate, too; what is dropped is counted."""
    client = World().hello()
    assert asked(client, "exchange_set", name="first", type="direct", alternate="second")[
        "code"
    ] == ("unknown_exchange")
    make(client, "third", "fanout")
    make(client, "second", "direct", alternate="third")
    make(client, "first", "direct", alternate="second")
    assert route(client, "first", "k")["code"] == "unroutable"
    bind(client, "third", "rest")
    assert reached(route(client, "first", "k")) == {"rest"}
    asked(client, "exchange_set", name="first", type="direct", unroutable="drop", alternate="")
    answer = route(client, "first", "k", b"1", b"2")
    assert answer["results"] == [{"routed": 0, "queues": "", "durability": "memory"}]
    (shown,) = asked(client, "exchanges", name="first")["exchanges"]
    assert (shown["routed"], shown["unroutable_count"]) == (1, 2)
    assert bodies(client, "rest") == [b"x"]


def test_one_record_and_one_body_for_all_queues() -> None:
    """Whatever the number of queues; they share what memory has of it, until the last one is done."""
    world = World()
    client = world.hello()
    make(client, "news", "fanout")
    names = {f"q{n}" for n in range(100)}
    for name in names:
        bind(client, "news", name)
    before = len(world.log)
    assert reached(route(client, "news", "", b"x" * 10_000)) == names
    records = [record for batch in world.log[before:] for record in batch.records]
    assert sum(isinstance(decode(record), PublishMeta) for record in records) == 1
    assert sum(record.size_bytes for record in records) < 10_000 + 100 * 60
    held = world.core.store.sums.held_bytes
    assert 10_000 < held < 10_100
    for name in sorted(names):
        assert world.core.store.sums.held_bytes == held
        (got,) = client.receive_all(name)
        client.settle("ack", got)
    assert world.core.store.sums.held_bytes == 0


def test_a_queue_that_refuses_keeps_all_others_empty() -> None:
    """All or nothing."""
    client = World().hello()
    make(client, "news", "fanout")
    for name in ("a", "b", "c"):
        bind(client, "news", name)
    asked(client, "queue_set", queue="c", settings={"max_messages": 2, "overflow": "reject"})
    assert reached(route(client, "news", "", b"1", b"2")) == {"a", "b", "c"}
    assert route(client, "news", "", b"3")["code"] == "queue_full"
    assert [bodies(client, name) for name in ("a", "b", "c")] == [[b"1", b"2"]] * 3


def test_what_a_routed_message_means_outlives_a_start() -> None:
    """Ids, delays, keys, the settings of each queue; a frame that comes again is known."""
    world = World()
    client = world.hello()
    make(client, "e", "topic")
    bind(client, "e", "plain", "#")
    bind(client, "e", "short", "#")
    bind(client, "e", "gone", "#")
    bind(client, "e", "last", "#")
    asked(client, "queue_set", queue="short", settings={"message_ttl_ms": 60_000})
    asked(client, "queue_set", queue="gone", settings={"durability": "memory"})
    answer = route(client, "e", "k", b"1", b"2", key="k1", priority=3)
    later = route(client, "e", "k", b"3", delay_ms=30_000)
    assert reached(answer) == {"plain", "short", "gone", "last"}
    sequence = client.sequence
    world.restart()
    client, old = world.resume(client), client
    again = client.resend(sequence, old)
    assert again["lost_runs"] == later["lost_runs"]
    assert again["results"] == later["results"]
    assert bodies(client, "gone") == []
    for name in ("plain", "short", "last"):
        assert [each["body"] for each in client.peek(name)] == [b"1", b"2", b"3"]
        names = answer["results"][0]["queues"].split()
        run = dict(zip(names, answer["lost_runs"], strict=True))[name]
        got = client.receive_all(name)
        assert [each.body for each in got] == [b"1", b"2"]
        assert got[0].key == "k1"
        assert got[0].id == run[1:3]
    world.advance(60_100)
    assert bodies(client, "plain") == [b"1", b"2", b"3"]
    assert bodies(client, "short") == [], (
        "its leases are over, and so is the time to live of its queue"
    )


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("acked", ["a", "b", "c"])
def test_a_digest_has_what_one_queue_still_needs(acked: str, key: str) -> None:
    """The record of a routed message is needed until it has ended in all of them, be it part of a run or alone."""
    world = World(segment_batches=50)
    world.digests = True
    client = world.hello()
    make(client, "e", "fanout")
    for name in "abc":
        bind(client, "e", name)
    reached(route(client, "e", key=key))
    client.settle("ack", *client.receive_all(acked))
    for _ in range(60):  # the segment is not the last one any more
        client.publish("else", b"y")
    world.restart()
    client = world.hello()
    left = {name: bodies(client, name) for name in "abc"}
    assert left == {name: [] if name == acked else [b"x"] for name in "abc"}


def test_bindings_end_with_what_they_join() -> None:
    """A queue of the same name that is made again gets nothing; over a start, too."""
    world = World()
    client = world.hello()
    for name in ("a", "b"):
        make(client, name, "direct", unroutable="drop")
    bind(client, "a", "q", "k")
    bind(client, "a", target="b", pattern="k")
    bind(client, "b", "r", "k")
    asked(client, "queue_delete", queue="q")
    client.publish("q", b"own")
    assert reached(route(client, "a", "k")) == {"r"}
    asked(client, "exchange_delete", name="b")
    make(client, "b", "direct", unroutable="drop")
    bind(client, "b", "r", "k")
    assert reached(route(client, "a", "k")) == set()
    assert asked(client, "bindings", exchange="a") == {"bindings": []}
    assert len(list(world.store.kept.of(BINDING))) == 1, "that of r; nothing is left of the others"
    world.restart()
    client = world.hello()
    assert reached(route(client, "a", "k")) == set()
    assert reached(route(client, "b", "k")) == {"r"}
    assert bodies(client, "q") == [b"own"]


def test_bindings_are_shown_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, whatever ends in between."""
    monkeypatch.setattr(limits, "MAX_LISTED", 3)
    client = World().hello()
    make(client, "e", "direct")
    for n in range(8):
        bind(client, "e", "q", f"k{n}")
    seen, after = [], b""
    while True:
        value = asked(client, "bindings", exchange="e", after=after)
        seen += [each["pattern"] for each in value["bindings"]]
        asked(client, "unbind", exchange="e", queue="q", pattern=seen[-1])
        if "next" not in value:
            break
        after = value["next"]
    assert seen == [f"k{n}" for n in range(8)]


def test_a_match_of_ten_thousand_topics_looks_at_few() -> None:
    """Nodes that are looked at, not time: so many more would be `limit_reached`."""
    topics: Topics[int] = Topics()
    for n in range(10_000):
        topics.add(f"region-{n % 100}.*.user-{n}.#", n)
    topics.add("#.error", -1)
    found = topics.match("region-7.eu.user-107.login.error", most_nodes=30)
    assert found is not None
    assert sorted(found) == [-1, 107]


def test_patterns_that_fit_everything_are_too_much_to_look_at() -> None:
    """One message must not stop the loop."""
    client = World().hello()
    make(client, "e", "topic")
    rng = random.Random(3)
    for n in range(300):
        words = [rng.choice("*#") for _ in range(100)]
        bind(client, "e", "q", ".".join([*words, f"x{n}"]))
    answer = route(client, "e", ".".join("a" * 127))
    assert answer["code"] == "limit_reached"


def test_an_exchange_of_headers_has_few_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at for each message."""
    monkeypatch.setattr(limits, "MAX_SCANNED_BINDINGS", 2)
    client = World().hello()
    make(client, "e", "headers")
    for n in range(2):
        bind(client, "e", "q", f"all n={n}")
    value = asked(client, "bind", exchange="e", queue="q", pattern="any n=3")
    assert value["code"] == "limit_reached"


def test_many_bindings_to_one_queue_are_one_queue() -> None:
    """The limit is of queues, times messages."""
    client = World().hello()
    make(client, "e", "topic")
    for n in range(30):
        bind(client, "e", "q", f"#.a.{'*.' * n}#")
    some = [b"x"] * 500
    assert reached(route(client, "e", ".".join("a" * 40), *some)) == {"q"}


def test_the_parts_of_a_frame_share_the_limit_of_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame is one step of the loop."""
    monkeypatch.setattr(limits, "MAX_TARGETS", 5)
    client = World().hello()
    make(client, "e", "fanout")
    for n in range(3):
        bind(client, "e", f"q{n}")
    parts = [{"op": "route", "exchange": "e", "count": 1}] * 2
    answer = client.sequenced(parts, b"", b"\0\0\0\0\1\0\0\0" * 2, b"ab")
    assert answer["code"] == "limit_reached"
    assert bodies(client, "q0") == []


@pytest.mark.parametrize("way", ["ack", "purge", "expire"])
def test_what_is_known_of_a_time_to_live_goes_with_the_last_copy(way: str) -> None:
    """Of the copies in all queues: their bytes are the same."""
    world = World()
    client = world.hello()
    make(client, "e", "fanout")
    for name in "abc":
        bind(client, "e", name)
    reached(route(client, "e", ttl_ms=10_000))
    for name in "abc":
        if way == "ack":
            client.settle("ack", *client.receive_all(name))
        elif way == "purge":
            client.purge(name)
    world.advance(11_000)
    lifetimes = world.core.store.sums.lifetimes
    assert (len(lifetimes), len(lifetimes.of_extent)) == (0, 0)


def test_a_start_reads_no_bodies_of_what_was_routed() -> None:
    """As of what was published to one queue: they stay in the log until they are needed."""
    world = World(segment_batches=50)
    world.digests = True
    client = world.hello()
    make(client, "e", "fanout")
    for name in "ab":
        bind(client, "e", name)
    for _ in range(120):
        client.answered_below = client.sequence + 1
        reached(route(client, "e", "", b"x" * 1_000))
    world.restart()
    assert world.core.store.sums.held_bytes < 60 * 1_100  # those of the last segment
    client = world.hello()
    for name in "ab":
        got = 0
        while some := client.receive_all(name):
            got += len(some)
        assert got == 120


def test_a_step_routes_with_an_ack_or_not_at_all() -> None:
    """One frame acks and routes; a queue that is full refuses both."""
    client = World().hello()
    make(client, "e", "fanout")
    bind(client, "e", "next")
    client.publish("jobs", b"job")
    (job,) = client.receive_all("jobs")
    parts = [
        {"op": "ack", "queue": "jobs", "runs": 1},
        {"op": "route", "exchange": "e", "count": 1},
    ]
    asked(client, "queue_set", queue="next", settings={"max_messages": 1, "overflow": "reject"})
    assert reached(route(client, "e"))
    args = wire.pack_runs([job.run]), b"\0\0\0\0\1\0\0\0", b"n"
    assert client.sequenced(parts, *args)["code"] == "queue_full"
    asked(client, "queue_set", queue="next", settings={"max_messages": 0})
    answer = client.sequenced(parts, *args)
    assert [sorted(result) for result in answer["results"]] == [
        ["lost"],
        ["durability", "queues", "routed"],
    ]
    assert bodies(client, "next") == [b"x", b"n"]
    assert client.stats("jobs")["acked"] == 1
