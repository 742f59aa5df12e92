"""memory:// with the client that blocks: what tests/conformance, which runs on it as well, does not show."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import minibroker
import minibroker.sync
from minibroker import LeaseLost
from minibrokerd import inprocess


async def test_both_clients_share_a_broker() -> None:
    """Each in its own way to wait: a loop, and threads."""

    def publish() -> None:
        with minibroker.sync.connect("memory://both") as broker:
            broker.queue("q").publish(b"from a thread")

    async with minibroker.connect("memory://both") as broker:
        waiting = asyncio.create_task(broker.queue("q").receive(wait=20))
        await broker.ping()
        await asyncio.to_thread(publish)
        (message,) = await waiting
        assert message.body == b"from a thread"
        await message.ack(confirmed=True)
    inprocess.forget("both")


def test_many_threads_publish_and_consume() -> None:
    """None of them waits for a lock that another holds for ever."""
    with minibroker.sync.connect("memory://", timeout=20) as broker:
        queue = broker.queue("q")
        got: list[Any] = []
        over = threading.Event()

        def handle(message: Any) -> None:
            got.append(message.body)
            if len(got) == 800:
                over.set()

        def publish(first: int) -> None:
            for number in range(first, first + 100):
                queue.publish(number)

        run = threading.Thread(target=lambda: queue.run(handle, concurrency=4))
        run.start()
        publishers = [threading.Thread(target=publish, args=(100 * each,)) for each in range(8)]
        for thread in publishers:
            thread.start()
        for thread in publishers:
            thread.join(60)
        assert over.wait(60)
        queue.join(timeout=20)
    run.join(60)
    assert sorted(got) == list(range(800))


def test_leases_are_renewed_and_a_renewal_that_fails_is_told() -> None:
    """The broker asks in whatever step it looks at what is due: in that of this very call as well."""
    with minibroker.sync.connect("memory://leases", timeout=20) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"a", b"b"])
        kept, lost = queue.receive(count=2)
        inside = inprocess.find("leases")
        inside.stop_clock()
        until_ms = inside.after(3_600_000)
        while inside.advance(until_ms):
            broker.ping()
        kept.ack(confirmed=True)
        inside.advance(inside.after(13 * 3_600_000))
        while inside.advance(inside.after(60_000)):
            broker.ping()
        try:
            lost.ack(confirmed=True)
        except LeaseLost:
            pass
        else:
            raise AssertionError("it was renewed beyond max_run")
    inprocess.forget("leases")


def test_a_child_has_a_broker_of_its_own() -> None:
    """What the parent had at the fork is not worked on twice, and the parent's goes on."""
    with minibroker.sync.connect("memory://forked", timeout=20) as broker:
        queue = broker.queue("q")
        queue.publish(b"x")
        pid = os.fork()
        if pid == 0:
            code = 9
            try:
                code = 0 if broker.queue("q").receive() == [] else 1
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        (message,) = queue.receive()
        message.ack(confirmed=True)
    inprocess.forget("forked")
