"""The broker in memory under the hand of a test that blocks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import minibroker.sync
from minibroker import DiskFull
from minibroker.testing import SyncMemoryBroker


def test_a_delay_of_a_week(minibroker_sync: SyncMemoryBroker) -> None:
    minibroker_sync.stop_clock()
    queue = minibroker_sync.queue("mail")
    queue.publish(b"later", delay=7 * 86_400)
    minibroker_sync.advance(7 * 86_400 - 1)
    assert queue.receive() == []
    minibroker_sync.advance(1)
    (message,) = queue.receive()
    assert message.body == b"later"


def test_retries_in_another_thread_come_at_their_times(minibroker_sync: SyncMemoryBroker) -> None:
    """And the application that connects to nothing in particular finds the broker."""
    minibroker_sync.stop_clock()
    times: list[float] = []

    def fail(message: Any) -> None:
        times.append(minibroker_sync.now_s)
        raise ValueError("no")

    with minibroker.sync.connect() as application:
        application.queue("mail", max_attempts=3, retry_delay_ms=1_000).publish(b"x")
        work = threading.Thread(target=lambda: application.queue("mail").run(fail))
        work.start()
        minibroker_sync.queue("mail").join(timeout=20)
        minibroker_sync.advance(3_600)
        (dead,) = minibroker_sync.queue("mail.dlq").peek()
    work.join(20)
    assert dead.attempts["failed"] == 3
    assert 2.4 <= times[2] - times[0] <= 3.7


@pytest.mark.usefixtures("refused_at_once")
def test_what_goes_wrong(minibroker_sync: SyncMemoryBroker) -> None:
    """Broken connections, a restart, a crash, a full disk."""
    queue = minibroker_sync.queue("mail")
    queue.publish_many([b"a", b"b", b"c"])
    one, two, three = queue.receive(count=3)
    minibroker_sync.drop_connections()
    one.ack(confirmed=True)
    minibroker_sync.restart()
    two.ack(confirmed=True)
    minibroker_sync.crash()
    three.ack(confirmed=True)
    minibroker_sync.fill_disk()
    with pytest.raises(DiskFull):
        queue.publish(b"d")
    minibroker_sync.free_disk()
    queue.publish(b"d")
