"""The JSON API on a real broker: every number and every action, who may do it, and what the log says of it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from http_broker import TOKEN, HttpBroker, StartHttp

import minibroker
from minibroker.contract.settings import SETTINGS
from minibrokerd.http.gate import Need
from minibrokerd.http.routes import API, Row

BEARER = {"authorization": f"Bearer {TOKEN}"}
HOSTILE = "<script>alert(1)</script>&\"'\x00\u202e"


def get(broker: HttpBroker, path: str, **query: Any) -> Any:
    """Return what the API says; it must be there."""
    answer = broker.client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def act(broker: HttpBroker, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    """Do something as the operator; return the answer."""
    answer = broker.client.request(method, f"/api/v1/{path}", json=body, headers=BEARER)
    assert answer.status_code == status, answer.text
    return answer.json()


async def filled(broker: HttpBroker) -> None:
    """Give it a queue with messages that wait, one that is delayed, and three that died of two things."""
    async with minibroker.connect(broker.server.url, name="filler") as connection:
        mail = connection.queue("mail")
        for number, error in enumerate(
            (ValueError("box 7 is full"), ValueError("box 8 is full"), KeyError("to"))
        ):
            await mail.publish({"n": number}, headers={"trace": "t"})
            (message,) = await mail.receive()
            await message.reject(error)
        await mail.publish_many([{"n": number} for number in range(10, 15)])
        await mail.publish(b"\xff\x00raw", delay=1_000, key="k")


async def test_the_broker_in_numbers(http_broker: HttpBroker) -> None:
    """Sums over all queues, the log and its disk, memory."""
    await filled(http_broker)
    overview = get(http_broker, "overview")
    assert overview["phase"] == "ready"
    assert overview["queues"] == 2
    assert overview["messages"] == {"ready": 8, "delayed": 1, "held": 0, "begun": 0}
    assert overview["counted"]["published"] == 9
    assert overview["can_change"] is True
    assert overview["log"]["disk_bytes"] > 0
    assert overview["log"]["free_bytes"] > 0
    assert overview["log"]["sync_p99_ms"] >= overview["log"]["sync_p50_ms"] > 0


async def test_queues_come_in_pages_that_can_be_searched_and_sorted(
    http_broker: HttpBroker,
) -> None:
    """Every queue once, whatever the size of the pages."""
    async with minibroker.connect(http_broker.server.url) as connection:
        for name in ("a", "b.x", "b.y", "c"):
            await connection.queue(name).publish_many([b"m"] * (1 + len(name)))
    seen, after = [], ""
    while True:
        page = get(http_broker, "queues", count=3, after=after)
        seen += [row["name"] for row in page["queues"]]
        after = page["next"]
        if not after:
            break
    assert seen == ["a", "b.x", "b.y", "c"]
    assert get(http_broker, "queues", match="b.")["total"] == 2
    assert [row["name"] for row in get(http_broker, "queues", match="*.y")["queues"]] == ["b.y"]
    first = get(http_broker, "queues", sort="ready", count=1)["queues"][0]
    assert (first["name"], first["counts"]["ready"]) == ("b.x", 4)
    assert http_broker.client.get("/api/v1/queues?sort=size").json()["code"] == "bad_value"
    for after in ("a", "one:a", "1:"):
        answer = http_broker.client.get(f"/api/v1/queues?sort=ready&after={after}")
        assert answer.json()["code"] == "bad_value"
    assert http_broker.client.get("/api/v1/queues?count=-1").status_code == 400


async def test_pages_by_a_number_go_on_when_their_last_queue_has_gone(
    http_broker: HttpBroker,
) -> None:
    """Or has another number: each queue that stays as it was comes once."""
    async with minibroker.connect(http_broker.server.url) as connection:
        for name, count in (("a", 1), ("b", 3), ("c", 2), ("d", 2), ("e", 1)):
            await connection.queue(name).publish_many([b"m"] * count)
        page = get(http_broker, "queues", sort="ready", count=2)
        assert [row["name"] for row in page["queues"]] == ["b", "c"]
        await connection.queue("c").delete(force=True)
        page = get(http_broker, "queues", sort="ready", count=1, after=page["next"])
        assert [row["name"] for row in page["queues"]] == ["d"]
        await connection.queue("d").publish_many([b"m"] * 9)
        page = get(http_broker, "queues", sort="ready", count=2, after=page["next"])
        assert ([row["name"] for row in page["queues"]], page["next"]) == (["a", "e"], "")
        oldest = get(http_broker, "queues", sort="oldest", count=1)
        assert oldest["queues"][0]["name"] == "a"
        page = get(http_broker, "queues", sort="oldest", count=9, after=oldest["next"])
        assert "a" not in [row["name"] for row in page["queues"]]


async def test_one_queue_and_its_settings(http_broker: HttpBroker) -> None:
    """They are shown, and changed by an operator; what does not fit changes nothing."""
    await filled(http_broker)
    queue = get(http_broker, "queues/mail")
    assert queue["counts"]["ready"] == 5
    assert queue["dlq"] == "mail.dlq"
    assert queue["oldest_ready_ms"] >= 0
    assert {row["name"] for row in get(http_broker, "settings")} == set(SETTINGS)
    made = act(http_broker, "PUT", "queues/mail/settings", {"max_attempts": 3})
    assert made["max_attempts"] == 3
    assert get(http_broker, "queues/mail")["settings"]["max_attempts"] == 3
    assert (
        act(http_broker, "PUT", "queues/mail/settings", {"max_attempts": 0}, 400)["code"]
        == "bad_value"
    )
    assert get(http_broker, "queues/mail")["settings"]["max_attempts"] == 3
    http_broker.server.prints("http_change action=set who=operator")


async def test_messages_come_in_pages(http_broker: HttpBroker) -> None:
    """By a cursor, in one state or all."""
    await filled(http_broker)
    seen, after = [], ""
    while True:
        page = get(http_broker, "queues/mail/messages", count=2, after=after)
        seen += [message["body_text"] for message in page["messages"]]
        after = page["next"]
        if not after:
            break
    assert seen == [*(f'{{"n": {number}}}' for number in range(10, 15)), "\\xff\x00raw"]
    (delayed,) = get(http_broker, "queues/mail/messages", state="delayed")["messages"]
    assert (delayed["state"], delayed["key"], delayed["encoding"]) == ("DELAYED", "k", "bytes")
    whole = get(http_broker, f"queues/mail/messages/{delayed['id']}")
    assert base64.b64decode(whole["body_base64"]) == b"\xff\x00raw"
    assert http_broker.client.get("/api/v1/queues/mail/messages?after=zz").status_code == 400
    assert http_broker.client.get("/api/v1/queues/mail/messages?state=gone").status_code == 400


async def test_one_message_with_its_history_and_its_holder(http_broker: HttpBroker) -> None:
    """Every attempt; and who has it, since when."""
    await filled(http_broker)
    (first, *_) = get(http_broker, "queues/mail.dlq/messages")["messages"]
    dead = get(http_broker, f"queues/mail.dlq/messages/{first['id']}")
    assert dead["headers"] == {"trace": "t"}
    (attempt,) = dead["history"]
    assert (attempt["cause"], attempt["error_class"]) == ("rejected", "ValueError")
    assert (attempt["error_text"], attempt["client"]) == ("box 7 is full", "filler")
    async with minibroker.connect(http_broker.server.url, name="the holder") as connection:
        (message,) = await connection.queue("mail").receive()
        holder = get(http_broker, f"queues/mail/messages/{message.id}")["holder"]
        assert (holder["client"], holder["state"]) == ("the holder", "BEGUN")
        assert holder["since_unix_ms"] > 0
        assert holder["peer"].startswith("127.0.0.1:")
        mine = get(http_broker, f"sessions/{holder['session']}")
        assert [held["id"] for held in mine["messages"]] == [str(message.id)]
        (session,) = [each for each in get(http_broker, "sessions")["sessions"] if each["holds"]]
        assert (session["client"], session["begun"]) == ("the holder", 1)
        await message.ack()


async def test_dead_messages_by_what_they_died_of_and_back(http_broker: HttpBroker) -> None:
    """Numbers in a text are alike; one group goes back to work, then the rest."""
    await filled(http_broker)
    found = get(http_broker, "queues/mail.dlq/errors")
    assert [
        (group["count"], group["error_class"], group["error_text"]) for group in found["groups"]
    ] == [
        (2, "ValueError", "box # is full"),
        (1, "KeyError", "'to'"),
    ]
    assert (found["looked_at"], found["complete"]) == (3, True)
    group = found["groups"][0]["key"]
    assert act(http_broker, "POST", "queues/mail.dlq/redrive", {"group": group}) == {"messages": 2}
    assert get(http_broker, "queues/mail.dlq")["counts"]["ready"] == 1
    (left,) = get(http_broker, "queues/mail.dlq/messages")["messages"]
    assert act(http_broker, "POST", "queues/mail.dlq/redrive", {"ids": [left["id"]]}) == {
        "messages": 1
    }
    assert act(http_broker, "POST", "queues/mail.dlq/redrive") == {"messages": 0}
    assert get(http_broker, "queues/mail")["counts"]["ready"] == 8


async def test_a_redrive_by_the_server_is_started_shown_and_stopped(
    http_broker: HttpBroker,
) -> None:
    """One at a time; what it waits for, and who stopped it."""
    await filled(http_broker)
    path = "queues/mail.dlq/redrives"
    assert get(http_broker, path) == act(http_broker, "DELETE", path) == {"redrive": None}
    wish = {"error_class": "ValueError", "canary": 1, "rate": 5, "younger_ms": 3_600_000}
    begun = act(http_broker, "POST", path, wish)["redrive"]
    assert (begun["state"], begun["rate"], begun["canary"]) == ("canary", 5, 1)
    assert act(http_broker, "POST", path, {}, 400)["code"] == "limit_reached"
    stopped = act(http_broker, "DELETE", path)["redrive"]
    assert (stopped["state"], stopped["ended_unix_ms"] > 0) == ("stopped", True)
    assert get(http_broker, path)["redrive"] == stopped


async def test_a_message_is_edited_and_requeued_and_the_original_kept(
    http_broker: HttpBroker,
) -> None:
    """The new one names it; key and headers are those of the original unless others are given."""
    await filled(http_broker)
    (first, *_) = get(http_broker, "queues/mail.dlq/messages")["messages"]
    path = f"queues/mail.dlq/messages/{first['id']}"
    stored = act(http_broker, "POST", f"{path}/requeue", {"json": {"n": "mended"}})
    made = get(http_broker, f"queues/mail/messages/{stored['id']}")
    assert made["body_text"] == '{"n": "mended"}'
    assert made["headers"] == {"trace": "t", "minibroker-original": first["id"]}
    assert get(http_broker, path)["body_text"] == '{"n": 0}'
    assert act(http_broker, "DELETE", path) == {"messages": 1}
    assert act(http_broker, "DELETE", path, status=404)["code"] == "unknown_message"


async def test_what_does_not_fit_the_schema_of_a_queue_is_refused(http_broker: HttpBroker) -> None:
    """With the place, and with the code of the protocol."""
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.queue("orders").set_schema({"properties": {"id": {"type": "integer"}}})
    said = act(http_broker, "POST", "queues/orders/messages", {"json": {"id": "x"}}, status=400)
    assert said["code"] == "schema_mismatch"
    assert "$.id: " in said["text"]
    act(http_broker, "POST", "queues/orders/messages", {"json": {"id": 1}})


async def test_policies_and_where_settings_come_from_are_shown(http_broker: HttpBroker) -> None:
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.policies.set("p", "shown*", lease_ms=700)
        await connection.policies.set("p", "shown", operator=True, max_messages=9)
        await connection.queue("shown").set(max_attempts=3)
    view = get(http_broker, "queues/shown")
    assert (view["settings"]["lease_ms"], view["settings"]["max_messages"]) == (700, 9)
    assert view["origins"] == {
        "max_attempts": "chosen",
        "lease_ms": "policy p",
        "max_messages": "limit p",
    }
    found = get(http_broker, "policies")["policies"]
    assert [(each["pattern"], each["operator"]) for each in found] == [
        ("shown*", False),
        ("shown", True),
    ]
    async with minibroker.connect(http_broker.server.url) as connection:
        assert await connection.policies.delete("p")
        assert await connection.policies.delete("p", operator=True)


async def test_messages_are_published_purged_and_queues_deleted(http_broker: HttpBroker) -> None:
    """Bodies of each kind come out as they went in."""
    bodies: dict[str, Any] = {"json": [1], "text": "t", "base64": "/w=="}
    expected: dict[str, Any] = {"json": [1], "text": "t", "base64": b"\xff"}
    for kind in bodies:
        act(
            http_broker,
            "POST",
            "queues/new/messages",
            {kind: bodies[kind], "headers": {"a": 1}, "key": "k"},
        )
        async with minibroker.connect(http_broker.server.url) as connection:
            (message,) = await connection.queue("new").receive()
            assert (message.body, message.headers, message.key) == (expected[kind], {"a": 1}, "k")
            await message.ack()
    wrong: list[Any] = [
        {},
        {"json": 1, "text": "x"},
        {"base64": "?"},
        {"text": 1},
        {"json": 1, "more": 1},
        [],
    ]
    for body in wrong:
        assert act(http_broker, "POST", "queues/new/messages", body, 400)["code"] == "bad_value"
    for _ in range(3):
        stored = act(http_broker, "POST", "queues/new/messages", {"text": "x"})
    assert act(http_broker, "POST", "queues/new/purge", {"ids": [stored["id"]]}) == {"messages": 1}
    assert act(http_broker, "DELETE", "queues/new", status=409)["code"] == "queue_in_use"
    assert act(http_broker, "POST", "queues/new/purge") == {"messages": 2}
    assert act(http_broker, "DELETE", "queues/new") == {"messages": 0}
    assert http_broker.client.get("/api/v1/queues/new").json()["code"] == "unknown_queue"


async def test_every_change_is_an_event_with_who(http_broker: HttpBroker) -> None:
    """In the log, and over the API; the core's own events name the client that did it."""
    await filled(http_broker)
    act(http_broker, "POST", "queues/mail.dlq/redrive", {"count": 1})
    changes = [
        each for each in get(http_broker, "events")["events"] if each["event"] == "http_change"
    ]
    assert changes[-1]["fields"]["who"] == "operator"
    assert changes[-1]["fields"]["peer"].startswith("127.0.0.1:")
    http_broker.server.prints("messages_redriven connection=")
    http_broker.server.prints('client="http operator"')
    for name in ("mail", "mail.dlq"):  # told by a look once a second
        http_broker.server.prints(f"queue_created queue={name}")
    last = get(http_broker, "events")["last"]
    assert get(http_broker, "events", after=last)["events"] == []


