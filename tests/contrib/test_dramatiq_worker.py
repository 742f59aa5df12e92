"""Dramatiq's worker in this process: what becomes of messages when something goes wrong, or ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import ConnectionFailed, QueueJoinTimeout, QueueNotFound
from dramatiq.results import ResultFailure, ResultMissing, Results, ResultTimeout

import minibroker.sync
from minibroker.contrib.dramatiq import MinibrokerBackend, MinibrokerBroker
from support.broker import BrokerServer
from support.processes import look_until

QUICK = {"min_backoff": 10, "max_backoff": 10}


@pytest.fixture
def broker(broker_server: BrokerServer) -> Iterator[MinibrokerBroker]:
    """Minibroker for Dramatiq."""
    made = MinibrokerBroker(broker_server.url)
    yield made
    made.close()


@contextmanager
def working(broker: MinibrokerBroker, threads: int = 2) -> Iterator[dramatiq.Worker]:
    """A worker while the block runs."""
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def actor(broker: MinibrokerBroker, function: Any, **options: Any) -> Any:
    return dramatiq.actor(function, broker=broker, **options)


def stats(broker: MinibrokerBroker, queue: str = "default") -> dict[str, int]:
    counters: dict[str, int] = broker.client.stats()["queues"].get(queue, {})
    return {name: count for name, count in counters.items() if count and name != "number"}


def dead(broker: MinibrokerBroker, queue: str = "default") -> list[str]:
    return [
        peeked.history[-1]["error_class"] for peeked in broker.client.queue(f"{queue}.dlq").peek(10)
    ]


def test_what_was_pulled_and_not_started_is_not_begun_and_goes_back(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """One of six runs: it alone is begun, and at the end the others are ready, without an attempt."""
    runs, started, goes_on = [], threading.Event(), threading.Event()

    def work(number: int) -> None:
        runs.append(number)
        started.set()
        goes_on.wait(30)

    sent = actor(broker, work)
    for number in range(6):
        sent.send(number)
    with working(broker, threads=1) as worker:
        assert started.wait(30)
        look_until(lambda: "held" in stats(broker), broker_server.process, "held")
        assert stats(broker)["begun"] == 1
        worker.workers[0].stop()
        goes_on.set()
    assert runs == [0]
    assert stats(broker)["ready"] == 5
    assert all(not peeked.attempts for peeked in broker.client.queue("default").peek(10))


def test_retries_and_delays_are_the_brokers(broker: MinibrokerBroker) -> None:
    """Two retries are three runs; the last failure is dead with its error. There is no queue for delays."""
    runs, late_at = [], []

    def bad() -> None:
        runs.append("bad")
        raise ValueError("no good")

    late = actor(broker, lambda: late_at.append(monotonic()), actor_name="late")
    sent_at = monotonic()
    late.send_with_options(delay=200)
    actor(broker, bad, max_retries=2, **QUICK).send()
    with working(broker):
        broker.join("default", timeout=60_000)
    assert runs == ["bad"] * 3
    assert [at - sent_at > 0.19 for at in late_at] == [True]
    assert set(broker.client.stats()["queues"]) == {"default", "default.dlq"}
    [peeked] = broker.client.queue("default.dlq").peek(10)
    assert peeked.history[-1]["error_class"] == "ValueError"
    assert peeked.history[-1]["error_text"].startswith("no good")


def test_what_runs_over_a_death_of_the_broker_is_settled_where_it_ended(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """An ack and a nack are said again to the broker that is back; neither actor runs twice."""
    runs, started, goes_on = [], threading.Barrier(3), threading.Event()

    def work(fails: bool) -> None:
        runs.append(fails)
        started.wait(30)
        goes_on.wait(30)
        if fails:
            raise ValueError("no good")

    sent = actor(broker, work, max_retries=0)
    sent.send(False)
    sent.send(True)
    with working(broker):
        started.wait(30)
        broker_server.kill()
        goes_on.set()
        broker_server.restart()
        broker.join("default", timeout=60_000)
    assert sorted(runs) == [False, True]
    assert dead(broker) == ["ValueError"]


def test_a_retry_waits_for_a_broker_that_is_away(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """Dramatiq logs an error of `enqueue` in a retry, and acks: so there is none."""
    runs, started, goes_on = [], threading.Event(), threading.Event()

    def work() -> None:
        runs.append(1)
        started.set()
        goes_on.wait(30)
        if len(runs) == 1:
            raise ValueError("no good")

    actor(broker, work, **QUICK).send()
    with working(broker):
        assert started.wait(30)
        broker_server.kill()
        goes_on.set()
        broker_server.restart()
        broker.join("default", timeout=60_000)
    assert len(runs) == 2
    assert not dead(broker)


def test_a_retry_that_is_refused_is_a_death(broker_server: BrokerServer) -> None:
    """The old message is not acked away: it is dead, with the refusal."""
    full: dict[str, int | str] = {"max_messages": 1, "overflow": "reject"}
    broker = MinibrokerBroker(broker_server.url, settings=full)

    def work() -> None:
        raise ValueError("no good")

    actor(broker, work, **QUICK).send()
    with working(broker):
        broker.join("default", timeout=60_000)
    assert dead(broker) == ["QueueFull"]
    broker.close()


def test_joining_waits_for_what_a_task_sends_with_a_delay(broker: MinibrokerBroker) -> None:
    """It is delayed before the task that sent it is acked: there is no moment without either."""
    runs = []
    again = actor(broker, lambda: runs.append("again"), actor_name="again")
    actor(broker, lambda: again.send_with_options(delay=300), actor_name="go").send()
    with working(broker):
        broker.join("default", timeout=60_000)
        assert runs == ["again"]


def test_a_higher_broker_priority_is_handed_out_first(broker: MinibrokerBroker) -> None:
    """Of an actor, or of a message; Dramatiq's own priority is not sent."""
    runs: list[str] = []
    low = actor(broker, runs.append, actor_name="low", priority=0)
    high = actor(broker, runs.append, actor_name="high", broker_priority=7)
    low.send("none")
    high.send("of the actor")
    low.send_with_options(args=("of the message",), broker_priority=99)
    with working(broker, threads=1):
        broker.join("default", timeout=60_000)
    assert runs == ["of the message", "of the actor", "none"]


