"""The command around a bridge: what it refuses, how it stops, and what it never prints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from benchmarks.peers import servers
from far_brokers import Far, Redis, needs, needs_jars
from running_bridge import Run

import minibroker
from minibrokerd.bridges.here import QueueSource
from minibrokerd.cli.main import main
from support.broker import BrokerServer
from support.certificates import Authority
from support.processes import look_until

QUEUE = "orders"
redis_alone = pytest.mark.parametrize("far", [Redis], indirect=True, ids=lambda kind: kind.title)


async def publish(server: BrokerServer, *bodies: bytes) -> None:
    """Publish messages."""
    async with minibroker.connect(server.url) as broker:
        await broker.queue(QUEUE).publish_many(bodies)


async def bodies_of(server: BrokerServer, queue: str) -> list[bytes]:
    """Return what lies in a queue."""
    async with minibroker.connect(server.url) as broker:
        return [each.raw for each in await broker.queue(queue).peek()]


@pytest.mark.parametrize("ends", [("a", "b"), ("redis://h?stream=a", "nats://h?subject=b")])
def test_one_end_is_a_queue_and_the_other_a_url(ends: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError, match="one of --from and --to is the url"):
        main.main(["bridge", "--from", ends[0], "--to", ends[1]], standalone_mode=False)


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minibrokerd.cli.bridge.find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match=r"pip install \"minibroker\[bridge-nats\]\""):
        main.main(["bridge", "--from", "a", "--to", "nats://h?subject=b"], standalone_mode=False)


@redis_alone
def test_one_that_cannot_be_reached_ends_it_with_69(far: Far, bridge: Run) -> None:
    """And nothing of the password is printed."""
    del far  # that its client is there
    url = "redis://:s3cret@127.0.0.1:1?stream=x"
    said = bridge("--from", url, "--to", QUEUE, "--wait", "100ms").ends(69)
    assert "cannot reach it: redis://127.0.0.1:1/0 stream x" in said
    assert "s3cret" not in said


@redis_alone
def test_what_is_not_there_ends_it_with_1(far: Far, bridge: Run) -> None:
    said = bridge("--from", f"{far.target}none", "--to", QUEUE).ends(1)
    assert "there is no such stream" in said


@redis_alone
def test_a_signal_ends_it_and_json_says_how_far_it_came(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    asyncio.run(publish(broker_server, b"1", b"2"))
    running = bridge("--from", QUEUE, "--to", far.target, "--json", "--progress-every", "100ms")
    look_until(lambda: running.handed_over == 2, running.process, "both messages")
    running.stop()
    first, *_, last = running.events
    assert (first["event"], last) == (
        "started",
        {"event": "ended", "handed_over": 2, "known": 0, "unsure": 0, "aside": 0, "reused_ids": 0},
    )


@redis_alone
def test_a_stop_while_the_sink_is_away_ends_with_71_and_the_messages_stay(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """At once, with no attempt charged: they are given back."""
    words = "--from", QUEUE, "--to", far.target, "--json", "--drain-timeout", "100ms"
    running = bridge(*words)
    look_until(lambda: bool(running.events), running.process, "the start")
    far.server.kill()
    asyncio.run(publish(broker_server, b"1"))
    look_until(lambda: running.events[-1]["event"] == "waits", running.process, "the wait")
    running.process.terminate()
    running.ends(71)

    async def taken() -> Any:
        async with minibroker.connect(broker_server.url) as broker:
            (message,) = await broker.queue(QUEUE).receive(1, wait=30)
            return message.attempt, message.raw

    assert asyncio.run(taken()) == (1, b"1")


@redis_alone
def test_an_exchange_is_an_end(far: Far, broker_server: BrokerServer, bridge: Run) -> None:
    """Each message is in every queue that its bindings lead to; one that none takes ends the bridge and stays."""

    async def make() -> None:
        await far.fill([b"1", b"2"])
        async with minibroker.connect(broker_server.url) as broker:
            events = broker.exchange("events")
            await events.declare("topic")
            await events.bind("a", "order.#")
            await events.bind("b", "order.new")

    asyncio.run(make())
    words = "--from", far.target, "--to", "exchange events", "--until-empty"
    said = bridge(*words).ends(1)
    assert "no binding" in said
    said = bridge(*words, "--routing-key", "order.new").ends()
    assert "exchange events" in said
    for queue in "ab":
        assert asyncio.run(bodies_of(broker_server, queue)) == [b"1", b"2"]
    said = bridge("--from", far.target, "--to", "exchange none").ends(1)
    assert "there is no exchange none" in said


@redis_alone
def test_a_group_of_a_retained_log_is_a_start(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """To the end of the log; a message has one id, however often and through whichever group it is read."""

    async def make() -> None:
        async with minibroker.connect(broker_server.url) as broker:
            await broker.queue("log", kind="log").publish_many(
                [b"%d" % number for number in range(3_000)]
            )
            for name in ("one", "two"):
                await broker.log("log").declare_group(name)

    asyncio.run(make())
    for name in ("one", "two"):
        bridge("--from", f"log@{name}", "--to", far.target, "--until-empty").ends()
    assert isinstance(far, Redis)
    entries = asyncio.run(far.entries(3_000))
    assert len(entries) == 6_000
    ids = [(fields[b"body"], fields[b"minibroker-id"]) for _, fields in entries]
    assert len(set(ids)) == 3_000
    assert [body for body, _ in ids[:3_000]] == [b"%d" % number for number in range(3_000)]


@pytest.mark.parametrize("lag", [0, 5])
def test_a_group_is_not_empty_while_it_is_behind(lag: int) -> None:
    """Between two feedings it has nothing to hand out."""

    class Group:
        name = "log@one"

        async def stats(self) -> Any:
            numbers = {"ready": 0, "held": 0, "begun": 0, "group_of": {"lag": lag}}
            return {"queues": {self.name: numbers}}

    class Broker:
        def queue(self, name: str) -> Group:
            assert name == Group.name
            return Group()

    broker: Any = Broker()
    assert asyncio.run(QueueSource(broker, Group.name).is_empty()) is (lag == 0)


class SealedRedis(servers.RedisServer):
    """Redis with TLS and a password."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, "always")
        self._cert, self._key = authority.sign("redis", "DNS:localhost")
        self.ca = authority.cert

    def command(self) -> list[str]:
        """Return the flags."""
        flags = {
            "port": "0", "tls-port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "",
            "tls-cert-file": str(self._cert), "tls-key-file": str(self._key), "tls-ca-cert-file": str(self.ca),
            "tls-auth-clients": "no", "requirepass": "s3cret",
        }  # fmt: skip
        return [part for name, value in flags.items() for part in (f"--{name}", value)]


