"""Which format a scraper gets, and what stands in it: read by the library of Prometheus, and by promtool."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from http_broker import HttpBroker
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

import minibroker
from minibroker.contract.metrics import METRICS
from minibroker.contract.settings import default_settings
from minibrokerd.core.model.queues import Queue
from minibrokerd.http.exposition import (
    OPEN_METRICS,
    SEND_BYTES,
    TEXT,
    Format,
    choose,
    write,
)
from minibrokerd.http.families import FAMILIES
from minibrokerd.http.portion import PORTION_QUEUES
from minibrokerd.monitoring.view import Phase

OPEN = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/json", TEXT),
        (OPEN, OPEN_METRICS),
        (f"{OPEN}; version=1.0.0; charset=utf-8", OPEN_METRICS),
        (
            f"{OPEN};version=1.0.0,{OPEN};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPEN_METRICS,
        ),
        # of a scraper that prefers the text, but takes both
        (f"{OPEN};version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.9", TEXT),
        # a version that is not written here is not promised
        (f"{OPEN};version=2.0.0", TEXT),
        (f"{OPEN};version=0.0.1", TEXT),
        (f"{OPEN};version=9.9.9,text/plain;q=0.1", TEXT),
        ("text/plain;version=1.0.0,application/*;q=0.5", OPEN_METRICS),
        # refused by its weight
        (f"{OPEN};q=0,*/*", TEXT),
        ("text/plain;q=0,*/*;q=0.5", OPEN_METRICS),
        (f'{OPEN.upper()};VERSION="1.0.0"', OPEN_METRICS),
        (f"{OPEN};q=nan,text/plain;q=0.1", TEXT),
        (f"{OPEN};q=1e9,text/plain", TEXT),
        (";;q=,,=;", TEXT),
    ],
)
def test_the_format_that_is_wanted_most(accept: str, expected: Format) -> None:
    """Weights count, and so do versions: what is announced is what is written."""
    assert choose(accept) is expected


async def busy(broker: HttpBroker) -> None:
    """Give it queues with messages in several states."""
    async with minibroker.connect(broker.server.url) as connection:
        queue = connection.queue("mail.welcome-1_x")
        await queue.publish_many([b"a"] * 10)
        await queue.publish(b"later", delay=1_000)
        (message,) = await queue.receive()
        await message.ack()
        (message,) = await queue.receive()
        await message.reject(ValueError("no"))


@pytest.mark.parametrize("form", [TEXT, OPEN_METRICS], ids=["text", "openmetrics"])
async def test_another_reader_finds_the_numbers(http_broker: HttpBroker, form: Format) -> None:
    """Each family once, each with its type and help; the values are those of the queue."""
    await busy(http_broker)
    accept = form.content_type
    answer = http_broker.client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"] == accept
    read = open_metrics if form is OPEN_METRICS else plain_text
    families = list(read(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    # The reader calls counters by their names without _total in both formats, info only in OpenMetrics.
    ending = "" if form is OPEN_METRICS else "_info"
    assert set(names) == {
        row.name + ("" if row.kind != "info" else ending) for row in FAMILIES.values()
    }
    assert all(family.documentation for family in families)
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    of = "mail.welcome-1_x"
    assert samples["minibroker_queue_messages", of, "ready"] == 8
    assert samples["minibroker_queue_messages", of, "delayed"] == 1
    assert samples["minibroker_queue_messages", f"{of}.dlq", "ready"] == 1
    assert samples["minibroker_queue_published_total", of] == 11
    assert samples["minibroker_queue_acked_total", of] == 1
    assert samples["minibroker_queue_dead_lettered_total", of] == 1
    assert samples["minibroker_queue_oldest_ready_age_seconds", of] >= 0
    assert samples["minibroker_queues",] == 2
    assert samples["minibroker_phase", "ready"] == 1
    assert samples["minibroker_recovery_ratio",] == 1
    assert samples["process_resident_memory_bytes",] > 10_000_000


def test_every_counter_of_a_queue_is_a_family() -> None:
    """A row that is added to the table of `stats` shows here by itself."""
    counted = {row.counter for row in FAMILIES.values() if row.counter}
    assert counted == {row.name for row in METRICS.values() if row.counter}


def test_no_two_names_are_alike_in_another_spelling() -> None:
    """`.` and `_` become one in many tools; there are only letters, digits and underscores."""
    names = [row.sample_name for row in FAMILIES.values()]
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing (apt-get install prometheus)"
)
async def test_the_linter_of_prometheus_is_content(http_broker: HttpBroker) -> None:
    """`promtool check metrics`: names, units, types, help; and that it can be discontent."""
    await busy(http_broker)
    text = http_broker.client.get("/metrics").content
    assert promtool(text) == ""
    assert "minibroker_queues" in promtool(text.replace(b"# HELP minibroker_queues", b"# ELP"))


def promtool(text: bytes) -> str:
    """Return what the linter says of an answer; empty: nothing."""
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=text, check=False, capture_output=True)
    said = done.stdout.decode() + done.stderr.decode()
    assert bool(done.returncode) is bool(said)
    return said


async def test_a_scrape_of_many_queues_is_whole_and_clean(http_broker: HttpBroker) -> None:
    """2,000 queues, in several slices: every queue has its lines in each family, and the linter is content.

    Only of counters that most queues never have, those that are zero are left out; of few queues they are not.
    """
    counted = "minibroker_queue_overflow_dropped_total{"
    async with minibroker.connect(http_broker.server.url) as connection:
        full = connection.queue("queue-7")
        await full.set(max_messages=1, overflow="drop-oldest")
        for _ in range(4):
            await full.publish(b"x")
        await asyncio.gather(*(connection.queue(f"queue-{n}").set() for n in range(100)))
        few = http_broker.client.get("/metrics")
        await asyncio.gather(*(connection.queue(f"queue-{n}").set() for n in range(2_000)))
    answer = http_broker.client.get("/metrics")
    assert few.text.count(counted) == 100
    assert [line for line in answer.text.splitlines() if counted in line] == [
        f'{counted}queue="queue-7"}} 3'
    ]
    families = {family.name: family for family in plain_text(answer.text)}
    assert len(families["minibroker_queue_messages"].samples) == 4 * 2_000
    assert len(families["minibroker_queue_acked"].samples) == 2_000
    if shutil.which("promtool"):
        assert promtool(answer.content) == ""


class Watched(Queue):
    """A queue that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __getattribute__(self, name: str) -> Any:
        Watched.looks += 1
        return super().__getattribute__(name)


