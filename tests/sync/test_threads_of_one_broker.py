"""`minibroker.sync` alone: what it loads, many threads, interrupts, forks, greenlets, idle connections."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import minibroker
import minibroker.sync
from minibroker.contract import wire
from minibroker.sync.link import Link
from support.broker import BrokerServer
from support.processes import look_until
from support.renewals import LEASE_S


@pytest.fixture
def broker(broker_server: BrokerServer) -> Iterator[minibroker.sync.Broker]:
    """An open connection."""
    with minibroker.sync.connect(broker_server.url, timeout=20) as opened:
        yield opened


def counters(queue: minibroker.sync.Queue[Any]) -> dict[str, int]:
    """Return what the server counts of a queue."""
    found: dict[str, int] = queue.stats()["queues"][queue.name]
    return found


def until(is_so: Callable[[], bool], server: BrokerServer) -> None:
    """Return when it is so; it is looked at again and again while the server runs."""
    look_until(is_so, server.process, "what is waited for")


def run_all(*functions: Callable[[], object]) -> None:
    """Run each in a thread of its own, to the end."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def script(code: str, *arguments: str) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_loads_no_event_loop() -> None:
    code = "import sys, minibroker.sync; print(*sys.modules)"
    loaded = script(code).split()
    assert not {"asyncio", "uvloop", "minibrokerd", "concurrent.futures"} & set(loaded)


def test_threads_that_publish_share_frames_and_get_their_own_confirms(
    broker: minibroker.sync.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = broker.queue("q")
    frames: list[bytes] = []
    pack = wire.frame_pieces

    def counted(header: Any, *args: Any) -> Any:
        frames.append(header)
        return pack(header, *args)

    monkeypatch.setattr(wire, "frame_pieces", counted)
    found: dict[str, Any] = {}

    def publish(name: str) -> None:
        for number in range(50):
            body = f"{name}-{number}"
            found[body] = queue.publish(body.encode()).id

    run_all(*[lambda name=str(number): publish(name) for number in range(16)])  # type: ignore[misc]
    assert len(set(found.values())) == 800
    assert len(frames) < 700, "no frame was shared"
    messages = queue.receive(1_000)
    assert {message.id: message.body.decode() for message in messages} == {
        number: body for body, number in found.items()
    }


def test_threads_that_share_a_consumer_get_each_message_once(
    broker: minibroker.sync.Broker,
) -> None:
    queue = broker.queue("q")
    queue.publish_many([b"%d" % number for number in range(2_000)])
    seen: list[int] = []
    with queue.consume(prefetch=64) as messages:
        shared = iter(messages)

        def work() -> None:
            for message in shared:
                with message.process():
                    seen.append(int(message.body))
                if len(seen) >= 2_000:
                    shared.end(None)  # type: ignore[attr-defined]

        run_all(*[work] * 8)
    assert sorted(seen) == list(range(2_000))
    assert counters(queue)["acked"] == 2_000


def test_a_thread_that_publishes_is_served_while_another_waits_for_messages(
    broker: minibroker.sync.Broker,
) -> None:
    queue, other = broker.queue("q"), broker.queue("other")
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.extend(queue.receive(wait=30)))
    waiting.start()
    for _ in range(20):
        other.publish(b"x")
    queue.publish(b"at last")
    waiting.join(30)
    assert [message.body for message in got] == [b"at last"]


def test_an_ack_that_nobody_waits_for_leaves_by_itself(
    broker: minibroker.sync.Broker, broker_server: BrokerServer
) -> None:
    queue = broker.queue("q")
    queue.publish_many([b"x"] * 3)
    with queue.consume(prefetch=100) as messages:
        for message in messages:
            message.ack()
            break
        until(lambda: counters(queue)["acked"] == 1, broker_server)


