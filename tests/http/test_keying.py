"""Keys over HTTP and on the page; publishes with terms, unique keys and dedupe ids."""

from __future__ import annotations

from typing import Any

import pytest
from http_broker import TOKEN, HttpBroker

import minibroker.sync

MAY = {"authorization": f"Bearer {TOKEN}"}


def call(broker: HttpBroker, method: str, path: str, status: int = 200, **body: Any) -> Any:
    """Return what a request of the API is answered with."""
    answer = broker.client.request(method, f"/api/v1/{path}", json=body or None, headers=MAY)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_keys_have_weights_and_rest(http_broker: HttpBroker) -> None:
    """Whatever letters they have; on the page, too."""
    name = 'a/b "c" <i>'
    with minibroker.sync.connect(http_broker.server.url) as broker:
        queue = broker.queue("mail")
        queue.publish(b"x", key=name)
        assert call(http_broker, "GET", "queues/mail/keys") == {"keys": []}
        made = call(http_broker, "PUT", "queues/mail/keys", key=name, weight=3, paused=True)
        assert (made["key"], made["weight"], made["paused"]) == (name, 3, True)
        assert (made["resumes_unix_ms"], made["by"]) == (0, "http operator")
        assert queue.receive() == []
        assert call(http_broker, "GET", "queues/mail/keys") == {"keys": [made]}
        page = http_broker.client.get("/queues/mail").text
        assert "Keys that have a weight, are paused, or have an open circuit: 1" in page
        assert "<i>" not in page
        wish: dict[str, Any] = {"key": name, "paused": True, "for_ms": 60_000}
        made = call(http_broker, "PUT", "queues/mail/keys", **wish)
        assert made["resumes_unix_ms"] - made["since_unix_ms"] == pytest.approx(60_000, abs=1_000)
        made = call(http_broker, "PUT", "queues/mail/keys", key=name, paused=False)
        assert (made["weight"], made["paused"]) == (3, False)
        assert len(queue.receive()) == 1
    http_broker.server.prints("http_change action=set_key who=operator")


def test_circuits_of_keys_are_shown_and_closed(http_broker: HttpBroker) -> None:
    """In the list of keys, on the page, and how many in what is said of the queue, and in a scrape."""
    metric = 'minibroker_queue_circuits_open{queue="mail"} 1'
    with minibroker.sync.connect(http_broker.server.url) as broker:
        queue = broker.queue(
            "mail",
            retry_delay_ms=0,
            circuit_failures_percent=50,
            circuit_attempts=1,
            circuit_by="key",
        )
        queue.publish(b"x", key="a")
        queue.publish(b"x", key="b")
        before = call(http_broker, "GET", "queues/mail")
        assert (before["circuit"], before["key_circuits"]) == (None, {"open": 0, "failing": 0})
        assert metric not in http_broker.client.get("/metrics").text
        (message,) = queue.receive()
        message.nack(ConnectionError("no answer"), confirmed=True)
        assert call(http_broker, "GET", "queues/mail")["key_circuits"]["open"] == 1
        (told,) = call(http_broker, "GET", "queues/mail/keys")["keys"]
        circuit = told["circuit"]
        assert (told["key"], circuit["state"]) == ("a", "open")
        assert circuit["why"] == "1 of 1 attempts failed, the last one with ConnectionError"
        until_ms = circuit["until_unix_ms"] - circuit["since_unix_ms"]
        assert until_ms == pytest.approx(30_000, abs=1_000)
        page = http_broker.client.get("/queues/mail").text
        assert "Circuits of keys that are open: 1." in page
        assert "circuit open until" in page
        assert circuit["why"] in page
        assert metric in http_broker.client.get("/metrics").text
        made = call(http_broker, "PUT", "queues/mail/keys", key="a", paused=False)
        assert made["circuit"] is None
        assert metric not in http_broker.client.get("/metrics").text
        assert len(queue.receive(10)) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"key": "k"}, 400),
        ({"key": "", "weight": 2}, 400),
        ({"key": "k", "weight": 0}, 400),
        ({"key": "k", "weight": 2, "for_ms": 5}, 400),
        ({"key": "k", "paused": True, "for_ms": -5}, 400),
        ({"key": "k", "paused": True, "for_ms": 2**60}, 400),
        ({"key": "k", "weight": 2, "color": "red"}, 400),
    ],
)
def test_what_can_be_set_for_no_key_is_refused(
    http_broker: HttpBroker, body: dict[str, Any], status: int
) -> None:
    with minibroker.sync.connect(http_broker.server.url) as broker:
        broker.queue("mail").set()
    assert call(http_broker, "PUT", "queues/mail/keys", status, **body)["code"] == "bad_value"
    assert call(http_broker, "GET", "queues/mail/keys") == {"keys": []}
    call(http_broker, "PUT", "queues/nowhere/keys", 404, key="k", weight=2)


def test_a_message_has_the_terms_that_it_is_published_with(http_broker: HttpBroker) -> None:
    terms = {"max_attempts": 2, "lease_ms": 5_000, "priority": 7, "ttl_ms": 60_000}
    stored = call(
        http_broker, "POST", "queues/mail/messages", text="x", key="k", delay_ms=90_000, **terms
    )
    assert (stored["duplicate"], stored["replaced"]) == (False, "")
    message = call(http_broker, "GET", f"queues/mail/messages/{stored['id']}")
    assert (message["key"], message["state"]) == ("k", "DELAYED")
    assert message["terms"] | terms == message["terms"]


def test_what_is_there_already_is_not_stored_twice(http_broker: HttpBroker) -> None:
    """By a unique key, whose message may be replaced, and by a dedupe id within its window."""

    def publish(status: int = 200, **more: Any) -> Any:
        return call(http_broker, "POST", "queues/mail/messages", status, text="x", **more)

    first = publish(unique_key="u")
    again = publish(unique_key="u")
    assert (again["id"], again["duplicate"]) == (first["id"], True)
    later = publish(unique_key="u", unique="replace")
    assert (later["duplicate"], later["replaced"]) == (False, first["id"])
    first = publish(dedupe_id="d", dedupe_window_ms=60_000)
    again = publish(dedupe_id="d")
    assert (again["id"], again["duplicate"]) == (first["id"], True)
    assert publish(400, unique_key="u", unique="sometimes")["code"] == "bad_value"
    assert "no unique_key" in publish(400, unique="replace")["text"]
    assert "no dedupe_id" in publish(400, dedupe_window_ms=60_000, unique_key="v")["text"]
    assert publish(400, dedupe_id="e", dedupe_window_ms=-1)["code"] == "bad_value"


def test_a_schedule_has_one_job_at_a_time(http_broker: HttpBroker) -> None:
    """By its unique key; the answer of a run names the job that is there."""
    made = call(
        http_broker, "PUT", "schedules/s", queue="mail", cron="@yearly", text="x", unique_key="u"
    )
    assert made["terms"] == {"unique_key": "u"}
    first, again = (call(http_broker, "POST", "schedules/s/run") for _ in range(2))
    assert (first["duplicate"], again["duplicate"], again["id"]) == (False, True, first["id"])