def test_no_change_without_a_token(http_broker: HttpBroker) -> None:
    """Of every row that changes: neither without one nor with a wrong one, nor as a page of another site."""
    changes = [row for row in API if row.need is Need.CHANGE]
    assert len(changes) > 5
    origin = BEARER | {"origin": "http://evil.example"}
    asked = [
        (row, headers, status)
        for row in changes
        for headers, status in (({}, 401), ({"authorization": "Bearer no"}, 401), (origin, 403))
    ]

    def ask(row: Row, headers: dict[str, str], status: int) -> None:
        path = row.path.format(queue="mail", id="1-0", schedule="s", exchange="e", group="g")
        answer = http_broker.client.request(row.method, path, headers=headers, json={})
        assert answer.status_code == status, row

    with ThreadPoolExecutor(16) as together:  # an answer to a wrong token waits, for up to 2 s
        for asking in [together.submit(ask, *each) for each in asked]:
            asking.result()
    assert get(http_broker, "overview")["queues"] == 0


def test_without_a_token_in_the_broker_all_is_read_only(start_http: StartHttp) -> None:
    """And it says how to change that."""
    broker = start_http()
    answer = broker.client.post("/api/v1/queues/q/messages", json={"text": "x"})
    assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
    assert "--http-token-file" in answer.json()["text"]
    assert get(broker, "overview")["can_change"] is False


