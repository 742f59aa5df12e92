"""`explain` of both clients: the same answer as a value, and as a sentence."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import minibroker
import minibroker.sync
from minibroker import Explanation, MessageId
from minibroker.contract.reasons import REASONS
from minibroker.session.explanation import read
from minibrokerd import inprocess


async def test_both_clients_say_the_same() -> None:
    """Of a queue, and of the broker, which needs no queue."""

    def blocking(id: MessageId) -> list[Explanation]:
        with minibroker.sync.connect("memory://explained") as broker:
            return [broker.queue("mails").explain(id), broker.explain(id)]

    async with minibroker.connect("memory://explained", name="worker") as broker:
        mails = broker.queue("mails")
        id = (await mails.publish("x")).id
        (message,) = await mails.receive(lease=60)
        found = await mails.explain(id)
        answers = [found, await broker.explain(id), *await asyncio.to_thread(blocking, id)]
        # The end of a lease is reckoned by two clocks, rounded each for itself.
        assert len({dataclasses.replace(each, until=None) for each in answers}) == 1
        await message.ack(confirmed=True)
        assert (await broker.explain(id)).reason == "acked"
    inprocess.forget("explained")
    assert (found.id, found.queue, found.state) == (id, "mails", "BEGUN")
    assert (found.reason, found.by) == ("running", "worker")
    assert found.since is not None
    assert found.until is not None
    assert abs(found.until - found.since - timedelta(seconds=60)) < timedelta(seconds=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.by = "me"  # type: ignore[misc]


async def test_what_is_no_id_and_what_is_no_queue() -> None:
    async with minibroker.connect("memory://") as broker:
        with pytest.raises(TypeError, match="message ids"):
            await broker.explain("1-0")  # type: ignore[arg-type]
        with pytest.raises(minibroker.UnknownQueue):
            await broker.queue("nowhere").explain(MessageId(1, 0))
        assert (await broker.explain(MessageId(2**32 - 1, 2**64 - 1))).reason == "unknown"


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_a_sentence(reason: str) -> None:
    """With all that its row asks for, also where the server knows less."""
    full = {"since_unix_ms": 1_700_000_000_000, "until_unix_ms": 1_700_000_060_000, "by": "w{1}"}
    for more in (full, {}):
        value: dict[str, Any] = {"queue": "q", "state": "READY", "reason": reason, **more}
        text = str(read(MessageId(1, 2), value))
        assert text.startswith("message 1-2 of q is READY: ")
        assert "{since" not in text
        assert ("w{1}" in text) == ("{by}" in REASONS[reason].says and bool(more))


def test_a_reason_of_a_newer_server_stays_readable() -> None:
    value = {"queue": "q", "state": "READY", "reason": "tides", "by": "key k", "until_unix_ms": 1}
    found = read(MessageId(1, 2), value)
    assert str(found) == "message 1-2 of q is READY: tides key k"
    assert (found.since, found.until) == (None, datetime.fromtimestamp(0.001, UTC))
