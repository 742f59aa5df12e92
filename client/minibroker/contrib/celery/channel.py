"""A channel of kombu on a blocking client: what is declared, published, consumed and settled through it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from kombu.transport import virtual
from kombu.transport.virtual.base import queue_declare_ok_t

from minibroker.contract.errors import QueueInUse, UnknownExchange, UnknownQueue, Unroutable
from minibroker.contract.limits import MAX_PREFETCH
from minibroker.contrib.celery import envelope
from minibroker.contrib.celery.intake import Fed
from minibroker.contrib.celery.leases import Leases
from minibroker.contrib.celery.names import name_of, settings_of
from minibroker.contrib.celery.once import terms_of
from minibroker.session.settlements import HELD
from minibroker.sync.message import Message

PASSING: Final = 100  # in hand of a consumer without acks
GRACE_S: Final = 0.1  # so long a full channel keeps what it cannot begin; then it is others' turn
TYPES: Final = ("direct", "topic", "fanout")


class Intent:
    """A queue that a channel consumes: while there is no room it may have no consumer at the broker."""

    __slots__ = ("callback", "consumer", "no_ack", "queue")

    def __init__(self, queue: str, no_ack: bool, callback: Callable[[Any], Any]) -> None:
        self.queue = queue
        self.no_ack = no_ack
        self.callback = callback
        self.consumer: Fed | None = None


class Channel(virtual.Channel):
    """What Celery declares, publishes, consumes and acknowledges with."""

    QoS = Leases
    supports_fanout = True
    do_restore = False
    body_encoding = None
    priority_order = "highest-first"
    lease: float | None = None
    max_attempts: int | None = 20
    requeue_delay: float | None = None
    unroutable = "refuse"
    from_transport_options = (
        *virtual.Channel.from_transport_options,
        "lease",
        "max_attempts",
        "priority_order",
        "requeue_delay",
        "unroutable",
    )

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.intents: dict[str, Intent] = {}  # by consumer tag
        self._passing: set[str] = set()  # queues that end with their last consumer
        self._full_since: float | None = None
        self._tags = itertools.count(1)
        self.qos.on_room = self._has_room

    @property
    def _broker(self) -> Any:
        return self.connection.broker

    # ---- what is declared ----

    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: Any = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        """Make an exchange; one that is there as it is asked for stays as it is.

        What is said to all, and what is not to last, as control is, may reach nobody; a task may not.
        """
        type = type or "direct"
        target = self._broker.exchange(name_of(exchange or f"amq.{type}"))
        if passive:
            target.show()
            return
        reaches_nobody = type == "fanout" or not durable
        target.declare(type, unroutable="drop" if reaches_nobody else None)

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """End an exchange, with its bindings."""
        self._broker.exchange(name_of(exchange)).delete()

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        passes = bool(kwargs.get("auto_delete") or kwargs.get("exclusive"))
        settings = settings_of(kwargs.get("arguments"), passes=passes)
        if passes:
            self._passing.add(queue)
        if settings:
            self._broker.queue(name_of(queue), **settings).declared()

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        with suppress(UnknownQueue):
            self._broker.queue(name_of(queue)).settings()
            return True
        return False

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        """Make a queue; how many are in it is asked only where that is the question (`passive`)."""
        if passive:
            return super().queue_declare(queue, passive=True, **kwargs)
        queue = queue or f"amq.gen-{self._next_delivery_tag()}"
        self._new_queue(queue, **kwargs)
        return queue_declare_ok_t(queue, 0, 0)

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Let an exchange lead to a queue; each leads to a queue of its name by itself where none is named."""
        if exchange:
            self._broker.exchange(name_of(exchange)).bind(name_of(queue), routing_key or "")

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """End a binding."""
        with suppress(UnknownExchange):
            self._broker.exchange(name_of(exchange or "")).unbind(name_of(queue), routing_key or "")

    def list_bindings(self) -> Any:
        """Return (queue, exchange, routing key) of all bindings."""
        for each in self._broker.exchanges():
            for binding in self._broker.exchange(each.name).bindings():
                yield binding.queue, each.name, binding.pattern

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """End a queue, with its bindings and what is in it."""
        with suppress(UnknownQueue, QueueInUse):
            self._broker.queue(name_of(queue)).delete(force=not if_empty)

    def _size(self, queue: str) -> int:
        with suppress(UnknownQueue):
            stats = self._broker._driver.request("stats", {"queue": name_of(queue)}, None)
            return int(stats["queues"][name_of(queue)]["ready"])
        return 0

    def _purge(self, queue: str) -> int:
        with suppress(UnknownQueue):
            return int(self._broker.queue(name_of(queue)).purge())
        return 0

    # ---- what is published ----

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> Any:
        """Store a message; return when it is as safe as its queue says."""
        body, headers, terms = envelope.pack(
            message, exchange, routing_key, datetime.now(UTC), self.priority_order == "lowest-first"
        )
        options = terms.options()
        if self.max_attempts is not None:
            options["max_attempts"] = self.max_attempts
        if exchange:
            publish = self._broker.exchange(name_of(exchange)).publish
            options |= {"routing_key": routing_key or "", "match": {}}
        else:
            publish = self._broker.queue(name_of(routing_key)).publish
            options |= terms_of(headers)
        try:
            return _published(publish, body, headers, options)
        except (Unroutable, UnknownExchange):
            if self.unroutable != "drop" and not envelope.is_transient(message):
                raise
            return None  # nobody listens to events, or waits for this reply any more

    # ---- what is consumed ----

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,
        callback: Callable[[Any], Any],
        consumer_tag: str,
        **kwargs: Any,
    ) -> None:
        """Begin to consume; messages come by `Transport.drain_events`."""
        self._tag_to_queue[consumer_tag] = queue
        self._active_queues.append(queue)
        self._consumers.add(consumer_tag)
        intent = self.intents[consumer_tag] = Intent(queue, no_ack, callback)
        self._start(intent)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Consume no more; what has not been delivered to Celery goes back, uncharged."""
        intent = self.intents.pop(consumer_tag, None)
        self._consumers.discard(consumer_tag)
        self._tag_to_queue.pop(consumer_tag, None)
        if intent is None:
            return
        with suppress(ValueError):
            self._active_queues.remove(intent.queue)
        if intent.consumer is not None:
            intent.consumer.retire()
        if intent.queue in self._passing and intent.queue not in self._active_queues:
            self._passing.discard(intent.queue)
            self.queue_delete(intent.queue)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return the next message of a queue, or None."""
        for lease in self._broker.queue(name_of(queue)).receive(1, lease=self.lease):
            payload = self._payload(lease)
            if no_ack:
                lease.ack()
            else:
                self.qos.hold(payload["properties"]["delivery_tag"], lease)
            return self.Message(payload, channel=self)
        return None

    def _start(self, intent: Intent) -> None:
        lease_ms = 0 if self.lease is None else round(self.lease * 1_000)
        intent.consumer = self.connection.intake.consume(
            name_of(intent.queue), self._prefetch(intent), lease_ms
        )

    def _prefetch(self, intent: Intent) -> int:
        if intent.no_ack:
            return PASSING
        return min(self.qos.prefetch_count, MAX_PREFETCH) or MAX_PREFETCH

    def settle_consumers(self, now_s: float) -> float | None:
        """Have consumers as there is room for them; return in how many seconds to look again, None: no need.

        One queue has exactly as much in hand as there is room for. Of several each may have that, so a full
        channel may keep messages that it cannot begin; after a moment it gives them back, and asks anew when it
        has room.
        """
        has_room = self.qos.can_consume()
        if has_room:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now_s
        due_s = None
        for intent in self.intents.values():
            consumer = intent.consumer
            if consumer is None:
                if has_room:
                    self._start(intent)
            elif not has_room and not intent.no_ack and consumer._buffer:
                assert self._full_since is not None, "it is full"
                left_s = self._full_since + GRACE_S - now_s
                if left_s > 0:
                    due_s = left_s
                else:
                    self._give_back_rest(intent, consumer)
            elif consumer.prefetch != (wanted := self._prefetch(intent)) and (
                has_room or wanted < consumer.prefetch
            ):
                self.connection.intake.change(consumer, wanted)
        return due_s

    def _give_back_rest(self, intent: Intent, consumer: Fed) -> None:
        """Ask for no more than Celery has of this queue; what it has not been told of goes back."""
        if consumer._lent:
            self.connection.intake.change(consumer, len(consumer._lent))
            consumer.give_back_rest()
        else:
            consumer.retire()
            intent.consumer = None

    def takes(self, intent: Intent) -> bool:
        """Whether the next message of a queue may be delivered."""
        return intent.no_ack or self.qos.can_consume()

    def deliver(self, intent: Intent, most: int) -> bool:
        """Hand what is there to who consumes: up to `most`, and no more than there is room for."""
        consumer = intent.consumer
        if consumer is None or not consumer._buffer or not self.takes(intent):
            return False
        if intent.no_ack:
            return self._pass_on(intent, consumer.take_now(most))
        room = self.qos.can_consume_max_estimate()
        lent = consumer.lend_now(most if room is None else min(most, room))
        lent.reverse()
        delivered = bool(lent)
        try:
            while lent:
                lease = lent.pop()
                if (
                    lease.state == HELD
                ):  # else the callback of one before has cancelled its consumer
                    self._hand_over(intent, consumer, lease)
        finally:
            for lease in lent:
                consumer.give_back(lease)
        return delivered

    def _pass_on(self, intent: Intent, leases: list[Message[Any]]) -> bool:
        for lease in leases:
            lease.ack()
            intent.callback(self.Message(self._payload(lease), channel=self))
        return bool(leases)

    def _hand_over(self, intent: Intent, consumer: Fed, lease: Message[Any]) -> None:
        """Deliver a message that is lent until its task starts; begun now, if nobody says when that is."""
        payload = self._payload(lease)
        starts = self.connection.tells_start
        if starts is not None and starts(payload["headers"].get("task")):
            self.qos.hold(payload["properties"]["delivery_tag"], lease, consumer)
        elif consumer.begin(lease):
            self.qos.hold(payload["properties"]["delivery_tag"], lease)
        else:
            return
        intent.callback(self.Message(payload, channel=self))

    def _payload(self, lease: Message[Any]) -> dict[str, Any]:
        # A tag of its own for each delivery: what was given back may come again as the same attempt.
        tag = f"{lease.id}/{lease.attempt}/{next(self._tags)}"
        return envelope.unpack(lease.raw, lease.headers, lease.attempt, tag)

    def _has_room(self) -> None:
        connection = self.connection
        if connection is not None and any(
            intent.consumer is None or intent.consumer._buffer
            for intent in list(self.intents.values())
        ):
            connection.intake.wake()

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False
    ) -> None:
        """Have so many in hand from now on; 0: no limit."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        if self.intents:
            self.connection.intake.wake()

    def close(self) -> None:
        """Cancel all consumers, and give back what is in hand."""
        if not self.closed:
            self._full_since = None
        super().close()


def _published(
    publish: Callable[..., Any], body: bytes, headers: dict[str, Any], options: dict[str, Any]
) -> Any:
    try:
        return publish(body, headers=headers, **options)
    except TypeError:  # a header is nothing that msgpack says as it is, and nothing was sent
        return publish(body, headers=envelope.as_json(headers), **options)
