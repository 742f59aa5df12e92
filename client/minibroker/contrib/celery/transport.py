"""The transport of kombu: a connection is one blocking client, and messages come to it without a poll."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from kombu.transport import virtual

import minibroker
from minibroker import sync
from minibroker.contract import errors, limits
from minibroker.contrib.celery import channel as channels
from minibroker.contrib.celery.intake import Intake
from minibroker.contrib.celery.pump import Pump
from minibroker.session.address import PLAIN, SEALED
from minibroker.sync.broker import Broker

LOOK_S: Final = 0.5  # whether the connection is there, and whether to stop, is looked at so often
AT_ONCE: Final = 10  # messages of a queue, before it is the turn of another
FAILOVER_S: Final = 5.0  # so long a broker may be away where there is another one
MAX_RUN_S: Final = 20 * 365 * 86_400.0  # leases are renewed for as long as Celery holds a task
_STOPS: Final = ("should_stop", "should_terminate")
# Where this process has been: a worker, which has more connections than one, is there as soon as the broker is,
# and not after the 2, 4, 6, ... s of Celery. What is broadcast before it listens it does not hear.
_reached: set[tuple[str, int]] = set()
VERIFY: Final = "TLS here always checks the certificate: say in ca_certs which one to trust"
_FILES: Final = {"ca_certs": "ca", "certfile": "client_cert", "keyfile": "client_key"}


class Transport(virtual.Transport):
    """What `broker_url = "minibroker://..."` leads to."""

    Channel = channels.Channel
    default_port = limits.DEFAULT_PORT
    driver_type = "minibroker"
    driver_name = "minibroker"
    scheme = PLAIN
    # kombu looks at the first tuple when it reconnects and publishes again. Those of Python are in OSError.
    connection_errors = (
        OSError,
        errors.ConnectionLost,
        errors.LoginRefused,
        errors.ProtocolError,
        errors.Closed,
        errors.ShuttingDown,
        errors.Busy,
    )
    channel_errors = (errors.CommandError,)
    implements = virtual.Transport.implements.extend(
        asynchronous=True,
        exchange_type=frozenset(("direct", "topic", "fanout")),
        heartbeats=False,
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        # Transports are made to be looked at, too: nothing is opened here.
        self._open: Broker | None = None
        self._intake: Intake | None = None
        self._turn = 0
        self._away_since: float | None = None
        self._pump: Pump | None = None
        # Whether a worker says when a task of this name starts; None: there is no worker.
        self.tells_start: Callable[[Any], bool] | None = None

    def driver_version(self) -> str:
        """Return the version of minibroker."""
        return minibroker.__version__

    @property
    def broker(self) -> Broker:
        """The client of this connection; Closed if there is none."""
        if self._open is None:
            raise errors.Closed("this connection of kombu is not open")
        return self._open

    @property
    def intake(self) -> Intake:
        """Where its one thread waits."""
        if self._intake is None:
            raise errors.Closed("this connection of kombu is not open")
        return self._intake

    def establish_connection(self) -> Any:
        """Connect; an OSError or a LoginRefused when that fails."""
        if self._open is None:
            self._open = self._connected()
            self._intake = Intake(self._open._driver)
            if _is_worker():
                from minibroker.contrib.celery import control, request

                control.install()
                request.install()
                self.tells_start = request.tells_start
        return super().establish_connection()

    def _connected(self) -> Broker:
        client = self.client
        host, port = client.hostname or "localhost", client.port or self.default_port
        options = client.transport_options
        within_s = client.connect_timeout or 5
        if client.virtual_host not in (None, "", "/"):
            raise ValueError(
                f"{client.virtual_host!r} names nothing: a server has no databases or virtual hosts"
            )
        place = host, port
        if client.alt or place not in _reached or not _is_worker():
            try:
                socket.create_connection(place, within_s).close()  # says at once what is wrong
            except ConnectionRefusedError as error:
                advice = f"nothing listens at {host}:{port}; does `minibroker serve` run there?"
                raise ConnectionRefusedError(error.errno, advice) from None
        is_sealed = self.scheme == SEALED or bool(client.ssl)
        scheme = SEALED if is_sealed else PLAIN
        where = f"[{host}]" if ":" in host else host
        broker = sync.connect(
            f"{scheme}://{where}:{port}",
            name=options.get("client_name"),
            timeout=options.get("timeout", FAILOVER_S if client.alt else 30),
            connect_timeout=within_s,
            max_run=options.get("max_run", MAX_RUN_S),
            token=client.password or options.get("token") or None,
            **_encryption(client.ssl, options),
        )
        _reached.add(place)
        return broker

    def close_connection(self, connection: Any) -> None:
        """Give back what is in hand, and leave."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()
        super().close_connection(connection)
        broker, self._open, self._intake = self._open, None, None
        if broker is not None:
            broker.close()

    def verify_connection(self, connection: Any) -> bool:
        """Return whether it is open: a server that is away is waited for by the client itself."""
        return self._open is not None and self._open._driver.machine.closed is None

    # ---- waiting ----

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver what is there of whichever queue has something first; TimeoutError if none came in time."""
        until = None if timeout is None else time.monotonic() + timeout
        with _told():
            while not self._stops():
                if self._deliver():
                    return
                now = time.monotonic()
                left_s = LOOK_S if until is None else until - now
                if left_s <= 0:
                    break
                self._check(now)
                self.intake.wait(*self._wanted(now, min(left_s, LOOK_S)))
        raise TimeoutError("no message came")

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Deliver in an event loop of kombu from now on."""
        if self._pump is not None:
            self._pump.stop()
        look_s = LOOK_S if self.client.alt else None  # for another broker, if this one is away
        self._pump = Pump(self.broker._driver, loop, self._on_ready, look_s)
        self.intake.ring = self._pump.ring

    def _on_ready(self) -> None:
        if self._open is None:
            return
        with _told():
            self.intake.look()
            now = time.monotonic()
            self._check(now)
            stops = self._stops()
            if not stops:
                self._deliver()
            pump = self._pump
            if pump is None or self._open is None:  # a task may have closed it
                return
            due_s = self._settle_consumers(now)
            if not stops and self._has_more():
                pump.ring()  # it is the turn of what else is in the loop
            elif due_s is not None:
                pump.later(due_s)

    def _has_more(self) -> bool:
        return any(
            intent.consumer is not None and intent.consumer._buffer and channel.takes(intent)
            for channel, intent in self._intents()
        )

    def _stops(self) -> bool:
        """Whether a worker was told to stop, and this is where it gets tasks: it would take two more."""
        return _is_told_to_stop() and any(not intent.no_ack for _, intent in self._intents())

    def writes_later(self) -> bool:
        """Have what is said in the loop's thread written at the end of its turn; False: write it now."""
        return self._pump is not None and not _is_told_to_stop() and self._pump.owes()

    def _deliver(self) -> bool:
        """Deliver what is there: one message of control, or of another consumer without acks; else some tasks."""
        intents = self._intents()
        for channel, intent in intents:
            if intent.no_ack and channel.deliver(intent, 1):
                return True
        for at in range(len(intents)):
            channel, intent = intents[(self._turn + at) % len(intents)]
            if not intent.no_ack and channel.deliver(intent, AT_ONCE):
                self._turn = self._turn + at + 1
                return True
        return False

    def _intents(self) -> list[tuple[channels.Channel, channels.Intent]]:
        return [
            (channel, intent) for channel in self.channels for intent in channel.intents.values()
        ]

    def _wanted(self, now: float, seconds: float) -> tuple[list[Any], float]:
        """Have consumers as there is room; return those that are waited for, and for how long."""
        due_s = self._settle_consumers(now)
        if due_s is not None:
            seconds = min(seconds, due_s)
        consumers = [
            intent.consumer
            for channel, intent in self._intents()
            if intent.consumer is not None
            and (channel.takes(intent) or not intent.consumer._buffer)
        ]
        return consumers, seconds

    def _settle_consumers(self, now: float) -> float | None:
        """Have consumers as there is room; return in how many seconds to look again, None: no need."""
        due_s = [channel.settle_consumers(now) for channel in self.channels]
        return min((each for each in due_s if each is not None), default=None)

    def _check(self, now: float) -> None:
        """Raise if a consumer was ended by the server, or it has been away for long and there is another one."""
        for _, intent in self._intents():
            if intent.consumer is not None and intent.consumer._ended:
                error = intent.consumer.error
                raise errors.ConnectionLost(f"no more messages of {intent.queue}: {error}")
        if self.broker._driver.session.is_open:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = now
        elif self.client.alt and now - self._away_since > FAILOVER_S:
            raise errors.ConnectionLost(f"{self.client.hostname} is away")