def test_what_nobody_can_run_is_dead(broker: MinibrokerBroker) -> None:
    """Bytes that are no message, and an actor that is not there."""
    broker.declare_queue("default")
    broker.client.queue("default").publish(b"rubbish")
    broker.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))
    with working(broker):
        broker.join("default", timeout=60_000)
    assert sorted(dead(broker)) == ["ActorNotFound", "DecodeError"]
    broker.flush_all()
    assert not dead(broker)


def test_a_message_of_a_consumer_that_is_gone_is_skipped_and_stays(
    broker: MinibrokerBroker,
) -> None:
    """Neither its start nor its ack are for who has it no longer: the next consumer gets it, uncharged."""
    broker.declare_queue("default")
    broker.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))
    first = broker.consume("default", prefetch=4, timeout=10_000)
    old = next(first)
    assert old is not None
    first.close()
    first.ack(old)
    first.nack(old)
    first.requeue([old])
    with pytest.raises(dramatiq.middleware.SkipMessage):
        broker.middleware[-1].before_process_message(broker, old)
    second = broker.consume("default", prefetch=4, timeout=10_000)
    new = next(second)
    assert new is not None
    assert new.lent.attempt == 1
    first.ack(new)  # whichever consumer is asked
    broker.join("default", timeout=10_000)
    second.close()


def test_the_ack_of_a_message_that_was_cancelled_is_no_error(broker: MinibrokerBroker) -> None:
    """Somebody ended it while it ran; Dramatiq is not told."""
    broker.declare_queue("default")
    broker.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))
    consumer = broker.consume("default", prefetch=4, timeout=10_000)
    message = next(consumer)
    assert message is not None
    assert message.begin()
    assert broker.client.queue("default").cancel([message.lent.id]) == 1
    consumer.ack(message)
    consumer.close()


def test_queues_that_nobody_declared_and_brokers_that_are_away(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """The errors are those that Dramatiq knows; a producer is not made to wait for a week."""
    for call in (broker.join, broker.consume, broker.flush):
        with pytest.raises(QueueNotFound):
            call("nowhere")
    with pytest.raises(QueueNotFound):
        broker.enqueue(dramatiq.Message("nowhere", "nobody", (), {}, {}))
    broker.declare_queue("default")
    broker.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=10)
    broker_server.kill()
    away = MinibrokerBroker(broker_server.url, timeout=0.1)
    away.declare_queue("default")
    where = broker_server.url.removeprefix("minibroker://")
    with pytest.raises(ConnectionFailed, match=f"not sent: .*{where}"):
        away.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))
    with pytest.raises(ConnectionFailed):
        away.consume("default")
    away.close()


def test_results_are_waited_for_and_missing_and_replaced(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """A result is there when its task is acked, however often it was asked for before."""
    backend = MinibrokerBackend(broker_server.url)
    broker.add_middleware(Results(backend=backend, store_results=True))
    sent = actor(broker, lambda: [1, "two"], actor_name="two").send()
    for _ in range(2):
        with pytest.raises(ResultMissing):
            sent.get_result(backend=backend)
    with minibroker.sync.connect(broker_server.url) as client:
        counters = client.stats()["queues"]["dramatiq-results"]
        assert counters["published"] == 0, "a look leaves nothing behind"
    with pytest.raises(ResultTimeout):
        sent.get_result(backend=backend, block=True, timeout=10)
    with working(broker):
        assert sent.get_result(backend=backend, block=True, timeout=30_000) == [1, "two"]
    assert sent.get_result(backend=backend) == [1, "two"]
    with minibroker.sync.connect(broker_server.url) as client:
        assert client.stats()["queues"]["dramatiq-results"]["ready"] == 1
    backend.client.close()


def test_who_waits_for_a_result_that_is_too_large_hears_so(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """At once, and not a time-out; the actor ran, and is not run again."""
    backend = MinibrokerBackend(broker_server.url)
    broker.add_middleware(Results(backend=backend))
    runs = []

    def grow() -> str:
        runs.append(1)
        return "x" * 2_000_000

    sent = actor(broker, grow, store_results=True)
    with working(broker):
        message = sent.send()
        with pytest.raises(ResultFailure, match=r"TooLarge.*return its name"):
            message.get_result(backend=backend, block=True, timeout=30_000)
        broker.join("default", timeout=30_000)
    assert runs == [1]
    assert "dead" not in stats(broker)
    backend.client.close()
