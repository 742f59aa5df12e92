"""Histograms: what they count, and that a run of messages is noted once."""

from __future__ import annotations

from http_broker import HttpBroker
from prometheus_client.openmetrics.parser import text_string_to_metric_families

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
