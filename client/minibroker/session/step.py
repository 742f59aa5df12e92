"""What an application says in a step: acks and what follows from them. Nothing of it is sent before its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.confirms import Confirms, MessageId, Routed
from minibroker.contract.errors import BadValue, TooLarge
from minibroker.session import wishes
from minibroker.session.after import DEAD_LETTER, AfterGroup, alone
from minibroker.session.exchange_wishes import Match, matched, route_place
from minibroker.session.exchange_wishes import check_name as check_exchange
from minibroker.session.message import MessageData
from minibroker.session.outbox import PublishGroup
from minibroker.session.result_wish import completion
from minibroker.session.route_groups import RouteGroup
from minibroker.session.settlements import ENDED, Settlement
from minibroker.session.spans import Span, shown
from minibroker.session.step_frame import StepFrame
from minibroker.session.typed import make_all

# As `wishes.place` takes them: attempts, lease, priority, mode of unique keys, window of dedupe ids, time to live.
Terms = tuple[int | None, Span | None, int, str, Span | None, Span | None]
# A message as it was said: queue, body, headers, key, delay and terms.
Said = tuple[Any, Any, Mapping[str, object] | None, str | None, Span | None, Terms]
TWICE: Final = "this step is over; begin another one"


class StepData:
    """What happens at once, or not at all; nothing is sent before its end."""

    def __init__(self, driver: Any, timeout: Span | None) -> None:
        self._driver = driver
        self._timeout_ms = wishes.timeout_ms(timeout, driver.timeout_ms)
        self._messages: dict[MessageData[Any], Settlement | None] = {}
        self._groups: list[PublishGroup] = []
        self._newest: dict[str, PublishGroup] = {}  # of each queue
        self._calls: list[tuple[int, int, int]] = []  # group, first message in it, count
        self._count = 0
        self._may_be_there = False  # one of what it publishes, already
        self._is_over = False
        self._confirms = Confirms(())
        self._routes: list[tuple[int, int]] = []  # group, message in it
        self._routed: list[Routed] = []

    @property
    def confirms(self) -> Confirms:
        """The confirms of what it published, in the order of the calls; none before its end."""
        return self._confirms

    @property
    def routed(self) -> list[Routed]:
        """Where what it published to exchanges is, in the order of the calls; none before its end."""
        return self._routed

    def ack(self, message: MessageData[Any]) -> None:
        """Say that the work on a message is done, if the step comes to its end.

        Raises:
            LeaseLost: the lease has ended, or the message was settled before.
            ValueError: it was delivered to another connection.
        """
        self._check()
        if message.run.delivery.shell is not self._driver:
            raise ValueError(f"{message!r} was delivered to another connection than this step's")
        if message.state == ENDED:
            raise message.lost_error()
        self._messages[message] = None

    def result(
        self, value: Any, *, kept: Span | None = None, message: MessageData[Any] | None = None
    ) -> None:
        """Say what a message of the step came to; `kept` and the value are as `Message.complete` has them.

        Raises:
            ValueError: the step does not ack one message alone, and `message` is none of those that it acks.
            TypeError, BadValue, TooLarge: it can be no result.
        """
        self._check()
        if message is None and len(self._messages) == 1:
            [message] = self._messages
        if message is None or message not in self._messages:
            raise ValueError(
                "say of which message of the step this is the result, and ack that first"
            )
        self._messages[message] = completion(message, value, kept)

    def publish(
        self,
        queue: Any,
        body: Any,
        *,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        unique_key: str | None = None,
        unique: str = wishes.DROP,
        dedupe_id: str | None = None,
        dedupe_window: Span | None = None,
        ttl: Span | None = None,
        after: Iterable[MessageId] | None = None,
        if_dead: str = DEAD_LETTER,
    ) -> None:
        """Store a message in a queue, given by its name or as a `Queue`; the rest is as `Queue.publish` has it.

        Args:
            unique_key, unique, dedupe_id, dedupe_window: as `Queue.publish` has them. What the step acks holds its
                key no more, and what it publishes before holds it already; `confirms` says which was a duplicate.
            after: it waits until all messages of these ids have ended, of whatever queues; `delay` begins then.
            if_dead: what becomes of it if some of them did not end as done: it goes to the dead-letter queue,
                or is "run", and `message.after` says how many did.

        Raises:
            TypeError, BadValue, TooLarge: it cannot be sent, and is no part of the step.
        """
        terms = max_attempts, lease, priority, unique, dedupe_window, ttl
        comes = None
        if after is not None or if_dead != DEAD_LETTER:
            comes = alone((after, if_dead, unique_key, dedupe_id))
        self._publish(queue, body, headers, key, delay, terms, comes, unique_key, dedupe_id)

    def say(self, said: Said, comes: tuple[list[MessageId], bool, str]) -> None:
        """Store a message as `Queue.publish` was asked to, after others."""
        self._publish(*said, comes)

    def then(
        self,
        queue: Any,
        body: Any,
        *,
        after: Iterable[MessageId] = (),
        if_dead: str = DEAD_LETTER,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        ttl: Span | None = None,
    ) -> None:
        """Store a message that waits until all have ended that this step publishes before it; see `publish`.

        Raises:
            ValueError: the step has published nothing yet, and `after` names nothing.
            BadValue: what stands before it has a unique key or a dedupe id, so it may be another's message.
            TypeError, BadValue, TooLarge: as `publish`.
        """
        named = list(after)
        if not (self._calls or named):
            raise ValueError("this step has published nothing that a message could come after")
        if self._may_be_there:
            raise BadValue(
                "what a message comes after by `then` has no unique_key, and no dedupe_id; leave them out"
            )
        terms = max_attempts, lease, priority, wishes.DROP, None, ttl
        self._publish(queue, body, headers, key, delay, terms, (named, bool(self._calls), if_dead))

    def route(
        self,
        exchange: Any,
        body: Any,
        *,
        routing_key: str = "",
        headers: Mapping[str, object] | None = None,
        match: Match | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        ttl: Span | None = None,
    ) -> None:
        """Publish a message to an exchange, given by its name or as an `Exchange`; as `Exchange.publish` has it.

        Where it went stands in `routed` behind the step's end. What comes `then` does not wait for it.

        Raises:
            TypeError, BadName, BadValue, TooLarge: it cannot be sent, and is no part of the step.
        """
        self._check()
        name = self._exchange(exchange)
        terms = self._timeout_ms / 1000, max_attempts, lease, priority, ttl
        where = route_place(name, routing_key, matched(headers, match), 0, terms)
        some = wishes.ready(body, headers, key, delay, self._driver.session.max_message_bytes)
        self._add(1)
        group = self._newest.get(where[0])
        if group is None or group.where != where:
            group = self._newest[where[0]] = RouteGroup(where, 0)
            self._groups.append(group)
        self._routes.append((self._groups.index(group), group.count))
        group.add(None, *some[:-2])

    def _exchange(self, exchange: Any) -> str:
        if isinstance(exchange, str):
            return check_exchange(exchange)
        if getattr(exchange, "_bound_as", None) != "target":
            raise TypeError(
                f"exchange is {shown(exchange)}; it must be the name of one, or an Exchange"
            )
        if exchange._driver is not self._driver:
            raise ValueError(f"{exchange!r} is of another connection than this step's")
        return str(exchange.name)

    def _publish(
        self,
        queue: Any,
        body: Any,
        headers: Mapping[str, object] | None,
        key: str | None,
        delay: Span | None,
        terms: Terms,
        comes: tuple[list[MessageId], bool, str] | None,
        unique_key: str | None = None,
        dedupe_id: str | None = None,
    ) -> None:
        name, made = self._queue(queue)
        most_bytes = self._driver.session.max_message_bytes
        some = wishes.ready(made(body), headers, key, delay, most_bytes, unique_key, dedupe_id)
        group = self._group(name, terms, 1, comes, (unique_key, dedupe_id))
        group.add(None, *some[:-2])
        if some.names is not wishes.NO_NAMES:
            self._name(group, [some.names])

    def publish_many(
        self,
        queue: Any,
        bodies: Iterable[Any],
        *,
        headers: Mapping[str, object] | None = None,
        key: str | None = None,
        delay: Span | None = None,
        max_attempts: int | None = None,
        lease: Span | None = None,
        priority: int = 0,
        unique_keys: Iterable[str] | None = None,
        unique: str = wishes.DROP,
        dedupe_ids: Iterable[str] | None = None,
        dedupe_window: Span | None = None,
        ttl: Span | None = None,
    ) -> None:
        """Store many messages with the same headers, key, delay and terms; see `publish`.

        `unique_keys` and `dedupe_ids` have one for each body.
        """
        name, made = self._queue(queue)
        most_bytes = self._driver.session.max_message_bytes
        raws = make_all(made, bodies)
        many = wishes.ready_many(raws, headers, key, delay, most_bytes, unique_keys, dedupe_ids)
        if many.bodies:
            terms = max_attempts, lease, priority, unique, dedupe_window, ttl
            group = self._group(name, terms, len(many.bodies), names=(unique_keys, dedupe_ids))
            group.add_many(None, many.headers, many.bodies, many.encodings, many.key, many.delay_ms)
            self._name(group, many.names)

    def _name(self, group: PublishGroup, names: Sequence[tuple[bytes, bytes]]) -> None:
        """Give what was added last its unique keys and dedupe ids."""
        group.name_last(names)
        self._may_be_there = self._may_be_there or bool(group.names)

    def _check(self) -> None:
        if self._is_over:
            raise RuntimeError(TWICE)

    def _queue(self, queue: Any) -> tuple[str, Any]:
        """Return the name of a queue, and what makes bodies for it."""
        self._check()
        if isinstance(queue, str):
            return wishes.check_name(queue), _as_it_is
        driver = getattr(queue, "_driver", None)
        if driver is None:
            raise TypeError(f"queue is {queue!r:.200}; it must be the name of a queue, or a Queue")
        if driver is not self._driver:
            raise ValueError(f"{queue!r} is of another connection than this step's")
        return queue.name, queue._made

    def _group(
        self,
        name: str,
        terms: Terms,
        count: int,
        comes: tuple[list[MessageId], bool, str] | None = None,
        names: Sequence[object] = (None, None),
    ) -> PublishGroup:
        where = wishes.place(name, self._timeout_ms / 1000, 0, *terms, names=names)
        self._add(count)
        group = self._newest.get(name)
        if comes is not None:
            ids, of_step, if_dead = comes
            group = AfterGroup(where, ids, of_step=of_step, if_dead=if_dead)
            self._newest.clear()  # what is published next does not stand before it
            self._groups.append(group)
        elif group is None or group.where != where:
            group = self._newest[name] = PublishGroup(where, 0)
            self._groups.append(group)
        self._calls.append((self._groups.index(group), group.count, count))
        return group

    def _add(self, count: int) -> None:
        if self._count + count > limits.MAX_MESSAGES_PER_FRAME:
            raise TooLarge(f"a step publishes at most {limits.MAX_MESSAGES_PER_FRAME} messages")
        self._count += count

    def _frame(self) -> StepFrame | None:
        """End it, and return the frame to be written; None: there is nothing to do."""
        self._check()
        self._is_over = True
        if not self._messages and not self._groups:
            return None
        frame = StepFrame(self._messages, self._groups)
        frame.check(self._driver.session.max_frame_bytes)
        return frame

    def _confirmed(self, runs: Sequence[Any]) -> None:
        self._confirms = Confirms([runs[at].part(first, count) for at, first, count in self._calls])
        self._routed = [runs[at].confirm(index) for at, index in self._routes]


def _as_it_is(body: Any) -> Any:
    return body
