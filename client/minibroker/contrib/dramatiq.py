"""Dramatiq on minibroker: `dramatiq.set_broker(MinibrokerBroker())`.

Actors, middleware, retries and the `dramatiq` command stay as they are; what is behind them differs: a delay is
the broker's own, a message is begun when its actor starts, and what has failed for good is in the dead-letter
queue with its error. docs/guide/dramatiq.md has the rest, decision 71 why.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import dramatiq
from dramatiq.errors import ConnectionClosed, ConnectionFailed, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import SkipMessage
from dramatiq.results import ResultBackend, ResultMissing, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT, Missing
from dramatiq.worker import WorkerThread

import minibroker.sync
from minibroker.contract.errors import (
    Closed,
    ConnectionLost,
    LeaseLost,
    MinibrokerError,
    NotSent,
    OutcomeUnknown,
    Timeout,
    TooLarge,
    UnknownQueue,
)
from minibroker.contrib.lent_messages import LentMessages
from minibroker.contrib.named_results import NamedResults, too_large

# Of the connection, not of what was asked: Dramatiq tries these again, and no others.
AWAY: Final = (ConnectionLost, NotSent, OutcomeUnknown, Timeout, Closed)
PATIENCE: Final = timedelta(days=7)  # of a worker that publishes: what it publishes may be a retry
HIGHEST: Final = 9


class MinibrokerBroker(dramatiq.Broker):
    """A broker for Dramatiq; it connects when it is used first, so also in a child of a fork.

        dramatiq.set_broker(MinibrokerBroker("minibroker://localhost:7272"))

    Args:
        url: as `minibroker.sync.connect` has it.
        middleware: as `dramatiq.Broker` has it.
        settings: of each queue that an actor declares, as `minibroker.sync.Broker.queue` has them.
        options: the others of `minibroker.sync.connect`: token, ca, timeout, ...

    Actors and messages may have a `broker_priority`, 0 to 9: a higher one is handed out first.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        middleware: list[dramatiq.Middleware] | None = None,
        settings: dict[str, int | str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(middleware=middleware)
        self.queues: set[str] = set()
        self.actor_options |= {"broker_priority"}
        self.add_middleware(_BeginsMessages())
        self._settings: dict[str, Any] = dict(settings or {})
        self._handles: dict[str, minibroker.sync.Queue[Any]] = {}
        self.client = minibroker.sync.connect(url, lazy=True, **options)

    def close(self) -> None:
        """Leave: what was acked is confirmed, what has not begun goes back."""
        self.client.close()

    def get_declared_queues(self) -> set[str]:
        """Return the names of all queues that were declared; none of them is for delays."""
        return self.queues.copy()

    def declare_queue(self, queue_name: str) -> None:
        """Know a queue; the server makes it when it is used first."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.client.queue(queue_name, **self._settings)
        self.queues.add(queue_name)
        self.emit_after("declare_queue", queue_name)

    def _queue(self, queue_name: str) -> minibroker.sync.Queue[Any]:
        queue = self._handles.get(queue_name)
        if queue is None:  # its settings are looked through once
            queue = self._handles[queue_name] = self.client.queue(queue_name, **self._settings)
        return queue

    def enqueue(self, message: Any, *, delay: int | None = None) -> Any:
        """Store a message, to be handed out after `delay` ms; return it.

        Raises:
            QueueNotFound: nobody declared its queue.
            ConnectionFailed: the broker could not be reached in time. A worker waits for it instead.
            MinibrokerError: it was refused, as with QueueFull.
        """
        queue_name = message.queue_name
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        self.emit_before("enqueue", message, delay)
        try:
            self._queue(queue_name).publish(
                message.encode(),
                delay=None if delay is None else delay / 1_000,
                priority=self._priority(message),
                timeout=_patience(),
            )
        except AWAY as error:
            raise self._failed(error) from error
        except MinibrokerError as error:
            if isinstance(message, LentProxy):  # a retry that is refused is a death
                message.fail()
                message.stuff_exception(error)
            raise
        self.emit_after("enqueue", message, delay)
        return message

    def _priority(self, message: Any) -> int:
        priority = message.options.get("broker_priority")
        if priority is None:
            actor = self.actors.get(message.actor_name)
            priority = actor.options.get("broker_priority") if actor is not None else 0
        return max(0, min(HIGHEST, int(priority or 0)))

    def consume(
        self, queue_name: str, prefetch: int = 1, timeout: int = 30_000
    ) -> dramatiq.Consumer:
        """Return an iterator of at most `prefetch` messages that are not settled.

        Raises:
            QueueNotFound: nobody declared the queue.
            ConnectionFailed: the broker is away.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        try:
            return _Consumer(self._queue(queue_name), prefetch, timeout)
        except MinibrokerError as error:
            raise self._failed(error) from error

    def _failed(self, error: MinibrokerError) -> ConnectionFailed:
        return ConnectionFailed(f"{error} (the broker at {self.client._driver.options.where})")

    def flush(self, queue_name: str) -> None:
        """End all messages of a queue, the dead ones, too; QueueNotFound."""
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        for name in (queue_name, f"{queue_name}.dlq"):
            with suppress(UnknownQueue):
                self.client.queue(name).purge()

    def flush_all(self) -> None:
        """End all messages of all queues that were declared."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Return when nothing of a queue is left to do, retries and delays among it; `timeout` in ms.

        Raises:
            QueueNotFound: nobody declared the queue.
            QueueJoinTimeout: it is not done by then.
        """
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)
        within_s = None if timeout is None else timeout / 1_000
        try:
            self.client.queue(queue_name).join(timeout=within_s, delayed=True)
        except Timeout:
            raise QueueJoinTimeout(queue_name) from None