def _is_worker() -> bool:
    return "celery.worker.consumer" in sys.modules


def _is_told_to_stop() -> bool:
    """Whether the worker of this process is to end: its loop may not come round again."""
    state = sys.modules.get("celery.worker.state")
    return state is not None and any(getattr(state, name) is not None for name in _STOPS)


@contextmanager
def _told() -> Iterator[None]:
    """Let no time-out of the client be taken for "no message"."""
    try:
        yield
    except errors.MinibrokerError as error:
        if isinstance(error, TimeoutError):
            raise errors.ConnectionLost(str(error)) from error
        raise


class SealedTransport(Transport):
    """What `broker_url = "minibrokers://..."` leads to: TLS."""

    scheme = SEALED


def _encryption(ssl: Any, options: Any) -> dict[str, Any]:
    """Return the arguments of `connect` that `broker_use_ssl` and the options of the transport say."""
    said = {
        name: options[name]
        for name in ("ca", "client_cert", "client_key", "server_name")
        if name in options
    }
    if isinstance(ssl, dict):
        if ssl.get("cert_reqs") in (0, "none", "CERT_NONE"):
            raise ValueError(VERIFY)
        said |= {ours: ssl[theirs] for theirs, ours in _FILES.items() if ssl.get(theirs)}
    return said
