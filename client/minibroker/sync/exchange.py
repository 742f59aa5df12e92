"""An exchange as the application sees it: made, bound, published to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minibroker.contract.confirms import Routed, RoutedRun
from minibroker.contract.errors import NotSent
from minibroker.session import exchange_wishes, wishes
from minibroker.session.exchange_wishes import (
    Binding,
    ExchangeInfo,
    Match,
    Matched,
    RouteTerms,
)
from minibroker.session.outbox import GROUP_MESSAGES, Key, PublishGroup
from minibroker.session.publishes import none_of
from minibroker.session.route_groups import RouteGroup
from minibroker.session.spans import Span
from minibroker.session.wishes import Wish, timeout_ms
from minibroker.shell.monotonic import now_ms
from minibroker.sync.driver import Driver
from minibroker.sync.queue import runs_of
from minibroker.sync.waiter import Waiter


class Exchange:
    """One exchange of a broker; made by `Broker.exchange`, which asks nothing of the server.

    Who publishes here says a routing key; bindings say which queues get the message (docs/guide/routing.md).
    """

    _bound_as = "target"  # in a binding that leads here

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self.name = name

    def declare(
        self,
        type: str,
        *,
        unroutable: str | None = None,
        alternate: str | None = None,
        timeout: Span | None = None,
    ) -> ExchangeInfo:
        """Make the exchange, or change what it does with what no binding takes; so a program may at each start.

            broker.exchange("logs").declare("topic")

        Args:
            type: "direct" (a binding takes its own routing key), "topic" (its pattern, with * for a word and # for
                any), "fanout" (everything), "headers" (by `match`), "hash" (each routing key has one queue).
            unroutable: of a message that no binding takes: "refuse" (its publish raises Unroutable; a new exchange
                does) or "drop". None: as it is.
            alternate: the exchange that is asked before that, which must be there; "": none. None: as it is.
            timeout: deadline of this call.

        Raises:
            TypeError, BadName, BadValue: no such exchange can be, or it is there, and of another type.
            UnknownExchange: there is no such alternate.
            LimitReached: there are 10,000.
        """
        wish = exchange_wishes.declare(self.name, type, unroutable, alternate)
        return exchange_wishes.read(self._ask(timeout, wish))

    def show(self, *, timeout: Span | None = None) -> ExchangeInfo:
        """Return what the server has of it; UnknownExchange if there is none."""
        (found,) = exchange_wishes.read_page(self._ask(timeout, exchange_wishes.one(self.name)))
        return found

    def delete(self, *, timeout: Span | None = None) -> bool:
        """End it, with its bindings and those that lead to it; return whether it was there. Queues stay."""
        return bool((self._ask(timeout, exchange_wishes.delete(self.name)))["deleted"])

    def bind(self, to: Any, pattern: str = "", *, timeout: Span | None = None) -> bool:
        """Let it lead to a queue, given by its name or as a `Queue`, or to another `Exchange`.

            logs.bind("errors", "*.error")

        Returns whether the binding is new. A queue that is not there is made.

        Args:
            to: where messages go.
            pattern: what the binding takes: a routing key (direct), words with `*` and `#` between dots (topic),
                "all" or "any" and then name=value or name (headers), a weight of 1 to 1,000 (hash); fanout: none.
            timeout: deadline of this call.

        Raises:
            TypeError, BadName, BadValue: it can be no binding of this exchange.
            ValueError: `to` is of another connection.
            UnknownExchange, UnknownQueue: one of them is not there, and is not made by its use.
            LimitReached: there are 100,000 bindings.
        """
        wish = exchange_wishes.bind("bind", self.name, to, pattern, self._driver)
        return bool((self._ask(timeout, wish))["created"])

    def unbind(self, to: Any, pattern: str = "", *, timeout: Span | None = None) -> bool:
        """End a binding, named as `bind` made it; return whether it was there. What it led to a queue stays there.

        Raises:
            TypeError, BadName, BadValue, ValueError, UnknownExchange: as `bind`.
        """
        wish = exchange_wishes.bind("unbind", self.name, to, pattern, self._driver)
        return bool((self._ask(timeout, wish))["deleted"])

    def bindings(self, *, timeout: Span | None = None) -> list[Binding]:
        """Return its bindings; very many are asked for page by page. UnknownExchange if it is not there."""
        by_ms = now_ms() + timeout_ms(timeout, self._driver.timeout_ms)
        found: list[Binding] = []
        after: bytes | None = b""
        while after is not None:
            wish = exchange_wishes.bindings_page(self.name, after)
            page = self._ask(max(0, by_ms - now_ms()) / 1_000, wish)
            found += exchange_wishes.read_bindings(page)
            after = page.get("next")
        return found

    def publish(
        self,
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
        timeout: Span | None = None,
    ) -> Routed:
        """Store one message in every queue that the bindings lead to, or in none; return where it is.

            routed = logs.publish("disk full", routing_key="kern.critical")

        A queue that several bindings reach gets one copy. What one caller publishes here comes to each queue in
        the order of the calls.

        Args:
            body, headers, key, delay, max_attempts, lease, priority, ttl: as for `Queue.publish`.
            routing_key: what the bindings of direct, topic and hash exchanges look at; 255 bytes at most.
            match: what those of headers exchanges look at, a dict of str to str or int. None: those of `headers`
                that are str or int. Publishes that differ in it, or in the routing key, share no frame.
            timeout: deadline of this call.

        Raises:
            TypeError, BadName, BadValue, TooLarge: it cannot be sent; nothing was.
            UnknownExchange: there is no such exchange.
            Unroutable: no binding takes it, and the exchange does not drop what nobody takes.
            LimitReached: it would go to more than 1,000 queues.
            NotSent, OutcomeUnknown: the deadline passed before it was written; or before its confirm came.
            Busy, DiskFull, QueueFull, ...: a queue, or the server, had no room, or refused it; nothing was stored.
        """
        matched = exchange_wishes.matched(headers, match)
        terms = timeout, max_attempts, lease, priority, ttl
        return self._publish(body, routing_key, headers, matched, key, delay, terms)

    def _publish(
        self,
        body: Any,
        routing_key: str,
        headers: Mapping[str, object] | None,
        matched: Matched,
        key: str | None,
        delay: Span | None,
        terms: RouteTerms,
    ) -> Routed:
        driver = self._driver
        where = exchange_wishes.route_place(
            self.name, routing_key, matched, driver.timeout_ms, terms
        )
        some = wishes.ready(body, headers, key, delay, driver.session.max_message_bytes)
        waiter = Waiter()
        try:
            now = driver.__enter__()
            waiter.owner = driver.machine
            self._group(where, 1, some.cost, now).add(waiter, *some[:-2])
            flush = not driver.is_busy()
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush)
        routed: Routed = driver.wait(waiter)
        return routed

    def publish_many(
        self,
        bodies: Iterable[Any],
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
        timeout: Span | None = None,
    ) -> list[Routed]:
        """Store many messages that share all but their bodies; return where each is, in order.

        They leave in frames of at most 500, each stored as a whole or not at all. If one fails, its error says
        what became of each body, as that of `Queue.publish_many` does; `error.confirms` has a `Routed` for each.

        Raises:
            LimitReached: more than 10,000 of the oldest messages might leave full queues for those of a frame.
            ...: what `publish` raises.
        """
        matched = exchange_wishes.matched(headers, match)
        terms = timeout, max_attempts, lease, priority, ttl
        return self._publish_many(bodies, routing_key, headers, matched, key, delay, terms)

    def _publish_many(
        self,
        bodies: Iterable[Any],
        routing_key: str,
        headers: Mapping[str, object] | None,
        matched: Matched,
        key: str | None,
        delay: Span | None,
        terms: RouteTerms,
    ) -> list[Routed]:
        driver = self._driver
        where = exchange_wishes.route_place(
            self.name, routing_key, matched, driver.timeout_ms, terms
        )
        most = driver.session.max_message_bytes
        many = wishes.ready_many(bodies, headers, key, delay, most)
        calls = []
        with driver as now:
            most = driver.session.outbox.group_bytes
            for first, stop in wishes.chunks(many.bodies, many.each, most):
                some, count = many.bodies[first:stop], stop - first
                size = sum(map(len, some)) + count * many.each
                try:
                    group = self._group(where, count, size, now)
                except NotSent as error:
                    raise none_of(error, len(many.bodies)) from None
                waiter = Waiter(driver.machine)
                calls.append((waiter, count, group))
                encodings = many.encodings[first:stop]
                group.add_many(waiter, many.headers, some, encodings, many.key, many.delay_ms)
                if group.count >= GROUP_MESSAGES or group.cost >= most:
                    driver.session.outbox.close(where)
        runs: list[RoutedRun] = runs_of(driver, calls)
        return [run.confirm(at) for run in runs for at in range(run.messages)]

    def _group(self, where: Key, count: int, cost: int, now: int) -> PublishGroup:
        """Return a group that takes `count` messages of together `cost` bytes; within a step."""
        machine = self._driver.machine
        machine.check_open()
        outbox = machine.session.outbox
        group = outbox.open.get(where)
        if group is None or not group.takes(count, cost, outbox.group_bytes):
            group = machine.publishes.open_group(where, now, RouteGroup)
        return group

    def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return self._driver.request(op, fields, within_ms, columns)

    def __repr__(self) -> str:
        return f"<Exchange {self.name}>"