class LentProxy(dramatiq.MessageProxy):
    """A message in the hands of a worker: Dramatiq's, and the delivery that it came with."""

    def __init__(self, decoded: dramatiq.Message[Any], lent: Any, consumer: LentMessages) -> None:
        super().__init__(decoded)
        self.lent = lent
        self.consumer = consumer

    def begin(self) -> bool:
        """Say that it starts now; False: somebody else may have it."""
        return self.consumer.begin(self.lent)


class _BeginsMessages(dramatiq.Middleware):
    """Begins each message when its actor is about to start."""

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        if not message.begin():
            message.options["store_results"] = False  # its result is for who has it now
            raise SkipMessage("the connection was lost before it began: it is handed out again")


class _Consumer(dramatiq.Consumer):
    """The messages of one queue. What it handed out knows its own delivery: any consumer settles it."""

    def __init__(self, queue: Any, prefetch: int, timeout_ms: int) -> None:
        self._timeout_ms = timeout_ms
        self._messages = LentMessages(queue._driver, queue.name, prefetch)
        self._messages.start()

    def __next__(self) -> LentProxy | None:
        messages = self._messages
        try:
            message = messages.lend(self._timeout_ms)
        except (MinibrokerError, RuntimeError) as error:
            raise ConnectionClosed(error) from error
        if message is None:
            return None
        try:
            return LentProxy(dramatiq.Message.decode(message.raw), message, messages)
        except dramatiq.DecodeError as error:
            if messages.begin(message):
                with suppress(LeaseLost):
                    message.reject(error)
            return None

    def ack(self, message: Any) -> None:
        if message.begin():
            with suppress(LeaseLost):  # somebody else has it, and will say so
                message.lent.ack()
                message.consumer.write()

    def nack(self, message: Any) -> None:
        if message.begin():
            with suppress(LeaseLost):
                message.lent.reject(message._exception or "the actor failed")

    def requeue(self, messages: Iterable[Any]) -> None:
        for message in messages:
            message.consumer.give_back(message.lent)

    def close(self) -> None:
        self._messages.retire()


class MinibrokerBackend(ResultBackend):
    """Results of actors in a queue of minibroker: `broker.add_middleware(Results(backend=MinibrokerBackend()))`.

    Who waits for one is told when it is there; nothing is polled.

    Args:
        url, options: as `MinibrokerBroker` has them.
        namespace: name of the queue that has them, which nobody consumes.
        encoder: as `dramatiq.results.ResultBackend` has it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str = "dramatiq-results",
        encoder: dramatiq.Encoder | None = None,
        **options: Any,
    ) -> None:
        super().__init__(namespace=namespace, encoder=encoder)
        self.client = minibroker.sync.connect(url, lazy=True, **options)
        self._results = NamedResults(self.client, namespace)

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """Return the result of a message; `timeout` is in ms, 10 s if none is given.

        Raises:
            ResultMissing: it is not there, and `block` is false.
            ResultTimeout: it has not come in time.
            ResultFailure: the actor failed.
        """
        name = self.build_message_key(message)
        if block:
            within_ms = DEFAULT_TIMEOUT if timeout is None else timeout
            data = self._results.wait(name, within_ms / 1_000)
        else:
            data = self._results.get(name)
        if data is None:
            raise (ResultTimeout if block else ResultMissing)(message)
        return self.unwrap_result(self.encoder.decode(data))

    def store_result(self, message: Any, result: Any, ttl: int) -> None:
        """Keep a result; for one that is larger than the broker takes keep that it is.

        Raises:
            TooLarge: it is. Who waits for the result gets a ResultFailure, at once.
        """
        try:
            super().store_result(message, result, ttl)
        except TooLarge as error:
            self.store_exception(message, too_large(error), ttl)
            raise

    def _get(self, message_key: str) -> Any:
        data = self._results.get(message_key)
        return Missing if data is None else self.encoder.decode(data)

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        self._results.put(message_key, self.encoder.encode(result), ttl / 1_000, _patience())


def _patience() -> timedelta | None:
    """Return the deadline of a publish of this thread; None: the client's.

    Whatever a worker's thread stores may be the retry, the result, or the next in a pipeline, of what it acks
    next: Dramatiq logs an error of that, and acks.
    """
    return PATIENCE if isinstance(threading.current_thread(), WorkerThread) else None
