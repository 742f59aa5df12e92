"""Retained logs over HTTP: the API of groups, the page, the metrics, and the check of their lag."""

from __future__ import annotations

from commands_here import look
from http_broker import HttpBroker
from test_api import HOSTILE, act, get

import minibroker
from minibrokerd.process.exits import CHECK_EXITS


async def logged(broker: HttpBroker) -> None:
    """Give it a log with five messages, all in its files, and a group that is at its end."""
    async with minibroker.connect(broker.server.url) as connection:
        events = connection.queue("events", kind="log")
        await events.publish_many([{"n": number} for number in range(4)], key="k")
        await events.publish(HOSTILE)
        log = connection.log("events")
        at = 0
        while at < 5:
            at = (await log.read(at, wait=10)).next
        await log.declare_group("audit", "next")


async def test_groups_are_made_shown_and_moved(http_broker: HttpBroker) -> None:
    await logged(http_broker)
    view = get(http_broker, "queues/events")
    assert view["group_of"] is None
    size = view["offsets"].pop("bytes")
    assert view["offsets"] == {"first": 0, "stop": 5, "next": 5, "messages": 5, "groups": 1}
    assert size > 0
    made = act(http_broker, "PUT", "queues/events/groups/mail", {"start": 3})
    assert (made["queue"], made["position"]) == ("events@mail", 3)
    assert [each["group"] for each in get(http_broker, "queues/events/groups")["groups"]] == [
        "audit",
        "mail",
    ]
    for place, at in (({"start": 2}, 2), ({"start": "next"}, 5), ({"start": "last"}, 4)):
        moved = act(http_broker, "POST", "queues/events/groups/audit/seek", place)
        assert moved["position"] == at
    moved = act(http_broker, "POST", "queues/events/groups/audit/seek", {"time_unix_ms": 1})
    assert moved["seeks"] == 4
    view = get(http_broker, "queues/events@audit")
    assert view["offsets"] is None
    assert view["group_of"]["log"] == "events"
    for place in ({"start": "middle"}, {"start": -1}, {"begin": 1}, {"time_unix_ms": 2**60}):
        act(http_broker, "POST", "queues/events/groups/audit/seek", place, 400)
    act(http_broker, "POST", "queues/events/groups/none/seek", {}, 404)
    act(http_broker, "PUT", "queues/none/groups/audit", {}, 404)
    asked = http_broker.client.put("/api/v1/queues/events/groups/x", json={})
    assert asked.status_code == 401
    http_broker.server.prints("action=move_group")


async def test_the_page_of_a_log_and_of_a_group(http_broker: HttpBroker) -> None:
    """Its groups, and its newest messages first; what is in them is text."""
    await logged(http_broker)
    page = http_broker.client.get("/queues/events").text
    assert "offsets 0 to 4. The next offset is 5." in page
    assert '<a href="/queues/events@audit">audit</a>' in page
    assert page.index("&lt;script&gt;alert(1)") < page.index("{&#34;n&#34;: 3}")
    assert "<script>alert" not in page
    page = http_broker.client.get("/queues/events@audit").text
    assert '<a href="/queues/events">events</a>: it is at offset 5, with 0 messages behind.' in page


async def test_metrics_and_the_check_of_a_lag(http_broker: HttpBroker) -> None:
    """A group that rests falls behind what it is fed ahead."""
    await logged(http_broker)
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.log("events").declare_group("late", 10**6)
        lines = http_broker.client.get("/metrics").text.splitlines()
        for line in (
            'minibroker_retained_messages{queue="events"} 5',
            'minibroker_retained_first_offset{queue="events"} 0',
            'minibroker_retained_next_offset{queue="events"} 5',
            'minibroker_group_position{queue="events@audit"} 5',
            'minibroker_group_lag_messages{queue="events@audit"} 0',
        ):
            assert line in lines
        events = connection.queue("events")
        for _ in range(25):
            await events.publish_many([b""] * 500)
        await connection.log("events").seek("audit", "first")
        while not 0 < (await connection.log("events").show()).groups[0].lag < 12_505:
            pass  # none yet before it has moved, all of them before it is fed
    quiet = tuple(
        word
        for name in ("disk-free", "consumers-gone", "sync-p99", "oldest-ready")
        for word in (f"--{name}", "off")
    )
    done = look(http_broker, "check", *quiet, "--group-lag", "1,")
    assert done.returncode == CHECK_EXITS[1].code, done
    assert "group-lag" in done.stdout
    assert "events@audit" in done.stdout
    assert look(http_broker, "check", *quiet).returncode == CHECK_EXITS[0].code
