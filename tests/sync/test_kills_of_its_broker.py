"""Threads that publish and a run that works while the broker is killed: nothing is lost, and nothing hangs."""

from __future__ import annotations

import threading
from typing import Any

import minibroker
import minibroker.sync
from support.broker import BrokerServer

THREADS = 8
EACH = 60
KILLS = 3


def test_what_was_confirmed_is_worked_off(broker_server: BrokerServer) -> None:
    confirmed: list[bytes] = []
    unknown: list[bytes] = []
    done: list[bytes] = []
    published = threading.Semaphore(0)
    broker = minibroker.sync.connect(broker_server.url, timeout=30)
    queue = broker.queue("q")

    def publish(number: int) -> None:
        for count in range(EACH):
            body = b"%d-%d" % (number, count)
            try:
                queue.publish(body)
            except minibroker.OutcomeUnknown:
                unknown.append(body)
            else:
                confirmed.append(body)
            published.release()

    def handle(message: minibroker.sync.Message[Any]) -> None:
        done.append(message.body)

    publishers = [threading.Thread(target=publish, args=(number,)) for number in range(THREADS)]
    run = threading.Thread(target=queue.run, args=(handle, 4))
    for thread in (*publishers, run):
        thread.start()
    for _ in range(KILLS):
        for _ in range(THREADS * EACH // (2 * KILLS)):
            published.acquire()
        broker_server.kill()
        broker_server.restart()
    for thread in publishers:
        thread.join(60)
        assert not thread.is_alive()
    queue.join(timeout=60)
    broker.close()
    run.join(60)
    assert not run.is_alive()
    assert set(confirmed) <= set(done), "lost"
    assert set(done) <= {*confirmed, *unknown}
    # A handler of the moment of a kill may run twice: its ack may not have been written.
    assert len(done) - len(set(done)) <= KILLS * 4