class SealedNats(servers.NatsServer):
    """NATS with TLS and a password."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, "2m")
        self._cert, self._key = authority.sign("nats", "DNS:localhost")
        self.ca = authority.cert

    def command(self) -> list[str]:
        """Write the configuration, and return the flag that names it."""
        flags = super().command()
        with (self.folder / "nats.conf").open("a") as config:
            config.write(f'tls {{ cert_file: "{self._cert}", key_file: "{self._key}" }}\n')
            config.write('authorization { user: "bob", password: "s3cret" }\n')
        return flags


class SealedRabbit(servers.RabbitServer):
    """RabbitMQ with TLS on one port more."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, "")
        cert, key = authority.sign("rabbit", "DNS:localhost")
        self.ca = authority.cert
        self.sealed_port = servers.free_port()
        with (folder / "rabbitmq.conf").open("a") as config:
            config.write(
                f"listeners.ssl.default = 127.0.0.1:{self.sealed_port}\n"
                f"ssl_options.cacertfile = {self.ca}\n"
                f"ssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n"
            )

    def listens(self) -> bool:
        """Return whether it does on that port, too."""
        return super().listens() and b"started TLS" in (self.folder / "output").read_bytes()


class SealedKafka(servers.KafkaServer):
    """Kafka with TLS alone."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        super().__init__(folder, "")
        cert, key = authority.sign("kafka", "DNS:localhost")
        self.ca = authority.cert
        both = folder / "kafka.pem"
        both.write_text(key.read_text() + cert.read_text())
        settings = folder / "server.properties"
        sealed = settings.read_text().replace("PLAINTEXT://127.0.0.1", "SSL://localhost")
        sealed = sealed.replace("PLAINTEXT:PLAINTEXT,", "SSL:SSL,")
        settings.write_text(
            sealed + "inter.broker.listener.name=SSL\n"
            f"ssl.keystore.type=PEM\nssl.keystore.location={both}\n"
            f"ssl.truststore.type=PEM\nssl.truststore.location={self.ca}\n"
        )


class TokenNats(servers.NatsServer):
    """NATS that lets in who has the token."""

    def command(self) -> list[str]:
        """Write the configuration, and return the flag that names it."""
        flags = super().command()
        with (self.folder / "nats.conf").open("a") as config:
            config.write('authorization { token: "s3cret" }\n')
        return flags


def test_nats_with_a_token(broker_server: BrokerServer, bridge: Run, tmp_path: Path) -> None:
    """It stands before the @ alone, and is printed as little as a password."""
    needs(TokenNats.program, TokenNats.scheme)
    server = TokenNats(tmp_path / "nats", "2m")
    server.start()
    try:
        to = f"nats://wr0ng@127.0.0.1:{server.port}?subject=x"
        said = bridge("--from", QUEUE, "--to", to, "--wait", "100ms").ends(69)
        assert "Authorization" in said
        assert "wr0ng" not in said
        # Who is let in is told that there is no such stream.
        said = bridge("--from", QUEUE, "--to", to.replace("wr0ng", "s3cret")).ends(1)
        assert "no stream takes it" in said
        assert "s3cret" not in said
    finally:
        server.close()


Sealed = SealedRedis | SealedNats | SealedRabbit | SealedKafka


@pytest.fixture
def start_sealed(tmp_path: Path) -> Iterator[Callable[[type[Sealed]], Sealed]]:
    """Start a server with TLS and the password s3cret."""
    running: list[Sealed] = []

    def start(kind: type[Sealed]) -> Sealed:
        packages = {SealedRabbit: "aio_pika", SealedKafka: "aiokafka"}
        needs(kind.program, packages.get(kind, kind.scheme))
        if kind is SealedKafka:
            needs_jars()
        running.append(kind(tmp_path / "sealed", Authority(tmp_path / "ca")))
        running[-1].start()
        return running[-1]

    yield start
    for server in running:
        server.close()


def test_redis_over_tls_with_a_password(
    broker_server: BrokerServer, bridge: Run, start_sealed: Callable[[type[Sealed]], Sealed]
) -> None:
    """A certificate of nobody that is known is refused, and so is a wrong password: 69, and it is not printed."""
    server = start_sealed(SealedRedis)
    url = f"rediss://:s3cret@localhost:{server.port}?stream=x"
    asyncio.run(publish(broker_server, b"1"))
    said = bridge("--from", QUEUE, "--to", url, "--wait", "100ms").ends(69)
    assert "certificate" in said.lower()
    wrong = url.replace("s3cret", "wr0ng")
    said = bridge("--from", QUEUE, "--to", f"{wrong}&ca={server.ca}", "--wait", "100ms").ends(69)
    assert "s3cret" not in said
    assert "wr0ng" not in said
    bridge("--from", QUEUE, "--to", f"{url}&ca={server.ca}", "--until-empty").ends()
    bridge("--from", f"{url}&ca={server.ca}", "--to", "back", "--until-empty").ends()
    assert asyncio.run(bodies_of(broker_server, "back")) == [b"1"]


def test_nats_over_tls_with_a_password(
    broker_server: BrokerServer, bridge: Run, start_sealed: Callable[[type[Sealed]], Sealed]
) -> None:
    server = start_sealed(SealedNats)

    async def make() -> None:
        import ssl

        import nats

        sealed = ssl.create_default_context(cafile=server.ca)
        client = await nats.connect(
            f"tls://localhost:{server.port}", tls=sealed, user="bob", password="s3cret"
        )
        await client.jetstream().add_stream(name="x", subjects=["x"])
        await client.close()

    asyncio.run(make())
    place = f"localhost:{server.port}"
    asyncio.run(publish(broker_server, b"1"))
    to = f"natss://bob:wr0ng@{place}?subject=x&ca={server.ca}"
    said = bridge("--from", QUEUE, "--to", to, "--wait", "100ms").ends(69)
    assert "wr0ng" not in said
    bridge("--from", QUEUE, "--to", to.replace("wr0ng", "s3cret"), "--until-empty").ends()
    origin = f"natss://bob:s3cret@{place}?stream=x&ca={server.ca}"
    bridge("--from", origin, "--to", "back", "--until-empty").ends()
    assert asyncio.run(bodies_of(broker_server, "back")) == [b"1"]


def test_rabbitmq_over_tls(
    broker_server: BrokerServer, bridge: Run, start_sealed: Callable[[type[Sealed]], Sealed]
) -> None:
    server = start_sealed(SealedRabbit)
    assert isinstance(server, SealedRabbit)
    place = f"localhost:{server.sealed_port}"

    async def make() -> None:
        import aio_pika

        async with await aio_pika.connect(f"amqp://127.0.0.1:{server.port}") as connection:
            channel = await connection.channel()
            await channel.declare_queue("x", durable=True)

    asyncio.run(make())
    _through(broker_server, bridge, f"amqps://guest:guest@{place}?queue=x", server.ca)


def test_kafka_over_tls(
    broker_server: BrokerServer, bridge: Run, start_sealed: Callable[[type[Sealed]], Sealed]
) -> None:
    server = start_sealed(SealedKafka)
    _through(broker_server, bridge, f"kafkas://localhost:{server.port}?topic=x", server.ca)


def _through(broker_server: BrokerServer, bridge: Run, url: str, ca: Path) -> None:
    """There and back again; and not where nobody is known who signed its certificate."""
    asyncio.run(publish(broker_server, b"1"))
    said = bridge("--from", QUEUE, "--to", url, "--wait", "100ms").ends(69)
    assert "cannot reach it" in said  # the client of Kafka does not say why
    bridge("--from", QUEUE, "--to", f"{url}&ca={ca}", "--until-empty", "--wait", "30s").ends()
    bridge("--from", f"{url}&ca={ca}", "--to", "back", "--count", "1", "--wait", "30s").ends()
    assert asyncio.run(bodies_of(broker_server, "back")) == [b"1"]
