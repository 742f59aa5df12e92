"""Exchanges and their bindings: where a message goes that is published with a routing key (decision 64).

Both stand in entries of what is kept (kept.py). A binding has numbers of queues and exchanges, not their names:
what leads to one that is gone, or from it, is ended in steps, and becomes no binding of one that gets its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from math import log
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple

from minibroker.contract.exchange_commands import (
    DIRECT,
    EXCHANGE_TYPES,
    FANOUT,
    HASH,
    HEADERS,
    REFUSE,
    TOPIC,
    UNROUTABLE,
)
from minibroker.contract.limits import GROUP_MARK
from minibrokerd.core.model.footprints import BINDING_BYTES, TOPIC_NODE_BYTES
from minibrokerd.core.model.kept import BINDING, EXCHANGE
from minibrokerd.core.model.keys import in_steps
from minibrokerd.core.model.ordered import Ordered
from minibrokerd.core.model.topics import Topics

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store

MOST_LOOKS: Final = 20_000  # at bindings, for one message
MOST_REMEMBERED: Final = 1_000  # routing keys of an exchange, with what they came to,
MOST_REMEMBERED_BINDINGS: Final = 20_000  # which are so many bindings in all
END_LOOKS: Final = 10  # what one binding that ends counts: a record, and four places that it leaves
ALL, SOME = HEADERS_MODES = "all", "any"
MAX_WEIGHT: Final = 1_000
_WEIGHTS: Final = frozenset(map(str, range(1, MAX_WEIGHT + 1)))

Headers = Mapping[str, int | str]


class Binding(NamedTuple):
    """A way from an exchange to a queue, or to another exchange; each by its number, 0: to none."""

    exchange: int
    queue: int
    target: int
    pattern: str


class Exchange:
    """One exchange: its type, its bindings in order, and what becomes of what none of them takes."""

    __slots__ = ("_patterns", "_remembered", "_remembered_count", "alternate", "bindings", "name", "number",
        "refused_count", "routed", "told", "topics", "type", "unroutable", "unroutable_count")  # fmt: skip

    def __init__(
        self, number: int, name: str, type: str, unroutable: str = REFUSE, alternate: str = ""
    ) -> None:
        self.number = number
        self.name = name
        self.type = type
        self.unroutable = unroutable
        self.alternate = alternate
        self.bindings: Ordered[Binding] = Ordered()
        self.routed = 0  # messages that came here, in this run, and found a queue
        self.unroutable_count = 0  # those that did not, and were dropped,
        self.refused_count = 0  # or refused
        self.told = ""  # the queues that the newest one went to, as its confirm names them
        self.topics: Topics[Binding] = Topics()
        self._patterns: dict[str, dict[Binding, None]] = {}
        self._remembered: dict[str, list[Binding] | None] = {}
        self._remembered_count = 0  # of bindings in it

    def add(self, binding: Binding) -> None:
        """Enter a binding that is not here."""
        self.bindings.add(binding)
        self._forget()
        if self.type == TOPIC:
            self.topics.add(binding.pattern, binding)
        else:
            self._patterns.setdefault(binding.pattern, {})[binding] = None

    def remove(self, binding: Binding) -> None:
        """Take a binding out that is here."""
        self.bindings.remove(binding)
        self._forget()
        if self.type == TOPIC:
            self.topics.remove(binding.pattern, binding)
            return
        some = self._patterns[binding.pattern]
        del some[binding]
        if not some:
            del self._patterns[binding.pattern]

    def match(self, routing_key: str, headers: Headers) -> list[Binding] | None:
        """Return the bindings that take a message, which nobody may change; None: there is too much to look at."""
        if self.type == HEADERS:
            return [
                binding
                for pattern, some in self._patterns.items()
                if takes_headers(pattern, headers)
                for binding in some
            ]
        if self.type == FANOUT:
            routing_key = ""
        if routing_key not in self._remembered:
            found = self._match(routing_key)
            count = 0 if found is None else len(found)
            if (
                len(self._remembered) >= MOST_REMEMBERED
                or self._remembered_count + count > MOST_REMEMBERED_BINDINGS
            ):
                self._forget()
            self._remembered[routing_key] = found
            self._remembered_count += count
        return self._remembered[routing_key]

    def _forget(self) -> None:
        self._remembered.clear()
        self._remembered_count = 0

    def _match(self, routing_key: str) -> list[Binding] | None:
        if self.type == TOPIC:
            return self.topics.match(routing_key)
        if self.type == FANOUT:
            return list(self.bindings) if len(self.bindings) <= MOST_LOOKS else None
        if self.type == DIRECT:
            return list(self._patterns.get(routing_key, ()))
        assert self.type == HASH
        return (
            [max(self.bindings, key=lambda one: _score(one, routing_key))] if self.bindings else []
        )

    def counts(self) -> tuple[int, int, int]:
        """Return how many messages that came here found a queue, were dropped, and were refused."""
        return self.routed, self.unroutable_count, self.refused_count

    def value(self) -> tuple[int, bytes, bytes, bytes]:
        """Return what its entry has."""
        return self.number, self.type.encode(), self.unroutable.encode(), self.alternate.encode()


def _score(binding: Binding, routing_key: str) -> float:
    """Return how much a binding wants a routing key, by rendezvous hashing with weights.

    When one comes or goes, only the keys that it wins or had move. Of uniform numbers u, -w / ln(u) is largest
    for each in proportion to its weight w.
    """
    text = f"{binding.queue}\0{binding.target}\0{routing_key}".encode()
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 12
    return -int(binding.pattern or 1) / log((number + 0.5) / 2**52)  # neither 0 nor 1


# ---- patterns of headers ----


def takes_headers(pattern: str, headers: Headers) -> bool:
    """Whether a pattern of headers takes a message that has these: all of its pairs, or any of them.

    A number and its digits are alike: a pattern is text.
    """
    mode, pairs = pairs_of(pattern)
    has = (
        name in headers and (value is None or str(headers[name]) == value) for name, value in pairs
    )
    return all(has) if mode == ALL else any(has)


@lru_cache(10_000)
def pairs_of(pattern: str) -> tuple[str, list[tuple[str, str | None]]]:
    """Return the mode of a pattern of headers, and its pairs; a value of None: the header is there.

    Raises:
        ValueError: it is not `all` or `any`, and then `name=value` or `name`, with spaces between them.
    """
    mode, *rest = pattern.split(" ")
    if mode not in HEADERS_MODES or "" in rest:
        raise ValueError(
            f"{pattern!r} is no pattern of headers; one is `all` or `any`, and then name=value or name, "
            "with a space between them"
        )
    pairs = []
    for each in rest:
        name, equals, value = each.partition("=")
        pairs.append((name, value if equals else None))
    return mode, pairs


def check_pattern(type: str, pattern: str) -> None:
    """Check the pattern of a binding of an exchange of this type.

    Raises:
        ValueError: it is none; the text says what it should be.
    """
    if type == HEADERS:
        pairs_of(pattern)
    elif type == HASH and pattern and pattern not in _WEIGHTS:
        raise ValueError(
            f"{pattern!r} is no weight of an exchange of type hash; one is 1 to {MAX_WEIGHT}"
        )
    elif type == FANOUT and pattern:
        raise ValueError("an exchange of type fanout has no patterns: each binding takes all")


# ---- all of them ----


class Exchanges:
    """All exchanges by name; how many bindings they have, and nodes of the tries of their patterns."""

    __slots__ = (
        "_leading",
        "_next_number",
        "_owners",
        "bindings",
        "by_name",
        "by_number",
        "ended_counts",
        "last_batch",
        "nodes",
    )

    def __init__(self) -> None:
        self.by_name: dict[str, Exchange] = {}
        self.by_number: dict[int, Exchange] = {}
        self.bindings = 0
        self.nodes = 0
        self.ended_counts = (0, 0, 0)  # of exchanges that ended, together
        self.last_batch = 0  # has the newest record of any
        self._next_number = 1
        self._owners: dict[
            int, Exchange
        ] = {}  # by number, with those that ended while their bindings do
        # Bindings by what they lead to: a queue (True), or an exchange.
        self._leading: dict[tuple[bool, int], dict[Binding, None]] = {}

    def counts(self) -> tuple[int, int, int]:
        """Return the counts of all exchanges together, also of those that ended."""
        every = [self.ended_counts, *(each.counts() for each in self.by_name.values())]
        routed, dropped, refused = map(sum, zip(*every, strict=True))
        return routed, dropped, refused

    @property
    def memory_bytes(self) -> int:
        """About how many bytes bindings take of memory, beside what is kept of them."""
        return BINDING_BYTES * self.bindings + TOPIC_NODE_BYTES * self.nodes

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay; ValueError if it cannot be understood."""
        for entry in store.kept.of(EXCHANGE):
            number, *texts = entry.value
            type, unroutable, alternate = (bytes(each).decode() for each in texts)
            if type not in EXCHANGE_TYPES or unroutable not in UNROUTABLE:
                raise ValueError(f"an exchange is of type {type!r:.100}, and {unroutable!r:.100}")
            self._enter(Exchange(int(number), str(entry.key[0]), type, unroutable, alternate))
        for entry in list(store.kept.of(BINDING)):
            binding = Binding(*entry.key)  # type: ignore[arg-type]
            self._next_number = max(self._next_number, binding.exchange + 1, binding.target + 1)
            exchange = self.by_number.get(binding.exchange)
            if exchange is None or not self._is_there(store, binding):
                # What it leads to, or from, was deleted since, or no publish may go there.
                store.kept.forget(BINDING, binding)
                continue
            check_pattern(exchange.type, binding.pattern)
            self._bound(exchange, binding)

    def make(self, store: Store, name: str, type: str, unroutable: str, alternate: str) -> None:
        """Make an exchange of a name that none has."""
        self._enter(Exchange(self._next_number, name, type, unroutable, alternate))
        self.write(store, self.by_name[name])

    def write(self, store: Store, exchange: Exchange) -> None:
        """Let an exchange stand as it is now, over a restart, too."""
        store.kept.put(store, EXCHANGE, (exchange.name,), exchange.value())
        self.last_batch = store.open_batch

    def end(self, store: Store, exchange: Exchange) -> None:
        """Let an exchange stand no more, nor its bindings, nor those that lead to it."""
        del self.by_name[exchange.name]
        del self.by_number[exchange.number]
        routed, dropped, refused = map(add, self.ended_counts, exchange.counts())
        self.ended_counts = routed, dropped, refused
        store.kept.end(store, EXCHANGE, (exchange.name,))
        self.last_batch = store.open_batch
        leading = self._leading.get((False, exchange.number), ())

        def work() -> Iterator[int]:
            yield from self._end_all(store, [*exchange.bindings, *leading])
            del self._owners[exchange.number]

        in_steps(store, work())

    def queue_gone(self, store: Store, number: int) -> None:
        """Let no binding lead to a queue that ended."""
        leading = self._leading.get((True, number))
        if leading:
            in_steps(store, self._end_all(store, list(leading)))

    def bind(self, store: Store, exchange: Exchange, binding: Binding) -> None:
        """Let a binding stand that does not."""
        store.kept.put(store, BINDING, binding, ())
        self.last_batch = store.open_batch
        self._bound(exchange, binding)

    def unbind(self, store: Store, binding: Binding) -> None:
        """Let a binding stand no more, if it does."""
        if store.kept.get(store, BINDING, binding) is None:
            return
        store.kept.end(store, BINDING, binding)
        self.last_batch = store.open_batch
        self._unbound(self._owners[binding.exchange], binding)

    def _enter(self, exchange: Exchange) -> None:
        self._owners[exchange.number] = exchange
        self.by_name[exchange.name] = self.by_number[exchange.number] = exchange
        self._next_number = max(self._next_number, exchange.number + 1)

    def _bound(self, exchange: Exchange, binding: Binding) -> None:
        self.nodes -= exchange.topics.nodes
        exchange.add(binding)
        self.nodes += exchange.topics.nodes
        self.bindings += 1
        self._leading.setdefault(_place_of(binding), {})[binding] = None

    def _unbound(self, exchange: Exchange, binding: Binding) -> None:
        self.nodes -= exchange.topics.nodes
        exchange.remove(binding)
        self.nodes += exchange.topics.nodes
        self.bindings -= 1
        place = _place_of(binding)
        some = self._leading[place]
        del some[binding]
        if not some:
            del self._leading[place]

    def _is_there(self, store: Store, binding: Binding) -> bool:
        if binding.queue:
            queue = store.by_number.get(binding.queue)
            # One to a group of a log, which `bind` took once: every publish to its exchange was refused.
            return queue is not None and GROUP_MARK not in queue.name
        return binding.target in self.by_number

    def _end_all(self, store: Store, bindings: list[Binding]) -> Iterator[int]:
        while bindings:  # which are let go one by one, too
            self.unbind(store, bindings.pop())
            yield END_LOOKS