async def test_what_a_scrape_of_10000_queues_costs_the_loop() -> None:
    """Held by counts, which no neighbour can spoil: looks at queues, in all and in a turn of the loop, and sends.

    How long that takes is in docs/performance.md.
    """
    queues = [Watched(n, f"queue-{n}", 1, default_settings()) for n in range(10_000)]
    for queue in queues[::10]:
        queue.group.counters["published"] += 1
        queue.group.counters["delivered"] += 1
        queue.group.held += 1
    nothing: Any = SimpleNamespace(
        phase=Phase.READY,
        is_open=True,
        talkers=None,
        store=SimpleNamespace(queues={q.name: q for q in queues}),
    )
    nothing.engine = SimpleNamespace(clock=SimpleNamespace(now_ms=lambda: 0))
    of_queues = [row for row in FAMILIES.values() if row.of_queues or row.counter]
    Watched.looks = 0
    turns: list[int] = []

    async def turn() -> None:
        while True:
            turns.append(Watched.looks)
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    parts = [part async for part in write(nothing, TEXT, of_queues)]
    turning.cancel()
    assert Watched.looks <= 3 * len(queues)  # its name, its group, its bytes: for all families
    per_queue = sum(len(row.of_queues or ("",)) for row in of_queues if not row.rare)
    delivered = len(queues) // 10
    lines = sum(part.count(b"\n") for part in parts)
    assert lines == per_queue * len(queues) + delivered + 2 * len(of_queues)
    assert b"".join(parts).count(b"minibroker_queue_delivered_total{") == delivered
    looks = [after - before for before, after in pairwise(turns)]
    assert max(looks) <= 3 * PORTION_QUEUES
    assert len(turns) >= len(queues) // PORTION_QUEUES + len(parts) - 1  # one behind each part, too
    assert min(map(len, parts[:-1])) >= SEND_BYTES
    assert max(map(len, parts)) <= SEND_BYTES + 4 * PORTION_QUEUES * 100  # lines of about 60 bytes


def test_nothing_of_queues_is_shown_before_they_are_all_there() -> None:
    """A scrape in the middle of a recovery has the rows that are known by then."""
    early = {row.name for row in FAMILIES.values() if row.early}
    assert {"minibroker_phase", "minibroker_recovery_ratio", "process_cpu_seconds"} <= early
    assert not {row.name for row in FAMILIES.values() if row.of_queues or row.counter} & early
