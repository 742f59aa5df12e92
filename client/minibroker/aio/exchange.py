"""An exchange as the application sees it: made, bound, published to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from threading import get_ident
from typing import Any, Final

from minibroker.aio.driver import Driver
from minibroker.aio.queue import NO_GROUP, runs_of
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

_NO_TERMS: Final[RouteTerms] = (None, None, None, 0, None)


class Exchange:
    """One exchange of a broker; made by `Broker.exchange`, which asks nothing of the server.

    Who publishes here says a routing key; bindings say which queues get the message (docs/guide/routing.md).
    """

    _bound_as = "target"  # in a binding that leads here
    # A plain publish with the routing key of the one before is only appended to its group.
    _appends = True

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self.name = name
        # Of the newest publish that said no more than this: its routing key, its place, and the group it went to.
        self._routing_key: object = object()  # equal to nothing
        self._where: Key = ("", 0)
        self._latest = NO_GROUP

    async def declare(
        self,
        type: str,
        *,
        unroutable: str | None = None,
        alternate: str | None = None,
        timeout: Span | None = None,
    ) -> ExchangeInfo:
        """Make the exchange, or change what it does with what no binding takes; so a program may at each start.

            await broker.exchange("logs").declare("topic")

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
        return exchange_wishes.read(await self._ask(timeout, wish))

    async def show(self, *, timeout: Span | None = None) -> ExchangeInfo:
        """Return what the server has of it; UnknownExchange if there is none."""
        (found,) = exchange_wishes.read_page(
            await self._ask(timeout, exchange_wishes.one(self.name))
        )
        return found

    async def delete(self, *, timeout: Span | None = None) -> bool:
        """End it, with its bindings and those that lead to it; return whether it was there. Queues stay."""
        return bool((await self._ask(timeout, exchange_wishes.delete(self.name)))["deleted"])

    async def bind(self, to: Any, pattern: str = "", *, timeout: Span | None = None) -> bool:
        """Let it lead to a queue, given by its name or as a `Queue`, or to another `Exchange`.

            await logs.bind("errors", "*.error")

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
        return bool((await self._ask(timeout, wish))["created"])

    async def unbind(self, to: Any, pattern: str = "", *, timeout: Span | None = None) -> bool:
        """End a binding, named as `bind` made it; return whether it was there. What it led to a queue stays there.

        Raises:
            TypeError, BadName, BadValue, ValueError, UnknownExchange: as `bind`.
        """
        wish = exchange_wishes.bind("unbind", self.name, to, pattern, self._driver)
        return bool((await self._ask(timeout, wish))["deleted"])

    async def bindings(self, *, timeout: Span | None = None) -> list[Binding]:
        """Return its bindings; very many are asked for page by page. UnknownExchange if it is not there."""
        by_ms = now_ms() + timeout_ms(timeout, self._driver.timeout_ms)
        found: list[Binding] = []
        after: bytes | None = b""
        while after is not None:
            wish = exchange_wishes.bindings_page(self.name, after)
            page = await self._ask(max(0, by_ms - now_ms()) / 1_000, wish)
            found += exchange_wishes.read_bindings(page)
            after = page.get("next")
        return found

    async def publish(
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

            routed = await logs.publish("disk full", routing_key="kern.critical")

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
        driver = self._driver
        is_plain = (
            type(body) is bytes and headers is None and match is None and key is None and delay is None
            and priority == 0 and max_attempts is None and lease is None and ttl is None and timeout is None
            and get_ident() == driver.thread
        )  # fmt: skip
        if is_plain and routing_key == self._routing_key:  # as `Queue.publish` does
            group = self._latest
            if len(body) > group.plain_bytes:
                group = self._latest = self._group_for_plain(len(body))
            if group is not NO_GROUP:
                future: asyncio.Future[Routed] = driver.create_future()
                group.waiters.append(future)
                group.blob.append(body)
                if len(group.waiters) >= GROUP_MESSAGES:
                    driver.group_is_full(group.where)
                elif not driver.scheduled:
                    driver.schedule()
                return await future
        matched = exchange_wishes.matched(headers, match)
        terms = timeout, max_attempts, lease, priority, ttl
        return await self._publish(body, routing_key, headers, matched, key, delay, terms)

    async def _publish(
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
        if self._appends and not matched and terms == _NO_TERMS:
            self._routing_key, self._where, self._latest = routing_key, where, NO_GROUP
        some = wishes.ready(body, headers, key, delay, driver.session.max_message_bytes)
        group = self._group(where, 1, some.cost)
        future = driver.create_future()
        group.add(future, *some[:-2])
        self._filled(group)
        routed: Routed = await future
        return routed

    async def publish_many(
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
        return await self._publish_many(bodies, routing_key, headers, matched, key, delay, terms)

    async def _publish_many(
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
        driver.check_open()
        calls = []
        most = driver.session.outbox.group_bytes
        for first, stop in wishes.chunks(many.bodies, many.each, most):
            some, count = many.bodies[first:stop], stop - first
            try:
                group = self._group(where, count, sum(map(len, some)) + count * many.each)
            except NotSent as error:
                raise none_of(error, len(many.bodies)) from None
            future: asyncio.Future[RoutedRun] = driver.create_future()
            calls.append((future, count, group))
            encodings = many.encodings[first:stop]
            group.add_many(future, many.headers, some, encodings, many.key, many.delay_ms)
            self._filled(group)
        return [run.confirm(at) for run in await runs_of(calls) for at in range(run.messages)]

    def _group_for_plain(self, size: int) -> PublishGroup:
        """Return the open group of the newest plain publish if such a one may be appended, else `NO_GROUP`."""
        session = self._driver.session
        outbox = session.outbox
        if size > outbox.plain_bytes or not session.is_open:
            return NO_GROUP
        group = outbox.open.get(self._where) or self._open_group(self._where)
        return group if size <= group.plain_bytes else NO_GROUP

    def _group(self, where: Key, count: int, cost: int) -> PublishGroup:
        """Return the open group, or another if it has no room for `count` messages of `cost` bytes."""
        self._driver.check_open()
        outbox = self._driver.session.outbox
        group = outbox.open.get(where)
        if group is None or not group.takes(count, cost, outbox.group_bytes):
            group = self._open_group(where)
        return group

    def _open_group(self, where: Key) -> PublishGroup:
        self._driver.check_open()
        return self._driver.machine.publishes.open_group(where, now_ms(), RouteGroup)

    def _filled(self, group: PublishGroup) -> None:
        driver = self._driver
        if group.count >= GROUP_MESSAGES or group.cost >= driver.session.outbox.group_bytes:
            driver.group_is_full(group.where)
        else:
            driver.schedule()

    async def _ask(self, timeout: Span | None, wish: Wish) -> Any:
        op, fields, columns = wish
        within_ms = timeout_ms(timeout, self._driver.timeout_ms)
        return await self._driver.request(op, fields, within_ms, columns)

    def __repr__(self) -> str:
        return f"<Exchange {self.name}>"