@pytest.mark.parametrize("call", ["publish", "receive", "consume"])
def test_an_interrupted_wait_leaves_nothing_behind(broker_server: BrokerServer, call: str) -> None:
    """Ctrl-C in a wait: the call is withdrawn, and the next ones are as good as ever."""
    code = """
import os, signal, sys, threading, time
import minibroker.sync
broker = minibroker.sync.connect(sys.argv[1], timeout=20)
queue = broker.queue("q")
def interrupt():
    while broker._driver._leader is None:
        time.sleep(0.01)
    with broker._driver:  # the step that asks is over: it waits
        pass
    os.kill(os.getpid(), signal.SIGINT)
if sys.argv[2] == "publish":
    os.kill(int(sys.argv[3]), signal.SIGSTOP)  # so that no confirm comes
threading.Thread(target=interrupt).start()
try:
    if sys.argv[2] == "publish":
        queue.publish(b"x")
    elif sys.argv[2] == "receive":
        queue.receive(wait=30)
    else:
        for message in queue.consume():
            pass
except KeyboardInterrupt:
    print("interrupted")
os.kill(int(sys.argv[3]), signal.SIGCONT)
broker.queue("q2").publish(b"y")
[message] = broker.queue("q2").receive(wait=5)
message.ack(confirmed=True)
if sys.argv[2] != "publish":
    queue.publish(b"z")
    [message] = queue.receive(wait=5)
    assert message.attempt == 1, message
    message.ack(confirmed=True)
broker.close()
print("done")
"""
    assert script(code, broker_server.url, call, str(broker_server.pid)).split() == [
        "interrupted",
        "done",
    ]


def test_interrupts_anywhere_hang_nobody(broker_server: BrokerServer) -> None:
    code = (Path(__file__).parent / "interrupted.py").read_text()
    assert script(code, broker_server.url).splitlines()[-1] == "done"


def test_a_run_ends_with_ctrl_c_behind_its_handlers(broker_server: BrokerServer) -> None:
    code = """
import os, signal, sys, threading
import minibroker.sync
with minibroker.sync.connect(sys.argv[1]) as broker:
    queue = broker.queue("q")
    queue.publish_many([b"x"] * 2)
    begun = threading.Barrier(3)
    sent = threading.Event()
    calls = []
    def handle(message):
        calls.append(1)
        if len(calls) <= 2:
            begun.wait(10)
            sent.wait(10)
    def interrupt():
        begun.wait(10)
        with broker._driver:  # not within the step that brought them: that would end the session
            pass
        os.kill(os.getpid(), signal.SIGINT)
        sent.set()
    threading.Thread(target=interrupt).start()
    try:
        queue.run(handle, concurrency=2)
    except KeyboardInterrupt:
        found = queue.stats()["queues"]["q"]
        print(found["acked"] >= 2, found["begun"], found["held"], found["failed"])
"""
    assert script(code, broker_server.url) == "True 0 0 0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_of_a_fork_has_a_connection_of_its_own(broker_server: BrokerServer) -> None:
    """Parent and children use one broker object; the lease that the parent holds is not disturbed."""
    code = """
import os, sys
import minibroker, minibroker.sync
broker = minibroker.sync.connect(sys.argv[1])
queue = broker.queue("q")
queue.publish(b"held")
[message] = queue.receive(wait=5, lease=60)
session = broker._driver.session.session_id
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                message.ack()
            except minibroker.LeaseLost:
                queue.publish(b"of a child")
                assert broker._driver.session.session_id != session
                broker.close()
                code = 0
        finally:
            os._exit(code)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
assert queue.receive(3, wait=5)[0].body == b"of a child"
message.ack(confirmed=True)
assert broker._driver.session.session_id == session
broker.close()
print("ok")
"""
    assert script(code, broker_server.url) == "ok\n"


def test_a_lazy_broker_of_a_module_opens_nothing_before_the_fork(
    broker_server: BrokerServer,
) -> None:
    code = """
import os, sys
import minibroker.sync
broker = minibroker.sync.connect(sys.argv[1], lazy=True)
emails = broker.queue("emails")
before = len(os.listdir("/proc/self/fd"))
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        emails.publish(b"x")
        os._exit(0)
    pids.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
assert broker._driver.link is None
print(emails.stats()["queues"]["emails"]["ready"])
"""
    assert script(code, broker_server.url) == "2\n"


def test_under_gevent_greenlets_share_a_connection(broker_server: BrokerServer) -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
import minibroker.sync
with minibroker.sync.connect(sys.argv[1], timeout=20) as broker:
    queue = broker.queue("q")
    turns = []
    def tick():
        while len(turns) < 10_000:
            turns.append(1)
            gevent.sleep(0.001)
    ticking = gevent.spawn(tick)
    receiving = gevent.spawn(queue.receive, 1, 20)
    while len(turns) < 20:
        gevent.sleep(0.001)
    assert not receiving.ready(), "a wait stopped the other greenlets"
    gevent.joinall([gevent.spawn(queue.publish, b"%d" % n) for n in range(50)], raise_error=True)
    [message] = receiving.get()
    message.ack(confirmed=True)
    seen = 0
    with queue.consume(prefetch=8) as messages:
        for message in messages:
            with message.process():
                seen += 1
            if seen == 49:
                break
    ticking.kill()
    print(seen)