def _place_of(binding: Binding) -> tuple[bool, int]:
    return bool(binding.queue), binding.queue or binding.target


def queues_of(
    store: Store, exchange: Exchange, routing_key: str, headers: Headers, most: int
) -> list[Queue] | None:
    """Return the queues that a message goes to, each once; None: more than `most`, or too much to look at.

    An exchange of which no binding takes it asks its alternate, as in AMQP. Each is asked once: circles end.
    """
    known = store.exchanges
    found: dict[int, Queue] = {}
    asked = {exchange.number}
    line, looks = [exchange], 0
    while line:
        current = line.pop()
        bindings = current.match(routing_key, headers)
        looks += 1 if bindings is None else len(bindings)
        if bindings is None or looks > MOST_LOOKS:
            return None
        is_taken = False
        for binding in bindings:
            if binding.queue:
                queue = store.by_number.get(binding.queue)
                if queue is not None:
                    found[queue.number] = queue
                    is_taken = True
                continue
            target = known.by_number.get(binding.target)
            if target is not None:
                is_taken = True
                if target.number not in asked:
                    asked.add(target.number)
                    line.append(target)
        alternate = None if is_taken else known.by_name.get(current.alternate)
        if alternate is not None and alternate.number not in asked:
            asked.add(alternate.number)
            line.append(alternate)
        if len(found) > most:
            return None
    return list(found.values())
