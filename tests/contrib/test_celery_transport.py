"""The transport by itself, as kombu sees it: encryption, tokens, prefetch, and what it gives back."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

kombu = pytest.importorskip("kombu", reason="the extra celery is not installed")

from kombu.asynchronous import Hub  # noqa: E402

import minibroker.contrib.celery  # noqa: E402
import minibroker.sync  # noqa: E402
from support.broker import BrokerServer, StartBroker  # noqa: E402
from support.certificates import Authority  # noqa: E402
from support.processes import look_until  # noqa: E402


class Poisoned(Exception):
    """Why a task is rejected; unlike Python's own errors it can be watched."""


def taken(connection: Any, queue: str, prefetch: int) -> tuple[Any, list[Any]]:
    """Consume a queue until nothing more comes; return the consumer, and what it got and did not ack."""
    messages: list[Any] = []
    consumer = kombu.Consumer(
        connection, [kombu.Queue(queue, routing_key=queue)], prefetch_count=prefetch
    )
    consumer.register_callback(lambda body, message: messages.append(message))
    consumer.consume()
    drain(connection)
    return consumer, messages


def drain(connection: Any) -> None:
    """Return when nothing comes any more."""
    more = True
    while more:
        try:
            connection.drain_events(timeout=0.3)
        except TimeoutError:
            more = False


def test_it_is_encrypted_and_says_its_token(start_broker: StartBroker, tmp_path: Path) -> None:
    """As minibrokers://, with the CA where Celery has it, and the token where kombu has a password."""
    authority = Authority(tmp_path)
    cert, key = authority.sign("server", "IP:127.0.0.1")
    server = start_broker("--tls-cert", str(cert), "--tls-key", str(key))
    command = [sys.executable, "-m", "minibrokerd", "token", "add", "shop", "--queues", "jobs"]
    command += ["--may", "publish,consume", "--data-dir", str(server.data_dir)]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    look_until(lambda: "tokens_loaded" in server.output, server.process, "the token")
    where = f"127.0.0.1:{server.port}"
    with kombu.Connection(
        f"minibrokers://:{token}@{where}", ssl={"ca_certs": str(authority.cert)}
    ) as connection:
        kombu.Producer(connection).publish({"n": 1}, routing_key="jobs")
        _, messages = taken(connection, "jobs", 1)
        assert [message.payload for message in messages] == [{"n": 1}]
    refused = kombu.Connection(
        f"minibrokers://:wrong@{where}", ssl={"ca_certs": str(authority.cert)}
    )
    with pytest.raises(kombu.exceptions.OperationalError):
        refused.ensure_connection(max_retries=1, interval_start=0)