def test_what_does_not_fit_is_refused_in_words(http_broker: HttpBroker) -> None:
    """Names, ids and bodies that are none."""
    assert http_broker.client.get("/api/v1/queues/%3Cscript%3E").status_code == 404
    assert http_broker.client.get("/api/v1/queues/q/messages/1-0").status_code == 404
    assert http_broker.client.get("/api/v1/sessions/99").status_code == 404
    act(http_broker, "POST", "queues/q/messages", {"text": "x"})
    assert act(http_broker, "DELETE", "queues/q/messages/none", status=400)["code"] == "bad_value"
    assert act(http_broker, "POST", f"queues/{'x' * 300}/messages", {"text": "x"}, 400)
    assert act(http_broker, "POST", "queues/%3Cb%3E/messages", {"text": "x"}, 400)
    for data in (b"{", b"\xff", b"[" * 100_000, b'{"json": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"):
        answer = http_broker.client.post("/api/v1/queues/q/messages", content=data, headers=BEARER)
        assert answer.status_code == 400, answer.text
    digits = "9" * 5_000
    for path in (f"queues?count={digits}", f"readings?window={digits}", f"events?after={digits}"):
        assert http_broker.client.get(f"/api/v1/{path}").json()["code"] == "bad_value"
    long = "*a" * 10_000
    for path in (f"queues?match={long}", f"readings?queues=q,{long}", f"readings?skip={long}"):
        assert http_broker.client.get(f"/api/v1/{path}").json()["code"] == "bad_value"
    assert http_broker.client.get(f"/api/v1/sessions/{digits}").status_code == 404
    last_id = {"last-event-id": f"{get(http_broker, 'overview')['started_unix_ms']}-{digits}"}
    with http_broker.client.stream("GET", "/api/v1/events/stream", headers=last_id) as answer:
        assert answer.status_code == 200
    large = 10**30  # msgpack has none
    act(http_broker, "POST", "queues/q/messages", {"json": large}, 400)
    act(http_broker, "POST", "queues/q/messages", {"text": "x", "headers": {"a": large}}, 400)
    act(http_broker, "POST", "queues/q/messages", {"text": "x", "delay_ms": -1}, 400)
    act(http_broker, "PUT", "queues/q/settings", {"self": 1}, 400)
    assert "Traceback" not in http_broker.server.output
    assert get(http_broker, "queues/q")["counts"]["ready"] == 1


async def test_hostile_bodies_names_and_errors_stay_text(http_broker: HttpBroker) -> None:
    """In JSON as they are; on pages escaped, and no page runs what it did not bring."""
    async with minibroker.connect(
        http_broker.server.url, name=HOSTILE.replace("\x00", "")
    ) as connection:
        queue = connection.queue("q")
        await queue.publish(HOSTILE, headers={HOSTILE: HOSTILE}, key=HOSTILE)
        (message,) = await queue.receive()
        await message.reject(ValueError(HOSTILE))
        await connection.ping()  # the settlement is safe
        id = str(message.id)
        for path in (
            "",
            "queues/q",
            "queues/q.dlq",
            f"queues/q.dlq/messages/{id}",
            "queues/q.dlq/errors",
            "clients",
            "events",
            "log",
        ):
            answer = http_broker.client.get(f"/{path}")
            assert answer.status_code == 200, (path, answer.text)
            assert "<script>alert" not in answer.text, path
            assert "script-src 'self';" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
    assert get(http_broker, f"queues/q.dlq/messages/{id}")["body_text"] == HOSTILE
    answer = http_broker.client.get("/queues/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert answer.status_code == 404
    assert "<script>alert" not in answer.text


def test_the_document_describes_every_path(http_broker: HttpBroker) -> None:
    """OpenAPI 3.1: each row, with what it takes and gives; references lead somewhere."""
    document = get(http_broker, "openapi.json")
    assert document["openapi"].startswith("3.1")
    for row in API:
        operation = document["paths"][row.path][row.method.lower()]
        assert operation["summary"] == row.meaning
        assert ("requestBody" in operation) is (row.takes is not None)
        assert ("security" in operation) is (row.need is Need.CHANGE)
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert names >= set(row.query)
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(ids)) == len(ids)
    references = list(refs(document))
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def refs(value: Any) -> Any:
    """Yield every reference in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from refs(each)
    elif isinstance(value, list):
        for each in value:
            yield from refs(each)


def test_signing_in_gives_a_cookie_that_needs_the_pages_own_word(http_broker: HttpBroker) -> None:
    """The cookie alone changes nothing (CSRF); signed out, it is worth nothing."""
    client = http_broker.client
    assert client.post("/sign-in", data={"token": "no"}).headers["location"] == "/sign-in?wrong=1"
    assert (
        client.post(
            "/sign-in", data={"token": TOKEN}, headers={"origin": "http://evil.example"}
        ).status_code
        == 403
    )
    signed = client.post("/sign-in", data={"token": TOKEN})
    assert signed.headers["location"] == "/"
    assert get(http_broker, "events")["events"][-1]["fields"]["who"] == "operator"
    cookie = signed.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    path, body = "/api/v1/queues/q/messages", {"text": "x"}
    assert client.post(path, json=body).json()["code"] == "wrong_csrf"
    page = client.get("/").text
    csrf = page.split('name="csrf" content="')[1].split('"')[0]
    assert (
        client.post(path, json=body, headers={"x-minibroker-csrf": csrf[::-1]}).status_code == 403
    )
    assert client.post(path, json=body, headers={"x-minibroker-csrf": csrf}).status_code == 200
    ticket = dict(client.cookies)
    client.post("/sign-out")
    client.cookies.update(ticket)
    assert client.post(path, json=body, headers={"x-minibroker-csrf": csrf}).status_code == 401


def test_live_numbers_come_as_server_sent_events(http_broker: HttpBroker) -> None:
    """A first look at once, with the rows that were asked for."""
    act(http_broker, "POST", "queues/q/messages", {"text": "x"})
    with http_broker.client.stream("GET", "/api/v1/live?queues=q,none") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "event: look"
        data = next(lines)
    assert '"name":"q"' in data
    assert '"phase":"ready"' in data
    assert "none" not in data
    assert http_broker.server.stop() == 0
