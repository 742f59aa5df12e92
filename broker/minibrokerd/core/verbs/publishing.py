"""PUBLISH: a part with messages becomes one block, one record, and spans that enter their lanes once synced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from minibroker.contract import limits
from minibrokerd.core.model.claims import Asked, Claims
from minibrokerd.core.model.columns import COLUMNS, check_sizes, read_columns, spans_of
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.extents import Extent, Sizes
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.inputs import Frame, Slice
from minibrokerd.core.model.lifetimes import limit, see_waiting
from minibrokerd.core.model.messages import MEMORY, SYNC, Block, Span, terms
from minibrokerd.core.model.policies import lifetime_of
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.records import PublishMeta
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.retained import check_published
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait, wait_together
from minibrokerd.core.verbs.chaining import After, begin, check_after
from minibrokerd.core.verbs.overflowing import asked_of, check_room, make_room
from minibrokerd.core.verbs.uniqueness import Plan, bytes_of_names, check_plan

# A plain tuple: an object of its own costs 1 % of a lone publish.
Publishing = tuple[
    Store, Frame, Any, int, Queue | None, Extent, Sizes, dict[str, Any], Plan | None, After | None
]


def check_publish(
    store: Store, frame: Frame, part: Any, own: Slice, claims: Claims | None
) -> Publishing:
    """Return what one publish part comes to; nothing is changed. `claims` are of a frame of several parts.

    Raises:
        Refused: its queue may not be made, or has no room.
        Broken: counts, lengths or columns do not add up.
    """
    count, name, extent = part.count, part.queue, own.extent
    assert extent is not None, "the shell makes one of each publish"
    sizes = check_sizes(extent, count, store.sizes.message_bytes)
    columns = read_columns(part, own.columns, count) if part.columns or own.columns else {}
    if part.columns and part.columns != [name for name in COLUMNS if name in columns]:
        raise Broken("the columns of a publish stand in the order of its table")
    if (
        part.key
        and len(part.key) * 4 > limits.MAX_KEY_BYTES
        and len(part.key.encode()) > limits.MAX_KEY_BYTES
    ):
        raise Broken(f"a key exceeds {limits.MAX_KEY_BYTES} bytes")
    if name.endswith(limits.DLQ_SUFFIX):
        raise Refused("bad_name", f"{name!r:.200} is a dead-letter queue; publish to its source")
    queue = store.queues.get(name)
    plan = _plan(store, frame, part, columns, claims) if columns else None
    if queue is not None:
        if queue.is_limited:
            check_published(queue, part, columns)
            asked = asked_of(sizes, count, plan)
            check_room(store, queue, asked if claims is None else claims.add(name, asked))
    elif claims is None or name not in claims.new:
        store.check_new_queue(name, len(claims.new) if claims is not None else 0)
        if claims is not None:
            claims.new.add(name)
    if queue is None and store.policies:
        _check_room_of_new(store, name, asked_of(sizes, count, plan), claims)
    if store.schemas.by_queue and queue is not None:
        store.schemas.check(queue, frame, extent, part, columns)
    after = None
    if part.after or part.after_step:
        after = check_after(
            store, frame.connection, part, columns, is_step=claims is not None and claims.is_step
        )
    return store, frame, part, own.size, queue, extent, sizes, columns, plan, after


def _check_room_of_new(store: Store, name: str, asked: Asked, claims: Claims | None) -> None:
    """Check that messages have room in a queue that their publish makes: policies may limit it."""
    queue = Queue(0, name, 0, DEFAULTS)
    queue.take(store.policies.decide(queue))
    if queue.is_limited:
        check_room(store, queue, asked if claims is None else claims.add(name, asked))


def _plan(
    store: Store, frame: Frame, part: Any, columns: dict[str, Any], claims: Claims | None
) -> Plan | None:
    """Return what is to be looked at of a publish with unique keys or dedupe ids; None: it has none."""
    if "unique_key" not in columns and "dedupe_id" not in columns:
        return None
    more_bytes = bytes_of_names(frame) if claims is None else claims.add_bytes(0)
    plan = Plan(store, part, columns, check_plan(store, frame, part, more_bytes))
    # Else a part before it may change what is there.
    if claims is None or claims.is_alone(frame.parts, part.queue):
        plan.make(store.queues.get(part.queue))
    return plan


def publish(work: Publishing) -> tuple[Result, Sequence[Run], int]:
    """Apply a publish part that was checked: return its result, nothing lost, and the batch that it rests on."""
    store, frame, part, size, queue, extent, sizes, columns, plan, after = work
    count = part.count
    if queue is None:  # unless a part before it made it
        queue = store.queue_or_new(part.queue)
    if after is not None:
        store.chains.expect(after.ids)
    # Before anything leaves for it: what is there already needs no room.
    stored = count if plan is None else plan.stored_in(queue)
    if queue.is_limited:
        make_room(store, queue, asked_of(sizes, count, plan))
    durability, before = queue.durability, queue.last_batch
    if plan is not None and not stored:
        # Only its answer is in the log: whoever leads no more can write none, and does not say what stands.
        return _confirm_planned(work, queue, None, max(store.rests_on(durability, size), before))
    ttl_ms = part.ttl_ms
    if queue.settings is not DEFAULTS:
        ttl_ms = lifetime_of(queue, ttl_ms)
    first = reserve_sequences(store, queue, count)
    block = Block(
        queue.number,
        first,
        count,
        extent,
        sizes,
        part.encoding,
        columns.get("encoding"),
        durability,
        store.epoch,
        store.unix_ms,
        store.now_ms,
        store.open_batch,
        terms(part.max_attempts, part.lease_ms, part.priority, ttl_ms),
        columns.get("unique_key"),
    )
    if ttl_ms:
        limit(store, block, store.now_ms + ttl_ms, (queue.number,))
    delay_ms = part.delay_ms if after is None else limits.MAX_DELAY_MS
    if not columns:  # of one key and one delay, as nearly always
        spans = [Span(block, first, first + count, part.key, store.now_ms + delay_ms)]
    elif plan is not None:
        spans = plan.living(block, spans_of(block, delay_ms, part.key, columns))
    elif (sheaf := Sheaf.published(block, delay_ms, part.key, columns)) is not None:
        spans = [cast("Span", sheaf)]  # until it waits, it is as one span of all
    else:
        spans = spans_of(block, delay_ms, part.key, columns)
    if durability != MEMORY:
        _write(store, queue, block, part, frame, delay_ms, has_outcome=plan is None)
    if after is not None:
        begin(store, after, part, block, store.chains.published)
        if len(frame.parts) == 1:
            store.chains.expect_no_more()
    rests_on = max(store.rests_on(durability, size), queue.reserve_batch)
    queue.group.counters["published"] += stored
    if frame.parts:  # a schedule publishes without a session
        store.connections[frame.connection].session.published += stored
    queue.count_in(block, first, first + count)
    # In a log what comes later may not be ready before it: a lazy one stands behind the sync of others.
    if durability == SYNC or queue.group.retained is not None:
        queue.group.entering += stored
        store.entering.append((store.open_batch, queue, block, spans, stored))
    else:
        for span in spans:
            span.batch = queue.reserve_batch  # no id is shown before it is safe from a second use
        enter(store, queue, spans)
    if plan is not None:
        return _confirm_planned(work, queue, block, max(rests_on, before))
    result = result_of(block.origin, block.first, block.durability, store.told)
    return result, (), rests_on


def _confirm_planned(
    work: Publishing, queue: Queue, block: Block | None, rests_on: int
) -> tuple[Result, Sequence[Run], int]:
    """Do what a plan says beside what is stored (None: nothing is), and return what a publish returns."""
    store, frame, *_, plan, _ = work
    assert plan is not None
    # A schedule publishes without a session.
    by = store.connections[frame.connection].session.client if frame.parts else "a schedule"
    plan.apply(queue, block, by)
    runs = plan.known_runs(queue, block)
    stored = (queue.number, 0, queue.durability)  # nothing
    if block is not None:
        stored = block.origin, block.first, block.durability
    result = result_of(*stored, store.told)
    if runs:
        result["known"] = len(runs)
    return result, runs, max(rests_on, queue.last_batch if block is None else 0)


def result_of(origin: int, first: int, durability: int, told: Sequence[str]) -> Result:
    """Return what a confirm says of a publish; `told` are the names of durabilities in it."""
    return {
        "origin": origin,
        "first": first,
        "durability": told[durability],
    }


def enter(store: Store, queue: Queue, spans: list[Span]) -> None:
    """Let published messages wait for their delay, or into their lanes; one of the spans may be a sheaf."""
    group = queue.group
    for span in spans:
        if span.ready_at_ms > store.now_ms:
            if isinstance(span, Sheaf):
                _enter_sheaf(store, group, span)
            else:
                wait(store, group, span)
        else:
            group.enter(span)
    if store.sums.lifetimes:
        see_waiting(store, group, spans)
    store.touch(group)


def _enter_sheaf(store: Store, group: Group, sheaf: Sheaf) -> None:
    for span in sheaf.due(store.now_ms, sheaf.left):
        group.enter(span)
    if sheaf.left:
        wait_together(store, group, sheaf)


def reserve_sequences(store: Store, queue: Queue, count: int) -> int:
    """Return the first of so many sequences of a queue, which nobody uses again."""
    first = queue.next_sequence
    queue.next_sequence += count
    if queue.next_sequence > queue.reserved_until:
        store.reserve(queue)
    return first


def _write(
    store: Store,
    queue: Queue,
    block: Block,
    part: Any,
    frame: Frame,
    delay_ms: int,
    *,
    has_outcome: bool,
) -> None:
    session = 0  # the outcome of a frame of several parts has a record of its own
    if has_outcome and len(frame.parts) == 1:
        session = store.connections[frame.connection].session.id
        store.effects.has_outcome = True
    meta = PublishMeta(
        [(queue.number, block.first)],
        block.count,
        store.unix_ms,
        store.now_ms,
        block.epoch,
        block.durability,
        delay_ms,
        part.key,
        part.encoding,
        part.columns,
        session,
        frame.sequence or 0,
        frame.answered_below,
        frame.checksum,
        frame.size,
        part.max_attempts,
        part.lease_ms,
        part.priority,
        block.terms.ttl_ms,
    )
    store.emit(meta, extent=block.extent)
    queue.last_batch = block.batch = store.open_batch
