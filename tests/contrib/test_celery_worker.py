"""`celery worker` itself, on a real broker: what it runs, gives back and lets die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")

from celery_workers import StartWorker, Worker

import minibroker.sync
from support.broker import BrokerServer
from support.processes import look_until


def test_tasks_run_and_what_is_refused_is_dead(
    shop, start_worker: StartWorker, broker_server: BrokerServer
) -> None:
    """A plain task, one with a countdown, one that asks to be rejected, and one that nobody has."""
    assert shop.app.control.ping(timeout=0.2) == [], "nobody is there to answer"
    shop.say_task.delay("now")
    shop.say_task.apply_async(("later",), countdown=1)
    shop.refuse.delay("no stock")
    shop.app.send_task("nobody.has.this")
    with minibroker.sync.connect(broker_server.url) as broker:
        (delayed,) = broker.queue("celery").peek(state="DELAYED")
        assert delayed.headers["task"] == "say", "the broker holds what is for later"
        worker = start_worker("-P", "prefork", "-c", "2")
        worker.says("now 0")
        worker.says("later 0 due")
        dead = broker.queue("celery.dlq")
        look_until(lambda: len(dead.peek()) == 2, worker.process, "both were rejected")
        died = {each.headers["task"]: each.history[-1] for each in dead.peek()}
    assert {each["cause"] for each in died.values()} == {"rejected"}
    assert "no stock" in str(died["refuse"]), died
    assert set(died) == {"refuse", "nobody.has.this"}


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file for which a task waits until the test makes it."""
    return tmp_path / "gate"


POOLS = ["threads", *(("prefork", "solo", "gevent") if os.environ.get("EVERY_POOL") else ())]


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_goes_on_while_its_broker_is_killed(
    shop, start_worker: StartWorker, broker_server: BrokerServer, gate: Path, pool: str
) -> None:
    """It runs once, its late ack counts, and the worker takes what comes after: nothing was restarted."""
    worker = start_worker("-P", pool, "-c", "2")
    shop.wait.delay("job", str(gate))
    worker.says("job began 0")
    broker_server.kill()
    broker_server.restart()
    shop.say_task.delay("next")
    if pool != "solo":
        worker.says("next 0")
        assert shop.app.control.ping(timeout=20, limit=1), "control works as before"
    gate.touch()
    worker.says("job ended")
    worker.says("next 0")
    with minibroker.sync.connect(broker_server.url) as broker:
        look_until(lambda: not broker.queue("celery").peek(), worker.process, "all was acked")
    assert worker.lines().count("job began 0") == 1
    assert not [line for line in worker.lines() if line.startswith("job began") and line[-1] != "0"]


def test_what_a_worker_had_goes_to_another(
    shop, start_worker: StartWorker, broker_server: BrokerServer, gate: Path
) -> None:
    """From one that is killed after its lease, charged; from one that is told to stop at once, and uncharged."""
    killed = start_worker("-P", "solo")
    shop.wait.delay("lost", str(gate))
    killed.says("lost began 0")
    killed.process.kill()
    killed.process.wait()
    stopped = start_worker("-P", "threads", "-c", "1", "--prefetch-multiplier", "2")
    stopped.says("lost began 1")
    shop.say_task.delay("waits")
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("celery")
        look_until(lambda: bool(queue.peek(state="HELD")), stopped.process, "it has both in hand")
        stopped.process.terminate()
        gate.touch()
        stopped.says("lost ended")
        stopped.process.wait(30)
        if queue.peek():
            (given_back,) = queue.peek()
            assert given_back.info["state"] == "READY"
            assert not given_back.attempts
        else:
            assert "waits 0" in stopped.lines()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_to_the_whole_group_loses_nothing(
    shop, start_worker: StartWorker, gate: Path, ending: signal.Signals
) -> None:
    """As systemd and a terminal send it: what ran begins again elsewhere, what did not has never been away."""
    ended = start_worker("-P", "prefork", "-c", "1", "--prefetch-multiplier", "2")
    shop.wait.delay("long", str(gate))
    ended.says("long began 0")
    shop.say_task.delay("waits")
    os.killpg(ended.process.pid, ending)
    ended.process.wait(30)
    assert "waits 0" not in ended.lines()
    gate.touch()
    shop.say_task.delay("later")
    another = start_worker("-P", "threads", "-c", "1")
    for line in ("long ended", "waits 0", "later 0"):
        another.says(line)
    for word in ("waits", "later"):
        assert [line for line in another.lines() if line.startswith(word)] == [f"{word} 0"]
    assert another.lines().count("long ended") == 1


