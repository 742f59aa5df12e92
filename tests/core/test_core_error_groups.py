"""protocol.md, `error_groups` and `redrive`: dead messages by what they died of, and back by a filter."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Id
from harness import World
from looks import MOST, counted, small_budget

from minibroker.contract import limits
from minibrokerd.core.model import index, places, walks
from minibrokerd.core.model.deaths import death_of

__all__ = ["small_budget"]
MINUTE_MS = 60_000
AT_CHARGE = "card 17 declined (shop/booking.py:12 in charge)"
AT_REFUND = "card 17 declined (shop/booking.py:40 in refund)"


def asked(client: Client, part: dict[str, Any]) -> dict[str, Any]:
    """Return the value of an answer that may take steps."""
    answer = client.request(part)
    client.world.run_jobs()
    client.world.sync()
    found: dict[str, Any] = answer or client.answer(request=client.requests)
    value: dict[str, Any] = found.get("value", found)
    return value


def groups(client: Client, queue: str = "q.dlq", **fields: Any) -> list[dict[str, Any]]:
    """Return all groups of a DLQ, page by page, those of the same name added up."""
    found: dict[str, dict[str, Any]] = {}
    after = b""
    while True:
        value = asked(client, {"op": "error_groups", "queue": queue, "after": after, **fields})
        assert value["count"] == sum(group["count"] for group in value["groups"])
        for group in value["groups"]:
            known = found.setdefault(group["group"], group)
            if known is not group:
                known["count"] += group["count"]
        if "next" not in value:
            return list(found.values())
        after = value["next"]


def die(client: Client, count: int = 1, error: tuple[str, str] = ("E", "e"), **fields: Any) -> None:
    """Let so many messages of `q` die of an error."""
    client.publish("q", *[b"x"] * count, **fields)
    got = client.receive_all("q", count)
    assert len(got) == count
    client.settle("reject", *got, error=error)


def redriven(client: Client, **fields: Any) -> int:
    """Return how many messages a redrive sent back."""
    part = {"op": "redrive", "queue": "q.dlq", "runs": 0, **fields}
    return int(asked(client, part)["redriven"])


def ready(client: Client) -> list[Id]:
    """Return the ids of what waits in `q`."""
    return [(each["origin"], each["sequence"]) for each in client.peek("q")]


def test_a_death_is_told_by_its_place_else_by_its_text() -> None:
    """What differs from message to message makes no group of its own."""
    one = death_of("failed", "Declined", AT_CHARGE)
    assert one.place == "shop/booking.py:12 in charge"
    assert one.group == death_of("failed", "Declined", AT_CHARGE.replace("17", "x")).group
    others = (
        death_of("failed", "Declined", AT_REFUND),
        death_of("rejected", "Declined", AT_CHARGE),
        death_of("failed", "Other", AT_CHARGE),
    )
    assert len({one.group, *(each.group for each in others)}) == 4
    plain = death_of(
        "failed", "E", "box 17 at 0xff of 6fa459ea-ee8a-3ca4-894e-db77e160355e\nmore 3"
    )
    assert (plain.text, plain.place) == ("box # at # of #", "")
    assert plain.group == death_of("failed", "E", "box 3 at 0x1 of 9").group
    assert plain.group != death_of("failed", "E", "bag 3 at 0x1 of 9").group


def test_groups_have_counts_times_and_an_example() -> None:
    world = World()
    client = world.hello()
    die(client, 2, ("Declined", AT_CHARGE))
    world.advance(MINUTE_MS)
    die(client, 1, ("Declined", AT_CHARGE.replace("17", "18")))
    die(client, 3, ("", ""))
    by_class = {group["error_class"]: group for group in groups(client)}
    declined = by_class["Declined"]
    assert (declined["count"], declined["cause"]) == (3, "rejected")
    assert declined["last_unix_ms"] - declined["first_unix_ms"] == MINUTE_MS
    assert declined["last_unix_ms"] == world.unix_ms
    assert (declined["origin"], declined["sequence"], declined["text"]) == (1, 0, AT_CHARGE)
    assert by_class[""]["count"] == 3
    assert [group["count"] for group in groups(client, younger_ms=1_000, cause="rejected")] == [
        1,
        3,
    ]
    assert client.stats("q.dlq")["ready"] == 6, "nothing was changed"


def test_groups_of_no_dlq_are_refused() -> None:
    world = World()
    client = world.hello()
    die(client)
    for part, code in (
        ({"queue": "q"}, "bad_value"),
        ({"queue": "nothing.dlq"}, "unknown_queue"),
        ({"queue": "q.dlq", "after": b"?"}, "bad_value"),
        ({"queue": "q.dlq", "origin": "nothing"}, "unknown_queue"),
    ):
        assert asked(client, {"op": "error_groups", **part})["code"] == code
    both = {"op": "redrive", "queue": "q.dlq", "runs": 1, "key": "k"}
    answer = client.request(both, b"\0" * 8 + b"\1\0\0\0" + b"\0" * 8 + b"\1\0\0\0")
    assert answer["code"] == "bad_value"
    assert groups(client, "q.dlq")[0]["count"] == 1


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"error_class": "Declined"}, [0, 1]),
        ({"error_class": "Decline"}, []),
        ({"error_text": "booking.py:40"}, [1]),
        ({"cause": "failed"}, [3]),
        ({"key": "k"}, [1, 2]),
        ({"key": "k", "error_class": "Declined"}, [1]),
        ({"origin": "q"}, [0, 1, 2, 3]),
        ({"origin": "other"}, [4]),
        ({"older_ms": MINUTE_MS}, [0]),
        ({"younger_ms": MINUTE_MS}, [1, 2, 3, 4]),
        ({"older_ms": 1, "younger_ms": MINUTE_MS}, [1]),
        ({"older_ms": 1, "count": 1}, [0]),
    ],
)
def test_a_filter_says_which_go_back(fields: dict[str, Any], wanted: list[int]) -> None:
    """All that is given must hold; they come in the order of their ids."""
    world = World()
    client = world.hello()
    client.set("q", max_attempts=1)
    client.publish("other", b"x")
    moved = {"op": "move", "queue": "other", "target": "q", "runs": 0}
    die(client, 1, ("Declined", AT_CHARGE))
    world.advance(MINUTE_MS - 5)
    die(client, 1, ("Declined", AT_REFUND), key="k")
    world.advance(5)
    die(client, 1, ("E", "e"), key="k")
    client.publish("q", b"x")
    client.settle("nack", *client.receive_all("q"), error=("F", "f"))
    client.request(moved)
    client.settle("reject", *client.receive_all("q"), error=("G", "g"))
    ids = [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert client.stats("q.dlq")["ready"] == 5
    in_groups = sum(group["count"] for group in groups(client, **{**fields, "count": 0}))
    assert redriven(client, **fields) == len(wanted)
    assert ready(client) == [ids[index] for index in wanted]
    assert in_groups == len(wanted) or "count" in fields
    world.check()


def test_a_group_goes_back_by_its_name() -> None:
    world = World()
    client = world.hello()
    die(client, 2, ("Declined", AT_CHARGE))
    die(client, 3, ("Declined", AT_REFUND))
    (group,) = [each for each in groups(client) if "refund" in each["place"]]
    assert redriven(client, group=group["group"]) == 3
    assert [each["count"] for each in groups(client)] == [2]
    assert redriven(client, group="0" * limits.MAX_GROUP_CHARS) == 0


@pytest.mark.usefixtures("small_budget")
def test_very_many_dead_messages_are_grouped_and_sent_back_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No apply looks at more than its number of items; each page, and all of them together, are exact."""
    monkeypatch.setattr(walks, "LOOKS", 100)
    monkeypatch.setattr(places, "MOST", 50)
    monkeypatch.setattr(index, "SHELF_BITS", 5)
    monkeypatch.setattr(limits, "MAX_GROUPED", 300)
    monkeypatch.setattr(limits, "MAX_GROUPS", 7)
    world = World()
    client = world.hello()
    for number in range(30):
        die(client, 40, (f"E{number % 10}", "e"))
    world.store.looks_left = walks.LOOKS
    with counted(world, world.store.queues["q.dlq"].group.lanes.index) as looks:
        found = groups(client)
        assert sorted(group["count"] for group in found) == [120] * 10
        assert looks.most <= MOST, looks.applies
        assert len(looks.applies) > 30, "one step is no test"
        assert redriven(client, error_class="E3") == 120
        assert looks.most <= MOST
    assert client.stats("q") | {"ready": 120} == client.stats("q")
    assert sum(group["count"] for group in groups(client)) == 1_200 - 120


def test_what_dies_meanwhile_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redrive by a filter is about what was dead when it came: not what dies, or dies again, since."""
    monkeypatch.setattr(walks, "LOOKS", 10)
    monkeypatch.setattr(places, "MOST", 2)
    world = World()
    client = world.hello()
    die(client, 20)
    world.store.looks_left = walks.LOOKS
    other = world.hello("worker")
    answer = client.request({"op": "redrive", "queue": "q.dlq", "runs": 0, "error_class": "E"})
    again: set[Id] = set()
    while answer is None:
        other.publish("q", b"new")
        got = other.receive_all("q")
        again |= {message.id for message in got}
        other.settle("reject", *got, error=("E", "e"))
        world.advance(8)
        answer = client.answer(request=client.requests)
    assert answer["value"] == {"redriven": 20}
    assert max(again) >= (1, 20), "nothing died while it was under way"
    world.check()
