"""ROUTE: a publish to an exchange becomes one record with a target for each queue (decision 64)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from minibroker.contract import limits
from minibroker.contract.exchange_commands import DROP, HEADERS
from minibroker.contract.wire import RUN
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.columns import check_sizes, read_columns, spans_of
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.exchanges import Exchange, queues_of
from minibrokerd.core.model.extents import Extent, Sizes
from minibrokerd.core.model.inputs import Frame, Slice
from minibrokerd.core.model.lifetimes import limit
from minibrokerd.core.model.messages import LAZY, MEMORY, SYNC, Block, Span, terms
from minibrokerd.core.model.policies import lifetime_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import PublishMeta
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.retained import check_published
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.exchanging import named
from minibrokerd.core.verbs.overflowing import MAKES_ROOM, asked_of, check_room, make_room
from minibrokerd.core.verbs.policing import catch_up_queue
from minibrokerd.core.verbs.publishing import enter, reserve_sequences
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES

_EACH_ITS_OWN: Final = ("delay_ms", "key")  # columns with which each message has a place of its own
TARGET_BYTES: Final = 20 + RUN.size  # of the records, for each queue, beside its name


class Routing(NamedTuple):
    """What one part comes to that was checked."""

    store: Store
    frame: Frame
    part: Any
    size: int
    exchange: Exchange
    queues: list[Queue]
    # These by what is said once for a record: whether there is none, and their time to live.
    by_lifetime: dict[tuple[bool, int], list[Queue]]
    extent: Extent
    sizes: Sizes
    columns: dict[str, Any]
    record_bytes: int  # of its records, and that of its outcome, beside those of its frame
    after: None = None  # as of a publish: it comes after nothing


def check_route(
    store: Store, frame: Frame, part: Any, own: Slice, claims: Claims | None
) -> Routing:
    """Return what one route part comes to; nothing is changed. `claims` are of a frame of several parts.

    Raises:
        Refused: `unknown_exchange`, `unroutable`, `limit_reached`; a queue has no room.
        Broken: counts, lengths or columns do not add up.
    """
    count, extent = part.count, own.extent
    assert extent is not None, "the shell makes one of each publish"
    sizes = check_sizes(extent, count, store.sizes.message_bytes)
    columns = read_columns(part, own.columns, count)
    known = part.row.columns
    if part.columns != [name for name in known if name in columns]:
        raise Broken("the columns of a route are those of its table, in its order")
    if len(part.key.encode()) > limits.MAX_KEY_BYTES:
        raise Broken(f"a key exceeds {limits.MAX_KEY_BYTES} bytes")
    if len(part.routing_key.encode()) > limits.MAX_PATTERN_BYTES:
        raise Refused("bad_value", f"a routing key exceeds {limits.MAX_PATTERN_BYTES} bytes")
    exchange = named(store, part.exchange)
    queues = _reached(store, exchange, part, columns)
    if claims is not None and claims.add_targets(len(queues)) > limits.MAX_TARGETS:
        raise Refused(
            "limit_reached",
            f"the parts of a frame are routed to more than {limits.MAX_TARGETS} queues",
        )
    if not queues and exchange.unroutable != DROP:
        exchange.refused_count += count
        raise Refused("unroutable", _why_nowhere(store, exchange, part))
    _look_at(store, queues, frame, extent, part, columns)
    asked = asked_of(sizes, count, None)
    limited = [queue for queue in queues if queue.is_limited]
    if limited:
        _check_leaving(limited, count)
    for queue in limited:
        check_published(queue, part, columns)
        check_room(store, queue, asked if claims is None else claims.add(queue.name, asked))
    by_lifetime = _by_lifetime(part, queues)
    record_bytes = _record_bytes(queues, len(by_lifetime), extent)
    more_bytes = record_bytes if claims is None else claims.add_bytes(record_bytes)
    if frame.size + more_bytes > store.sizes.apply_bytes:
        raise Refused(
            "too_large",
            f"a frame of {frame.size} bytes for {len(queues)} queues, of {len(by_lifetime)} times to live, "
            f"exceeds {store.sizes.apply_bytes} with its records; nothing was stored",
        )
    return Routing(
        store,
        frame,
        part,
        own.size,
        exchange,
        queues,
        by_lifetime,
        extent,
        sizes,
        columns,
        record_bytes,
    )


def _reached(store: Store, exchange: Exchange, part: Any, columns: dict[str, Any]) -> list[Queue]:
    # Messages of one key and delay are one entry in each queue, whatever their number.
    entries = 1 if columns.keys().isdisjoint(_EACH_ITS_OWN) else part.count
    most = min(limits.MAX_TARGETS, limits.MAX_ROUTED // entries)
    queues = queues_of(store, exchange, part.routing_key, part.match, most)
    if queues is None:
        fewer = (
            "publish fewer at a time, or bind fewer queues" if entries > 1 else "bind fewer queues"
        )
        raise Refused(
            "limit_reached",
            f"{part.count} messages with the routing key {part.routing_key!r} would go to more than {most} "
            f"queues; {fewer}",
        )
    return queues


def _check_leaving(limited: list[Queue], count: int) -> None:
    leaving = count * sum(queue.settings["overflow"] in MAKES_ROOM for queue in limited)
    if leaving > limits.MAX_ROUTED:
        raise Refused(
            "limit_reached",
            f"in the queues that {count} messages are routed to, {leaving} might leave for them, more than "
            f"{limits.MAX_ROUTED}; publish fewer at a time",
        )


def _look_at(
    store: Store,
    queues: list[Queue],
    frame: Frame,
    extent: Extent,
    part: Any,
    columns: dict[str, Any],
) -> None:
    """Have queues know their policies before they are asked for room, and look whether what comes fits them."""
    if store.policies.done is not None:
        for queue in queues:
            catch_up_queue(store, queue)
    if store.schemas.by_queue:
        for queue in queues:
            store.schemas.check(queue, frame, extent, part, columns)


def _why_nowhere(store: Store, exchange: Exchange, part: Any) -> str:
    what = (
        f"the headers {part.match}"
        if exchange.type == HEADERS
        else f"the routing key {part.routing_key!r}"
    )
    nobody = f"no binding of the exchange {part.exchange!r} takes {what}"
    help = "Bind a queue, set an alternate exchange, or let it drop what nobody takes"
    if exchange.alternate in store.exchanges.by_name:
        nobody += f", nor does its alternate {exchange.alternate!r}"
    elif exchange.alternate:
        nobody += f", and its alternate {exchange.alternate!r} is not there"
        help = f"Make {exchange.alternate!r}, bind a queue, or let it drop what nobody takes"
    return f"{nobody}; nothing was stored. {help}"


def _by_lifetime(part: Any, queues: list[Queue]) -> dict[tuple[bool, int], list[Queue]]:
    found: dict[tuple[bool, int], list[Queue]] = {}
    for queue in queues:
        ttl_ms = lifetime_of(queue, part.ttl_ms)
        found.setdefault((queue.durability == MEMORY, ttl_ms), []).append(queue)
    return found


def _record_bytes(queues: list[Queue], records: int, extent: Extent) -> int:
    more = max(records - 1, 0)
    targets_bytes = TARGET_BYTES * len(queues) + sum(len(queue.name) for queue in queues)
    return PUBLISH_OVERHEAD_BYTES * (more + 2) + more * extent.size + targets_bytes


def route(work: Routing) -> tuple[Result, Sequence[Run], int]:
    """Apply a route part that was checked: return its result, a run for each queue, and what it rests on."""
    store, part, queues = work.store, work.part, work.queues
    count = part.count
    if not queues:
        work.exchange.unroutable_count += count
        return {"routed": 0, "queues": "", "durability": store.told[MEMORY]}, (), 0
    work.exchange.routed += count
    for queue in queues:
        if queue.is_limited:
            make_room(store, queue, asked_of(work.sizes, count, None))
    written = [queue.durability for queue in queues if queue.durability != MEMORY]
    durability = MEMORY if not written else SYNC if SYNC in written else LAZY
    store.keep_together(work.frame.size + work.record_bytes)
    runs: list[Run] = []
    names: list[str] = []  # in their order
    rests_on = 0
    extent: Extent | None = None
    for (in_memory, ttl_ms), some in work.by_lifetime.items():
        # What is read back is looked for where its own record stands: the next one shares the bytes alone.
        extent = work.extent if extent is None else work.extent.again()
        its = MEMORY if in_memory else durability
        firsts = [reserve_sequences(store, queue, count) for queue in some]
        if not in_memory:
            _write(work, extent, some, firsts, its, ttl_ms)
        for queue, first in zip(some, firsts, strict=True):
            _enter(work, extent, queue, first, its, ttl_ms)
            runs.append((0, queue.number, first, count))
            names.append(queue.name)
            rests_on = max(rests_on, queue.reserve_batch)
    rests_on = max(rests_on, store.rests_on(durability, work.size))
    store.connections[work.frame.connection].session.published += count * len(queues)
    told = " ".join(names)
    if told == work.exchange.told:
        told = work.exchange.told  # outcomes of one kind share it: it may have 124 KB
    work.exchange.told = told
    result: Result = {
        "routed": len(queues),
        "queues": told,
        "durability": store.told[durability],
    }
    return result, runs, rests_on


def _write(
    work: Routing,
    extent: Extent,
    queues: list[Queue],
    firsts: list[int],
    durability: int,
    ttl_ms: int,
) -> None:
    store, part = work.store, work.part
    meta = PublishMeta(
        [(queue.number, first) for queue, first in zip(queues, firsts, strict=True)],
        part.count,
        store.unix_ms,
        store.now_ms,
        store.epoch,
        durability,
        part.delay_ms,
        part.key,
        part.encoding,
        part.columns,
        0,  # the outcome of its frame has a record of its own: a publish says one queue
        0,
        0,
        0,
        0,
        part.max_attempts,
        part.lease_ms,
        part.priority,
        ttl_ms,
    )
    store.emit(meta, extent=extent)


def _enter(
    work: Routing, extent: Extent, queue: Queue, first: int, durability: int, ttl_ms: int
) -> None:
    """Let the messages be in one queue."""
    store, part, columns = work.store, work.part, work.columns
    count = part.count
    block = Block(
        queue.number,
        first,
        count,
        extent,
        work.sizes,
        part.encoding,
        columns.get("encoding"),
        durability,
        store.epoch,
        store.unix_ms,
        store.now_ms,
        store.open_batch,
        terms(part.max_attempts, part.lease_ms, part.priority, ttl_ms),
    )
    if ttl_ms:
        limit(store, block, store.now_ms + ttl_ms, (queue.number,))
    sheaf = Sheaf.published(block, part.delay_ms, part.key, columns) if columns else None
    spans = (
        spans_of(block, part.delay_ms, part.key, columns)
        if sheaf is None
        else [cast("Span", sheaf)]
    )
    if durability != MEMORY:
        queue.last_batch = store.open_batch
    queue.group.counters["published"] += count
    queue.count_in(block, first, first + count)
    if durability == SYNC or queue.group.retained is not None:
        queue.group.entering += count
        store.entering.append((store.open_batch, queue, block, spans, count))
    else:
        for span in spans:
            span.batch = queue.reserve_batch  # no id is shown before it is safe from a second use
        enter(store, queue, spans)
