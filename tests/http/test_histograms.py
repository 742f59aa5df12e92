"""Histograms: what they count, and that a run of messages is noted once."""

from __future__ import annotations

from http_broker import HttpBroker
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import (
    text_string_to_metric_families as plain_text,
)

import minibroker
from minibrokerd.core.model.histogram import Histogram


def test_a_number_is_below_the_first_bound_that_is_above_it() -> None:
    """Zero, powers of two and their neighbours; one below zero, as of a clock that was set back, is zero."""
    histogram = Histogram()
    for number in (-5, 0, 1, 2, 3, 4, 7, 8):
        histogram.note(number)
    assert list(histogram.up_to(range(5))) == [2, 3, 5, 7, 8]
    assert (histogram.count, histogram.total) == (8, 25)
    histogram.note(2**40, times=3)
    assert list(histogram.up_to((4, 40, 41))) == [8, 8, 11]
    assert histogram.total == 25 + 3 * 2**40


async def test_waits_and_runs_are_counted_by_message(http_broker: HttpBroker) -> None:
    """Every message that was begun, and every one that was acked; batches and syncs beside them."""
    async with minibroker.connect(http_broker.server.url) as connection:
        queue = connection.queue("q")
        await queue.publish_many([b"x"] * 50)
        for message in await queue.receive(30):
            await message.ack()
        await connection.ping()
        answer = http_broker.client.get(
            "/metrics", headers={"accept": "application/openmetrics-text"}
        )
    found = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["minibroker_wait_seconds_count", ""] == 30
    assert found["minibroker_run_seconds_count", ""] == 30
    assert found["minibroker_run_seconds_bucket", "+Inf"] == 30
    assert (
        found["minibroker_log_batch_records_count", ""]
        == found["minibroker_log_sync_seconds_count", ""]
        >= 2
    )
    assert 0 < found["minibroker_log_sync_seconds_sum", ""] < 60


async def test_queues_have_waits_runs_and_idle_consumers_of_their_own(
    http_broker: HttpBroker,
) -> None:
    """By queue and for all others together; and how many handlers would be enough, while something runs."""
    async with minibroker.connect(http_broker.server.url) as connection:
        for name, count in (("slow", 3), ("idle", 1)):
            queue = connection.queue(name)
            await queue.publish_many([b"x"] * (count + 5))
            for message in await queue.receive(count):
                await message.ack()
        async with connection.queue("idle").consume(prefetch=2) as messages:
            async for message in messages:
                await message.ack()
                break
            await connection.ping()
            answer = http_broker.client.get("/metrics")
            later = http_broker.client.get("/metrics")
    first, second = samples(answer.text), samples(later.text)
    for name in ("minibroker_queue_wait_seconds", "minibroker_queue_run_seconds"):
        assert first[f"{name}_count", "slow"] == first[f"{name}_bucket", "slow", "+Inf"] == 3
        assert first[f"{name}_bucket", "slow", "0.001"] <= 3
        assert first[f"{name}_count", "others"] == 0
    assert first["minibroker_queue_wait_seconds_count", "idle"] >= 1
    assert ("minibroker_queue_handlers_wanted", "slow") in second
    assert second["minibroker_queues_without_times",] == 0
    there, idle = (f"minibroker_queue_consumer_{what}seconds_total" for what in ("", "idle_"))
    assert second[there, "idle"] >= first[there, "idle"] >= first[idle, "idle"] >= 0
    assert second[there, "slow"] == second[there, "others"] == 0


async def test_times_of_groups_of_keys_stand_in_the_scrape_the_api_and_on_the_page(
    http_broker: HttpBroker,
) -> None:
    """Whatever letters they have."""
    name = 'a "b" <i>'
    async with minibroker.connect(http_broker.server.url) as connection:
        queue = connection.queue("mail", times_by="before-colon")
        await queue.publish_many([b"x"] * 3, key=f"{name}:1")
        await queue.publish(b"x")
        for message in await queue.receive(4):
            await message.ack(confirmed=True)
    found = samples(http_broker.client.get("/metrics").text)
    for kind in ("wait", "run"):
        metric = f"minibroker_key_group_{kind}_seconds"
        counts = [found[f"{metric}_count", "mail", group] for group in (name, "")]
        assert counts == [found[f"{metric}_bucket", "mail", group, "+Inf"] for group in (name, "")]
        assert counts == [3, 1]
    told = http_broker.client.get("/api/v1/queues/mail/times").json()["groups"]
    assert [(each["group"], each["runs"]["count"]) for each in told] == [(name, 3), ("", 1)]
    page = http_broker.client.get("/queues/mail").text
    assert "Groups of keys" in page
    assert "a &#34;b&#34; &lt;i&gt;" in page
    assert "(no key)" in page


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what a scrape says, by name and values of labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in plain_text(text)
        for sample in family.samples
    }
