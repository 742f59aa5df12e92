"""Exchanges over HTTP, on the page and among the metrics."""

from __future__ import annotations

from typing import Any

import pytest
from http_broker import HttpBroker
from prometheus_client.parser import text_string_to_metric_families

import minibroker
import minibroker.sync
from minibrokerd.http import rest_families


def given(broker: HttpBroker, path: str, status: int = 200) -> Any:
    """Return what the API answers."""
    answer = broker.client.get(f"/api/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def counted(broker: HttpBroker) -> dict[tuple[str, ...], float]:
    """Return samples about exchanges, by name and values of labels."""
    text = broker.client.get("/metrics").text
    return {
        (sample.name.removeprefix("minibroker_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_exchanges_are_shown_with_their_bindings(http_broker: HttpBroker) -> None:
    """By name, a page at a time; one of them with where it leads, and links there."""
    assert given(http_broker, "exchanges") == {"exchanges": [], "next": ""}
    assert "There is no exchange" in http_broker.client.get("/exchanges").text
    with minibroker.sync.connect(http_broker.server.url) as broker:
        broker.exchange("rest").declare("fanout", unroutable="drop")
        logs = broker.exchange("logs")
        logs.declare("topic", alternate="rest")
        logs.bind("errors", "*.<b>error</b>")
        logs.bind(broker.exchange("rest"), "#.copy")
        logs.publish(b"", routing_key="a.<b>error</b>")
        with pytest.raises(minibroker.Unroutable):
            logs.publish(b"", routing_key="else")
    page = given(http_broker, "exchanges?count=1")
    (first,) = page["exchanges"]
    assert first == {
        "exchange": "logs",
        "type": "topic",
        "unroutable": "refuse",
        "alternate": "rest",
        "bindings": 2,
        "routed": 1,
        "dropped": 0,
        "refused": 1,
    }
    (second,) = given(http_broker, f"exchanges?after={page['next']}")["exchanges"]
    assert second["exchange"] == "rest"
    shown = given(http_broker, "exchanges/logs")
    assert shown["exchange"] == first
    to_rest = {"queue": "", "exchange": "rest", "pattern": "#.copy"}
    to_errors = {"queue": "errors", "exchange": "", "pattern": "*.<b>error</b>"}
    assert shown["leads_to"] == [to_rest, to_errors]
    some = given(http_broker, "exchanges/logs?count=1")
    assert (some["leads_to"], some["more"]) == ([to_rest], True)
    assert given(http_broker, "exchanges/none", 404)["code"] == "unknown_exchange"
    listed = http_broker.client.get("/exchanges?count=1").text
    assert 'href="/exchanges/logs"' in listed
    assert 'href="/exchanges?after=logs"' in listed
    detail = http_broker.client.get("/exchanges/logs").text
    assert 'href="/queues/errors"' in detail
    assert 'href="/exchanges/rest"' in detail
    assert "*.&lt;b&gt;error&lt;/b&gt;" in detail
    assert http_broker.client.get("/exchanges/none").status_code == 404


def test_exchanges_are_metrics(http_broker: HttpBroker, monkeypatch: Any) -> None:
    """What they routed, dropped and refused: of so many one by one, and of all together, those that ended, too."""
    with minibroker.sync.connect(http_broker.server.url) as broker:
        for name in ("one", "two"):
            exchange = broker.exchange(name)
            exchange.declare("direct")
            exchange.bind("q", "k")
            exchange.publish_many([b""] * 3, routing_key="k")
            exchange.declare("direct", unroutable="drop")
            exchange.publish(b"", routing_key="else")
        before = counted(http_broker)
        broker.exchange("one").delete()
    assert before["exchange_messages_total", "one", "routed"] == 3
    assert before["exchange_messages_total", "two", "dropped"] == 1
    after = counted(http_broker)
    assert ("exchange_messages_total", "one", "routed") not in after
    for found in (before, after):
        outcomes = [found["routed_messages_total", each] for each in rest_families.ROUTED]
        assert outcomes == [6, 2, 0]
    assert (before["exchanges",], before["bindings",]) == (2, 2)
    assert (after["exchanges",], after["bindings",]) == (1, 1)
