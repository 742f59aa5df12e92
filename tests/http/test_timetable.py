"""Schedules and pauses over HTTP and on the page."""

from __future__ import annotations

from typing import Any

import pytest
from http_broker import TOKEN, HttpBroker
from prometheus_client.parser import text_string_to_metric_families

import minibroker.sync

MAY = {"authorization": f"Bearer {TOKEN}"}


def call(broker: HttpBroker, method: str, path: str, status: int = 200, **body: Any) -> Any:
    """Return what a request of the API is answered with."""
    json = body if method in ("POST", "PUT") else None
    answer = broker.client.request(method, f"/api/v1/{path}", json=json, headers=MAY)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_schedules(http_broker: HttpBroker) -> None:
    """Made, shown, run, paused, resumed and deleted; on the page, too."""
    wish: dict[str, Any] = {
        "queue": "reports",
        "cron": "0 3 29 2 *",
        "zone": "Europe/Berlin",
        "json": {"n": 1},
    }
    terms: dict[str, Any] = {
        "key": "k",
        "ttl_ms": 60_000,
        "priority": 3,
        "max_attempts": 2,
        "lease_ms": 5_000,
    }
    made = call(http_broker, "PUT", "schedules/nightly", **wish, **terms, headers={"a": "b"})
    assert (made["queue"], made["zone"], made["misfire"]) == ("reports", "Europe/Berlin", "once")
    assert (made["terms"], made["headers"], made["body_text"]) == (
        terms,
        {"a": "b"},
        '{"n": 1}',
    )
    assert made["next_unix_ms"] > 0
    assert call(http_broker, "GET", "schedules") == {"schedules": [made]}
    assert call(http_broker, "GET", "schedules/nightly") == made
    page = http_broker.client.get("/schedules").text
    assert "0 3 29 2 *" in page
    stored = call(http_broker, "POST", "schedules/nightly/run")
    with minibroker.sync.connect(http_broker.server.url) as connection:
        (job,) = connection.queue("reports").receive()
        assert (str(job.id), job.body, job.headers["a"]) == (stored["id"], {"n": 1}, "b")
        job.ack()
    assert call(http_broker, "POST", "schedules/nightly/pause")["paused"]
    assert "paused" in http_broker.client.get("/schedules").text
    assert not call(http_broker, "POST", "schedules/nightly/resume")["paused"]
    assert call(http_broker, "DELETE", "schedules/nightly") == {"deleted": True}
    assert call(http_broker, "DELETE", "schedules/nightly", 404)["code"] == "unknown_schedule"
    assert call(http_broker, "GET", "schedules/nightly", 404)["code"] == "unknown_schedule"
    assert "There is no schedule" in http_broker.client.get("/schedules").text
    bad = wish | {"cron": "61 * * * *"}
    assert call(http_broker, "PUT", "schedules/nightly", 400, **bad)["code"] == "bad_value"


def test_pauses(http_broker: HttpBroker) -> None:
    """Of a queue, whose page says so, and of workers."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        connection.queue("mail").publish(b"x")
        made = call(http_broker, "POST", "queues/mail/pause", for_ms=60_000)
        assert made["until_unix_ms"] - made["since_unix_ms"] == 60_000
        assert connection.queue("mail").receive() == []
        assert "mail is paused since" in http_broker.client.get("/queues/mail").text
        call(http_broker, "POST", "workers/pause", worker="w", below="1.10", deadline_ms=5_000)
        queue, workers = call(http_broker, "GET", "pauses")["pauses"]
        assert (queue["queue"], workers["worker"], workers["below"]) == ("mail", "w", "1.10")
        assert call(http_broker, "DELETE", "queues/mail/pause") == {"resumed": True}
        assert call(http_broker, "DELETE", "queues/mail/pause") == {"resumed": False}
        assert call(http_broker, "DELETE", "workers/pause?worker=w") == {"resumed": True}
        assert len(connection.queue("mail").receive()) == 1
        assert "mail is paused since" not in http_broker.client.get("/queues/mail").text


def test_a_circuit_says_its_state_and_why(http_broker: HttpBroker) -> None:
    """In the API, and on the page of its queue, while it is not closed."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        mails = connection.queue("mail", circuit_failures_percent=50, circuit_attempts=1)
        mails.publish_many([b"x"] * 2)
        assert call(http_broker, "GET", "queues/mail")["circuit"]["state"] == "closed"
        assert "The circuit of mail" not in http_broker.client.get("/queues/mail").text
        (message,) = mails.receive()
        message.nack(ConnectionError("no answer"), confirmed=True)
    circuit = call(http_broker, "GET", "queues/mail")["circuit"]
    assert circuit["state"] == "open"
    assert circuit["why"] == "1 of 1 attempts failed, the last one with ConnectionError"
    assert circuit["until_unix_ms"] - circuit["since_unix_ms"] == pytest.approx(30_000, abs=1_000)
    page = http_broker.client.get("/queues/mail").text
    assert "The circuit of mail is open since" in page
    assert circuit["why"] in page
    assert call(http_broker, "GET", "queues/mail.dlq", 404)["code"] == "unknown_queue"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("queues/nowhere/pause", {}, 404),
        ("queues/mail/pause", {"for_ms": 1, "until_unix_ms": 2**40}, 400),
        ("queues/mail/pause", {"until_unix_ms": 2**62}, 400),
        ("workers/pause", {}, 400),
        ("workers/pause", {"below": "v1"}, 400),
    ],
)
def test_what_can_be_no_pause_is_refused(
    http_broker: HttpBroker, path: str, body: dict[str, Any], status: int
) -> None:
    """With a code, and nothing is paused."""
    call(http_broker, "POST", path, status, **body)
    assert call(http_broker, "GET", "pauses") == {"pauses": []}


def test_schedules_and_pauses_are_metrics(http_broker: HttpBroker) -> None:
    """How many in which state, what became of their times, when each is due; and what is paused."""
    with minibroker.sync.connect(http_broker.server.url) as broker:
        broker.schedules.set("nightly", "0 3 * * *", "reports")
        broker.schedules.set("resting", "@hourly", "reports")
        broker.schedules.pause("resting")
        broker.schedules.run("nightly")
        due = broker.schedules.show("nightly").next
        broker.queue("reports").pause(for_=3_600)
        broker.pause_workers("w1")
    found = {
        (sample.name.removeprefix("minibroker_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(http_broker.client.get("/metrics").text)
        for sample in family.samples
    }
    assert due is not None
    assert found["schedules", "on"] == found["schedules", "paused"] == 1
    assert found["schedules", "waiting"] == found["schedule_misfires_total",] == 0
    assert found["schedule_jobs_total", "by_hand"] == 1
    assert found["schedule_next_due_time_seconds", "nightly"] == due.timestamp()
    assert ("schedule_next_due_time_seconds", "resting") not in found
    assert found["pauses", "queues"] == found["pauses", "workers"] == 1
    assert found["queue_paused", "reports"] == 1
    row = http_broker.client.get("/api/v1/queues").json()["queues"][0]
    view = http_broker.client.get("/api/v1/queues/reports").json()
    assert row["paused"] is view["paused"] is True
    assert row["resumes_unix_ms"] == view["resumes_unix_ms"] > 0
    page = http_broker.client.get("/").text
    assert "paused until" in page