"""
    assert script(code, broker_server.url) == "49\n"


def test_a_connection_that_ended_while_nobody_used_it_is_replaced_without_a_word(
    broker_server: BrokerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibroker.sync.steps.STALE_MS", 0)
    with minibroker.sync.connect(broker_server.url, timeout=20) as broker:
        broker.queue("q").publish(b"x")
        broker_server.kill()
        broker_server.restart()
        broker.queue("q").publish(b"y")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_connection_that_the_server_ended_with_a_reason_is_replaced_without_a_word(
    broker_server: BrokerServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it ends one that was idle for two heartbeats: the reason stands before the end, and is read with it."""
    monkeypatch.setattr("minibroker.sync.steps.STALE_MS", 0)
    why = {"op": "error", "code": "protocol_error", "text": "nothing was heard of its session"}
    came = [wire.pack_frame(why)]
    with minibroker.sync.connect(broker_server.url, timeout=20) as broker:
        broker.queue("q").publish(b"x")
        broker_server.kill()
        broker_server.restart()
        read = Link.read
        monkeypatch.setattr(Link, "read", lambda link: came.pop() if came else read(link))
        broker.queue("q").publish(b"y")
    assert not came
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_leases_are_kept_over_a_restart_while_no_caller_looks(
    broker_server: BrokerServer, broker: minibroker.sync.Broker
) -> None:
    queue = broker.queue("q")
    queue.publish(b"x")
    [message] = queue.receive(wait=5, lease=LEASE_S)
    broker_server.kill()
    broker_server.restart()
    with minibroker.sync.connect(broker_server.url) as other:
        assert other.queue("q").receive(wait=LEASE_S + 2) == []
    message.ack(confirmed=True)


def test_an_interrupt_within_a_step_begins_a_new_session(
    broker: minibroker.sync.Broker, broker_server: BrokerServer
) -> None:
    """What it left cannot be trusted: those who wait hear so, and the next call works."""
    queue = broker.queue("q")
    queue.publish(b"x")
    driver = broker._driver
    session = driver.session.session_id
    waiting: list[BaseException] = []

    def wait() -> None:
        try:
            queue.receive(5, wait=30)
        except minibroker.MinibrokerError as error:
            waiting.append(error)

    [message] = queue.receive(wait=5)
    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: driver._leader is not None, broker_server)
    with pytest.raises(KeyboardInterrupt), driver:
        raise KeyboardInterrupt
    thread.join(20)
    assert isinstance(waiting[0], minibroker.OutcomeUnknown)
    queue.publish(b"y")
    assert driver.session.session_id != session
    with pytest.raises(minibroker.LeaseLost):
        message.ack()


def test_an_interrupt_behind_the_answer_of_a_receive_gives_it_back(
    broker: minibroker.sync.Broker, broker_server: BrokerServer
) -> None:
    """Wherever it strikes: nobody would see the messages, and their leases were renewed for half a day."""
    queue = broker.queue("given-back", lease_ms=500, max_attempts=1_000)
    queue.publish_many([b"x"] * 3)
    places = (type(queue).receive.__code__, type(broker._driver).request.__code__)
    point = lines = 0

    def strike(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if frame.f_code not in places:
            return None
        lines += event == "line"
        if event == "line" and lines == point:
            raise KeyboardInterrupt
        return strike

    while lines >= point:
        point, lines = point + 1, 0
        before = sys.gettrace()
        sys.settrace(strike)
        try:
            messages = queue.receive(3)
        except KeyboardInterrupt:
            messages = []
        finally:
            sys.settrace(before)
        for message in messages:
            message.release(confirmed=True)
        until(lambda: counters(queue)["ready"] == 3, broker_server)
    assert point > 15


def test_its_verbs_are_those_of_asyncio() -> None:
    """Same names, same arguments, a docstring each."""
    import inspect

    for name in ("Broker", "Queue", "Message", "Consumption"):
        blocking, awaited = getattr(minibroker.sync, name), getattr(minibroker, name)
        verbs = {
            verb for verb in vars(awaited) if verb[0] != "_" and callable(getattr(awaited, verb))
        }
        assert verbs <= set(dir(blocking)), name
        for verb in verbs:
            ours, theirs = getattr(blocking, verb), getattr(awaited, verb)
            assert list(inspect.signature(ours).parameters) == list(
                inspect.signature(theirs).parameters
            ), verb
            assert ours.__doc__, verb
    assert list(inspect.signature(minibroker.sync.connect).parameters) == list(
        inspect.signature(minibroker.connect).parameters
    )