def test_a_greenlet_that_a_cold_shutdown_kills_is_not_done(
    shop, start_worker: StartWorker, broker_server: BrokerServer, gate: Path
) -> None:
    """Celery takes its end for a success; with a late ack it begins again elsewhere."""
    pytest.importorskip("gevent", reason="gevent is not installed")
    ended = start_worker("-P", "gevent", "-c", "1")
    shop.wait.delay("long", str(gate))
    ended.says("long began 0")
    ended.process.send_signal(signal.SIGQUIT)
    ended.process.wait(30)
    with minibroker.sync.connect(broker_server.url) as broker:
        (given_back,) = broker.queue("celery").peek()
    assert given_back.info["state"] == "READY"


@pytest.mark.parametrize("pool", POOLS)
def test_what_has_not_started_is_nobody_s_attempt(
    shop, start_worker: StartWorker, broker_server: BrokerServer, gate: Path, pool: str
) -> None:
    """It goes to who has nothing to do, is not charged when its worker is killed, and runs once in any case."""
    flags = ("-P", pool, "-c", "1", "--prefetch-multiplier", "4")
    killed = start_worker(*flags)
    shop.wait.delay("long", str(gate))
    killed.says("long began 0")
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("celery")

        def waits(worker: Worker, count: int) -> None:
            """Return when a worker has so many that wait; solo takes one when it starts one."""
            held = 0 if pool == "solo" else count
            look_until(lambda: len(queue.peek(state="HELD")) >= held, worker.process, "it waits")

        shop.say_task.delay("first")
        shop.say_task.delay("second")
        waits(killed, 2)
        killed.process.kill()
        killed.process.wait()
        busy = start_worker(*flags)
        busy.says("long began 1")
        shop.say_task.delay("third")
        shop.say_task.delay("fourth")
        waits(busy, 2)
        broker_server.kill()
        broker_server.restart()
        idle = start_worker(*flags)
        for word in ("first", "second", "third", "fourth"):
            idle.says(f"{word} 0")
        gate.touch()
        busy.says("long ended")
        shop.say_task.delay("fifth")
        busy.says("fifth 0")
        look_until(lambda: not queue.peek(), idle.process, "all was acked")
    for word in ("first", "second", "third", "fourth", "fifth"):
        assert [line for line in busy.lines() if line.startswith(word)] == [f"{word} 0"]
    assert busy.lines().count("long ended") == 1


def test_a_worker_hears_control_and_tells_events(
    shop, start_worker: StartWorker, gate: Path
) -> None:
    """By exchanges of the broker: inspect, revoke, and what a monitor like Flower listens to."""
    seen: list[tuple[str, str]] = []
    with shop.app.connection() as connection:
        receiver = shop.app.events.Receiver(
            connection,
            handlers={"*": lambda event: seen.append((event["type"], event.get("uuid", "")))},
        )
        with receiver.consumer_context(wakeup=False) as (its_own, _, _):
            worker = start_worker("-P", "threads", "-c", "1", "-E")
            running = shop.wait.delay("job", str(gate))
            worker.says("job began 0")
            (active,) = shop.app.control.inspect(timeout=20, limit=1).active().values()
            assert [each["id"] for each in active] == [running.id]
            unwanted = shop.say_task.delay("unwanted")
            assert shop.app.control.revoke(unwanted.id, reply=True, timeout=20, limit=1)
            gate.touch()
            wanted = shop.say_task.delay("wanted")
            worker.says("wanted 0")
            while ("task-succeeded", wanted.id) not in seen:
                its_own.drain_events(timeout=20)
    assert ("task-revoked", unwanted.id) in seen
    assert "unwanted 0" not in worker.lines()