def test_one_more_connection_of_a_worker_waits_for_a_broker_that_is_away(
    broker_server: BrokerServer,
) -> None:
    """As that for control of a gevent worker: refused, Celery would try again only after two seconds."""
    pytest.importorskip("celery.worker.consumer")
    with kombu.Connection(broker_server.url) as first, kombu.Connection(broker_server.url) as more:
        first.connect()
        broker_server.kill()
        errors: list[BaseException] = []

        def connect() -> None:
            try:
                more.ensure_connection(errback=lambda error, _: errors.append(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is one too many
                errors.append(error)

        connecting = threading.Thread(target=connect)
        connecting.start()
        broker_server.restart()
        connecting.join()
        assert not errors
        assert more.connected


def test_where_nothing_listens_the_error_says_where_and_what_to_start() -> None:
    """Celery shows no more than its text."""
    with socket.socket() as taken:  # bound, and it does not listen: whoever connects is refused
        taken.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        connection = kombu.Connection(f"minibroker://{where}")
        with pytest.raises(ConnectionRefusedError, match=rf"{where}.*minibroker serve"):
            connection.transport.establish_connection()


def test_a_connection_has_what_its_prefetch_says_and_gives_it_back(
    broker_server: BrokerServer,
) -> None:
    """In their places and uncharged: the next one gets the same, and as if nobody had had them."""
    with kombu.Connection(broker_server.url) as connection:
        producer = kombu.Producer(connection)
        for number in range(5):
            producer.publish(number, routing_key="jobs")
        _, messages = taken(connection, "jobs", 3)
        assert [message.payload for message in messages] == [0, 1, 2]
        with minibroker.sync.connect(broker_server.url) as broker:
            assert broker.stats()["queues"]["jobs"]["ready"] == 2, "no more than that is in hand"
        messages[1].ack()
        messages[1].channel.basic_ack("of another connection")  # widens nothing
        drain(connection)
        assert [message.payload for message in messages] == [0, 1, 2, 3]
    with kombu.Connection(broker_server.url) as connection:
        _, messages = taken(connection, "jobs", 0)
        assert [message.payload for message in messages] == [0, 2, 3, 4]
        assert not any(message.delivery_info.get("redelivered") for message in messages)


def test_a_full_channel_leaves_to_others_what_it_cannot_begin(broker_server: BrokerServer) -> None:
    """Of two queues it may have one message each in its buffer; after a moment another gets the second."""
    with kombu.Connection(broker_server.url) as busy, kombu.Connection(broker_server.url) as idle:
        producer = kombu.Producer(busy)
        producer.publish("a", routing_key="a")
        producer.publish("b", routing_key="b")
        messages: list[Any] = []
        queues = [kombu.Queue(name, routing_key=name) for name in ("a", "b")]
        consumer = kombu.Consumer(busy, queues, prefetch_count=1)
        consumer.register_callback(lambda body, message: messages.append(message))
        consumer.consume()
        drain(busy)
        assert len(messages) == 1
        (left,) = {"a", "b"} - {messages[0].payload}
        _, others = taken(idle, left, 1)
        assert [message.payload for message in others] == [left]
        others[0].ack()
        messages[0].ack()
        producer.publish("again", routing_key=left)
        idle.close()
        busy.drain_events(timeout=5)
        assert messages[1].payload == "again", "it asks anew when it has room"


def test_why_a_task_was_rejected_is_kept_no_longer_than_the_task(
    broker_server: BrokerServer,
) -> None:
    """Also of one that was acked before it ran, as Celery does if nothing is said, or that is tried again."""
    with kombu.Connection(broker_server.url) as connection:
        producer = kombu.Producer(connection)
        for number in range(3):
            producer.publish(number, routing_key="jobs")
        _, (acked, requeued, rejected) = taken(connection, "jobs", 3)
        known = []
        acked.ack()
        for message in (acked, requeued, rejected):
            error = Poisoned("a page of text")
            known.append(weakref.ref(error))
            message.channel.qos.explain(message.delivery_tag, error)
        del error
        requeued.requeue()
        rejected.reject()
        drain(connection)
        assert [reference() for reference in known] == [None] * 3
    with minibroker.sync.connect(broker_server.url) as broker:
        (dead,) = broker.queue("jobs.dlq").peek(1)
        assert "a page of text" in str(dead.history[-1])


def test_headers_that_only_kombu_can_say_come_back_as_what_they_were(
    broker_server: BrokerServer,
) -> None:
    """Stamps may be UUIDs; to a queue, and by way of an exchange."""
    stamp = UUID(int=7)
    with kombu.Connection(broker_server.url) as connection:
        producer = kombu.Producer(connection)
        exchange = kombu.Exchange("shop", "direct")
        kombu.Queue("jobs", exchange, "new")(connection.default_channel).declare()
        producer.publish(1, routing_key="jobs", headers={"stamp": stamp})
        producer.publish(2, exchange=exchange, routing_key="new", headers={"stamp": stamp})
        _, messages = taken(connection, "jobs", 3)
        assert [message.payload for message in messages] == [1, 2]
        assert [message.headers["stamp"] for message in messages] == [stamp, stamp]


class Looped:
    """A consumer of kombu in an event loop of kombu, as a worker of Celery has it."""

    def __init__(self, connection: Any, queue: str, prefetch: int = 10) -> None:
        self.hub = Hub()
        self.bodies: list[Any] = []
        connection.connect()
        connection.transport.register_with_event_loop(connection.connection, self.hub)
        named = kombu.Queue(queue, routing_key=queue)
        self.consumer = kombu.Consumer(connection, [named], prefetch_count=prefetch)
        self.consumer.register_callback(self.took)
        self.consumer.consume()

    def __enter__(self) -> Looped:
        return self

    def __exit__(self, *_: object) -> None:
        self.hub.close()

    def took(self, body: Any, message: Any) -> None:
        """Note a message, and that it is done."""
        self.bodies.append(body)
        message.ack()

    def turn_until(self, condition: Callable[[], bool]) -> None:
        """Turn the loop until it holds."""
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, self.bodies
            self.hub.run_once()


def test_a_loop_gets_what_another_thread_has_read(broker_server: BrokerServer) -> None:
    """One that waits for an answer polls the connection meanwhile: what it reads for the loop rings there."""
    with kombu.Connection(broker_server.url) as connection, Looped(connection, "jobs") as looped:
        looped.turn_until(lambda: len(looped.hub.readers) == 2)  # the bell, and the connection
        with minibroker.sync.connect(broker_server.url) as other:
            other.queue("jobs").publish(b"1", headers={"kombu": ["text/plain", "utf-8", {}]})
            (consumer,) = connection.transport.broker._driver.consumers.values()
            asking = threading.Thread(
                target=look_until_in_hand, args=(connection.transport.broker, consumer)
            )
            asking.start()
            asking.join()
            assert connection.transport._pump._rings  # else it would wait for the next sign of life
            looped.turn_until(lambda: looped.bodies == ["1"])
            other.queue("jobs").publish(b"2", headers={"kombu": ["text/plain", "utf-8", {}]})
            looped.turn_until(lambda: looped.bodies == ["1", "2"])


def look_until_in_hand(broker: Any, consumer: Any) -> None:
    """Ask the server something until a delivery of the consumer has come with the answer."""
    until = time.monotonic() + 30
    while not consumer._buffer and time.monotonic() < until:
        broker.exchanges()


def test_a_loop_goes_on_with_the_next_connection(broker_server: BrokerServer) -> None:
    """The descriptor of one that is lost leaves the loop, that of the next one comes in."""
    with kombu.Connection(broker_server.url) as connection, Looped(connection, "jobs") as looped:
        producer = kombu.Producer(kombu.Connection(broker_server.url))
        producer.publish(1, routing_key="jobs")
        looped.turn_until(lambda: looped.bodies == [1])
        broker_server.kill()
        broker_server.restart()
        producer.publish(2, routing_key="jobs")
        looped.turn_until(lambda: looped.bodies == [1, 2])
        producer.connection.close()


@pytest.fixture
def lent(
    broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Looped, list[Any], list[bytes]]]:
    """Two messages that a loop was lent, and what is written from now on."""
    with kombu.Connection(broker_server.url) as connection, Looped(connection, "jobs") as looped:
        held: list[Any] = []
        looped.consumer.callbacks = [lambda body, message: held.append(message)]
        connection.transport.tells_start = lambda name: True
        for number in range(2):
            kombu.Producer(connection).publish(number, routing_key="jobs")
        looped.turn_until(lambda: len(held) == 2)
        link, frames = connection.transport.broker._driver.link, list[bytes]()
        write = link.write

        def written(data: bytes) -> None:
            frames.append(data)
            write(data)

        monkeypatch.setattr(link, "write", written)
        yield looped, held, frames


@pytest.mark.parametrize("acks_late", [False, True])
def test_a_task_that_is_acked_as_it_starts_costs_one_frame(
    lent: tuple[Looped, list[Any], list[bytes]], acks_late: bool
) -> None:
    """The ack says that it has begun; one that comes later leaves that to a frame of its own."""
    _, held, frames = lent
    assert held[0].channel.qos.begin(held[0].delivery_tag, told=acks_late)
    held[0].ack()
    assert [b"begin" in data for data in frames] == ([True, False] if acks_late else [False])


def test_what_a_loop_hears_and_hands_to_processes_is_one_write(
    lent: tuple[Looped, list[Any], list[bytes]],
) -> None:
    """The ack of the task that is over, and the begin of the next one; another thread writes at once."""
    looped, (first, second), frames = lent
    qos = first.channel.qos
    assert qos.begin(first.delivery_tag, apart=True)
    assert not frames, "the loop has not been round"
    looped.turn_until(lambda: bool(frames))
    assert [b"begin" in data for data in frames] == [True]
    frames.clear()
    first.ack()
    assert qos.begin(second.delivery_tag, apart=True)
    looped.turn_until(lambda: bool(frames))
    assert [b"begin" in data and b"ack" in data for data in frames] == [True]
    frames.clear()
    thread = threading.Thread(target=second.ack)
    thread.start()
    thread.join()
    assert len(frames) == 1


def test_a_full_channel_in_a_loop_goes_on_when_there_is_room(broker_server: BrokerServer) -> None:
    """An ack of any thread, or a larger prefetch, lets the loop deliver more."""
    with (
        kombu.Connection(broker_server.url) as connection,
        Looped(connection, "jobs", prefetch=1) as looped,
    ):
        held: list[Any] = []
        looped.consumer.callbacks = [lambda body, message: held.append(message)]
        for number in range(3):
            kombu.Producer(connection).publish(number, routing_key="jobs")
        looped.turn_until(lambda: len(held) == 1)
        acking = threading.Thread(target=held[0].ack)
        acking.start()
        looped.turn_until(lambda: len(held) == 2)
        acking.join()
        looped.consumer.qos(prefetch_count=2)
        looped.turn_until(lambda: len(held) == 3)
        for message in held:
            if not message.acknowledged:
                message.ack()
