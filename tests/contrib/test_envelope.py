"""A message of kombu becomes one of ours and comes back; what Celery asks for becomes terms of the publish."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

kombu = pytest.importorskip("kombu", reason="the extra celery is not installed")

from minibroker.contrib.celery import envelope  # noqa: E402

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


def message(headers: dict[str, Any] | None = None, **properties: Any) -> dict[str, Any]:
    """Return a message as kombu hands it to its transport."""
    return {
        "body": '[[1], {}, {"chain": null}]',
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers or {},
        "properties": {
            "correlation_id": "7",
            "delivery_tag": "x",
            "delivery_info": {},
            **properties,
        },
    }


def packed(lowest_first: bool = False, **said: Any) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Return what is published of a message."""
    body, headers, terms = envelope.pack(message(**said), "", "celery", NOW, lowest_first)
    return body, headers, terms.options()


def test_a_message_comes_back_as_it_was() -> None:
    """With the tag of its delivery, and the place that it was published to."""
    body, headers, options = packed(headers={"task": "add", "id": "7"})
    assert (body, options) == (b'[[1], {}, {"chain": null}]', {})
    assert headers["task"] == "add"  # where people look for it
    back = envelope.unpack(body, headers, 1, "tag")
    assert back["headers"] == {"task": "add", "id": "7"}
    assert back["content-type"] == "application/json"
    assert back["properties"]["delivery_tag"] == "tag"
    assert back["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}


def test_properties_that_amqp_does_not_have_stay_here() -> None:
    """Whatever else somebody passes to a publish need not be anything that can be written."""
    _, headers, _ = packed(reply_to="me", signal=object())
    assert headers[envelope.REST][2] == {
        "correlation_id": "7",
        "reply_to": "me",
        "delivery_info": {"exchange": "", "routing_key": "celery"},
    }


def test_a_second_delivery_says_so_where_celery_looks() -> None:
    """In both places, and how many there were before in the header that RabbitMQ has."""
    body, headers, _ = packed()
    back = envelope.unpack(body, headers, 3, "tag")
    assert back["properties"]["delivery_info"]["redelivered"] is True
    assert (back["headers"]["redelivered"], back["headers"]["x-delivery-count"]) == (True, 2)
    assert "redelivered" not in envelope.unpack(body, headers, 1, "tag")["headers"]


def test_headers_that_are_not_plain_come_back_as_what_they_were() -> None:
    """Stamps may be UUIDs, or dates: the JSON of kombu writes those."""
    stamp = UUID(int=7)
    body, headers, _ = packed(headers={"stamp": stamp, "at": NOW, "big": 2**70})
    back = envelope.unpack(body, envelope.as_json(headers), 1, "tag")["headers"]
    assert (back["stamp"], back["at"], back["big"]) == (stamp, NOW, 2**70)


@pytest.mark.parametrize(
    ("eta", "delay_s"),
    [
        ((NOW + timedelta(hours=1)).isoformat(), 3600),
        ("2030-01-31T14:00:00+01:00", 3600),
        ("2030-01-31T13:00:00", 3600),  # no zone: UTC, as a worker reads it
        ((NOW - timedelta(hours=1)).isoformat(), None),
    ],
)
def test_an_eta_is_a_delay_and_no_worker_waits_for_it_again(
    eta: str, delay_s: float | None
) -> None:
    """The header of Celery is empty, so that it starts at once; ours says what it was."""
    _, headers, options = packed(headers={"eta": eta})
    assert options.get("delay") == delay_s
    assert (headers["eta"], headers[envelope.ETA]) == (None, eta)


def test_an_eta_that_is_none_is_left_to_the_worker() -> None:
    """Which stores a failure that says so."""
    _, headers, options = packed(headers={"eta": "tomorrow"})
    assert (headers["eta"], options) == ("tomorrow", {})


def test_a_naive_time_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """It is UTC to Celery, which is seldom what was meant."""
    with caplog.at_level(logging.WARNING):
        packed(headers={"eta": "2030-01-31T13:00:00"})
    assert "has no time zone" in caplog.text


@pytest.mark.parametrize(
    ("said", "ttl_s"),
    [
        ({"headers": {"expires": "2030-01-31T12:01:00+00:00", "ignore_result": True}}, 60),
        ({"headers": {"expires": "2030-01-31T12:01:00", "ignore_result": True}}, 60),
        ({"headers": {"expires": "2030-01-31T12:01:00+00:00"}, "expiration": "60000"}, 3660),
        ({"headers": {"expires": "2030-01-31T11:00:00+00:00"}, "expiration": "0"}, 3600),
        ({"expiration": "1500"}, 1.5),
        ({"expiration": None}, None),
    ],
)
def test_expires_is_a_time_to_live(said: dict[str, Any], ttl_s: float | None) -> None:
    """By the header; one with a result has an hour more, for the worker that stores that it was revoked."""
    assert packed(**said)[2].get("ttl") == ttl_s


@pytest.mark.parametrize(("asked", "first"), [(0, 9), (9, 0), (None, 9), (12, 0), ("x", 9)])
def test_priorities_are_as_they_are_or_turned_round(asked: Any, first: int) -> None:
    """9 goes first; with the order of Celery on Redis, 0 does."""
    assert packed(priority=asked)[2].get("priority", 0) == 9 - first
    assert packed(priority=asked, lowest_first=True)[2].get("priority", 0) == first


def test_what_nobody_packed_is_json_without_a_task() -> None:
    """As a publish from the command line: the worker rejects it, and it dies with its history."""
    back = envelope.unpack(b'{"to": "bob"}', {}, 1, "tag")
    assert (back["content-type"], back["headers"]) == ("application/json", {})


@pytest.mark.parametrize(
    "foreign",
    [
        {envelope.REST: 7},
        {envelope.REST: ["text/plain"]},
        {envelope.REST: ["text/plain", "utf-8", []]},
        {envelope.REST: ["text/plain", "utf-8", {"delivery_info": "here"}]},
        {envelope.REST: [7, "utf-8", {}]},
        {envelope.AS_JSON: "{"},
        {envelope.AS_JSON: "[]"},
        {envelope.AS_JSON: b"\xff"},
    ],
)
def test_headers_that_only_have_our_names_are_those_of_a_message_that_nobody_packed(
    foreign: dict[str, Any],
) -> None:
    """An error here would end the worker that took the message, one worker an attempt."""
    back = envelope.unpack(b"{}", {"task": "add", **foreign}, 2, "tag")
    assert (back["content-type"], back["content-encoding"]) == ("application/json", "utf-8")
    assert back["headers"] == {"task": "add", "redelivered": True, "x-delivery-count": 1}
