"""Totals of sessions and consumers: right, bounded in their number of lines, and never falling."""

from __future__ import annotations

from http_broker import HttpBroker
from prometheus_client.parser import text_string_to_metric_families

import minibroker
from minibrokerd.http.families import FAMILIES
from minibrokerd.http.talkers import Totals


def samples(broker: HttpBroker) -> dict[tuple[str, ...], float]:
    """Return what a scrape says, by name and values of labels."""
    families = text_string_to_metric_families(broker.client.get("/metrics").text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_what_each_session_and_consumer_did(http_broker: HttpBroker) -> None:
    """Published, delivered, acked; and what a consumer has, of what it may have."""
    async with (
        minibroker.connect(http_broker.server.url, name="web") as web,
        minibroker.connect(http_broker.server.url, name='a "worker"\n') as worker,
    ):
        await web.queue("mail").publish_many([b"a"] * 5)
        async with worker.queue("mail").consume(prefetch=3) as messages:
            async for message in messages:
                await message.ack()
                break
            await worker.ping()
            found = samples(http_broker)
            by = {
                (name, client): value
                for (name, *labels), value in found.items()
                if name.startswith("minibroker_session_")
                for client in labels[1:]
            }
            assert by["minibroker_session_published_total", "web"] == 5
            assert by["minibroker_session_delivered_total", "web"] == 0
            assert by["minibroker_session_acked_total", 'a "worker"\n'] == 1
            assert by["minibroker_session_delivered_total", 'a "worker"\n'] >= 3
            (consumer,) = [(name, value) for name, value in found.items() if "prefetch" in name[0]]
            assert consumer[0][2:] == ('a "worker"\n', consumer[0][3], "mail")
            assert consumer[1] == 3
            assert found["minibroker_sessions_left_out",] == 0
    assert not [name for name in samples(http_broker) if "prefetch" in name[0]]


def test_the_oldest_are_shown_and_the_others_summed_up() -> None:
    """What they did between two looks is added: no line falls when one of them ends."""
    totals = Totals(2, ("session", "client"), ("published", "holds"))

    def look(numbers: dict[int, tuple[int, int]]) -> tuple[dict[str, float], dict[str, float]]:
        totals.begin()
        for id, each in numbers.items():
            totals.note(id, (str(id), f"c{id}"), each)
        totals.end()
        published, holds = (
            {labels[0][1]: value for labels, value in totals.of(name)}
            for name in ("published", "holds")
        )
        return published, holds

    assert look({1: (5, 1), 2: (6, 1)}) == ({"1": 5, "2": 6}, {"1": 1, "2": 1})
    assert totals.left_out == 0
    many = {1: (5, 1), 2: (6, 1), 3: (10, 2), 4: (1, 3)}
    assert look(many) == ({"1": 5, "2": 6, "others": 11}, {"1": 1, "2": 1, "others": 5})
    assert totals.left_out == 2
    # 3 has ended, 4 went on, 1 has gone and 4 is one of the oldest now.
    assert look({1: (5, 1), 2: (6, 1), 4: (4, 0)})[0]["others"] == 14
    published, holds = look({2: (6, 1), 4: (9, 0)})
    assert published == {"2": 6, "4": 9, "others": 14}
    assert holds["others"] == 0
    assert totals.left_out == 0


def test_every_counter_says_what_a_restart_does_to_it() -> None:
    """The log knows of few; the others begin at zero, and nothing else is said of them."""
    going_on = {row.name for row in FAMILIES.values() if row.goes_on}
    assert going_on == {"minibroker_starts", "minibroker_log_batches"}
    assert {row.after_restart for row in FAMILIES.values()} == {"is looked at", "goes on", "from 0"}
    for row in FAMILIES.values():
        says = {"goes on": "Goes on over a restart.", "from 0": "From 0 at each start."}
        # Behind it stands of how many queues it is told.
        assert says.get(row.after_restart, row.meaning) in row.help
        assert (row.help == row.meaning) == (row.kind in ("gauge", "info"))


async def test_what_the_log_knows_goes_on_over_a_restart(http_broker: HttpBroker) -> None:
    """Those that say so do not fall, also when the broker was killed; the others begin anew."""
    async with minibroker.connect(http_broker.server.url) as connection:
        await connection.queue("mail").publish_many([b"a"] * 5)
    before = samples(http_broker)
    http_broker.server.kill()
    http_broker.restart()
    after = samples(http_broker)
    for name in ("minibroker_starts_total", "minibroker_log_batches_total"):
        assert after[name,] > before[name,] > 0
    assert before["minibroker_queue_published_total", "mail"] == 5
    assert after["minibroker_queue_published_total", "mail"] == 0
    assert after["minibroker_queue_messages", "mail", "ready"] == 5
    text = http_broker.client.get("/metrics").text
    assert (
        "# HELP minibroker_queue_published_total Messages stored. From 0 at each start.\n" in text
    )
