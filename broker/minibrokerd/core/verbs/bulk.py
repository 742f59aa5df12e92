"""Commands of a person on many messages at once: redrive, purge, move.

They act on what waits, ready or delayed, in memory or not. What a client holds or works on stays (only a purge of
the whole queue ends that, too), and the answer says how much of it there is and why: `left`. Out of a queue that
waits after a start for its sessions nothing is moved before it goes on: what looks as if it waited may be at work.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import Any

from minibroker.contract import limits
from minibroker.contract.ends import Outcome
from minibrokerd.core.durable.paging import read_ahead
from minibrokerd.core.model.deaths import Where
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import MEMORY, Item, Message, Span, State, singles_of
from minibrokerd.core.model.noting import end_runs
from minibrokerd.core.model.places import Place
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused, check_name, check_space
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import take_delayed, wait
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.dooming import move_message, wake_doomed
from minibrokerd.core.verbs.finding import Id, end_cold, find_delivered, take_cold, take_waiting
from minibrokerd.core.verbs.grouping import is_here, look, read_where
from minibrokerd.core.verbs.keying import unblock
from minibrokerd.core.verbs.moving import purge
from minibrokerd.core.verbs.runs import read_ids
from minibrokerd.core.verbs.takers import all_back

TAKE_LOOKS = 3  # what a message that is moved or ended counts
TAKE_MESSAGES = 50  # of a lane, at a time
TIMERS_AHEAD = 1_000  # asked for at a time
# Finding a place in the middle of a long line costs a look for so many of it.
LOOKS_PER_SPANS = 1_000

Left = dict[str, int]


def redrive_request(store: Store, frame: Frame, part: Any) -> None:
    """Send dead messages back to the queue in which they died."""
    check_space(short=store.short)
    dlq = store.queue(part.queue)
    if not dlq.is_dlq:
        raise Refused(
            "bad_value", f"{dlq.name!r} is not a dead-letter queue; its name would end in .dlq"
        )
    runs = read_ids(frame, part)
    where = read_where(store, part)
    if where is not None:
        where.below_token = store.next_token()  # not what dies again meanwhile
    if runs and where is not None:
        raise Refused("bad_value", "name messages, or say which ones by a filter; both came")
    source = store.by_number[
        dlq.home
    ]  # where they died, which is not where they were published if moved
    walk = Walk(store, frame, changes=True)
    moving = Moving(walk, dlq, source, again=True, where=where)
    walk.begin(moving.steps(runs, part.count, "redriven", "messages_redriven"))


def move_request(store: Store, frame: Frame, part: Any) -> None:
    """Move messages that wait to another queue."""
    check_space(short=store.short)
    source = store.queue(part.queue)
    runs = read_ids(frame, part)
    if part.target == part.queue:
        raise Refused("bad_value", f"{part.queue!r} is both where they are and where they go")
    check_name(part.target)
    target = store.queue_or_new(part.target)
    if target.group.retained is not None or source.group.retained is not None:
        raise Refused(
            "bad_value",
            "messages of a retained log, or of a group of one, stay where they are; publish to the log, or seek",
        )
    walk = Walk(store, frame, changes=True)
    moving = Moving(walk, source, target, again=False)
    walk.begin(moving.steps(runs, part.count, "moved", "messages_moved"))


class Moving:
    """The walk of a redrive (`again`: attempts start anew) or a move."""

    def __init__(
        self,
        walk: Walk,
        source: Queue,
        target: Queue,
        *,
        again: bool,
        where: Where | None = None,
    ) -> None:
        self._walk = walk
        self._where = where
        self._store = walk.store
        self._source = source
        self._target = target
        self._again = again
        self._moved = 0
        self._left: Left = {}
        self._records = 0  # of this apply, older than the step
        self._timers: list[
            Timer
        ] = []  # of what is delayed, those that come next, the last one first

    def steps(self, runs: list[Run], most: int, verb: str, event: str) -> Steps:
        """Move those of the runs, or up to `most` (0: all that are there now), and answer."""
        yield from all_back(self._walk, self._source)
        self._records = len(self._store.effects.records)
        if runs:
            yield from self._named(ids_of(runs))
        elif self._where is not None:
            yield from self._filtered(self._where, most)
        else:
            yield from self._oldest(most)
        source, value = self._source, {verb: self._moved}
        if self._again:
            source.group.counters["redriven"] += self._moved
        if source.is_dlq:
            wake_doomed(self._store, source)
        note(self._walk, event, self._moved, queue=source.name, target=self._target.name)
        rests_on = max(source.last_batch, self._target.last_batch)
        self._walk.reply(rests_on, value | ({"left": self._left} if self._left else {}))

    def _oldest(self, most: int) -> Steps:
        source, group = self._source, self._source.group
        there = group.lanes.ready + group.delayed_count
        wanted = min(most or there, there)
        while wanted > self._moved and self._may_go_on():
            if not (yield from self._has_space()):
                self._left["disk_full"] = wanted - self._moved
                break
            some = min(wanted - self._moved, TAKE_MESSAGES, self._room())
            lanes = group.lanes
            items = lanes.take_any(some) if some and lanes.ready else []
            if not items and some and lanes.ready and lanes.default.cold:
                read_ahead(self._store, source, lanes.foremost)
                yield from self._walk.pause()
                self._records = 0
                continue
            if not items and some and group.delayed:
                items = self._first_delayed(some)
            if not items:
                self._left |= {} if some else {"full": wanted - self._moved}
                break
            for item in items:
                self._move(item)
            if self._is_used_up(TAKE_LOOKS * sum(item.stop - item.first for item in items)):
                yield from self._next_step()
        counts = {"held": group.held, "begun": group.begun, "entering": group.entering}
        self._left |= {why: count for why, count in counts.items() if count}

    def _first_delayed(self, most: int) -> list[Item]:
        """Take the first of what is delayed, up to `most` messages.

        The timers are asked for in advance: each look at the first entry of a table passes over all that were
        taken out before it.
        """
        source, items = self._source, list[Item]()
        while most and source.group.delayed:
            if not self._timers:
                self._timers = [*islice(source.group.delayed, TIMERS_AHEAD)][::-1]
            timer = self._timers.pop()
            there = source.group.delayed.get(timer)
            if there is None:
                continue  # it went another way since
            item = next(there.spans()) if isinstance(there, Sheaf) else there
            if isinstance(there, Sheaf) and item.stop - item.first < there.left:
                self._timers.append(timer)
            take_delayed(self._store, source.group, item)
            if item.stop - item.first > most:
                assert isinstance(item, Span)
                wait(self._store, source.group, item.cut(item.first + most))
            items.append(item)
            most -= item.stop - item.first
        return items

    def _named(self, ids: list[Id]) -> Steps:
        missing: list[Id] = []
        for at, (origin, sequence) in enumerate(ids):
            if not self._may_go_on():
                break
            if not (yield from self._has_space()):
                self._left["disk_full"] = len(ids) - at
                break
            if not self._room():
                self._left["full"] = len(ids) - at
                break
            item = yield from take(self._walk, self._source, origin, sequence)
            if item is None:
                missing.append((origin, sequence))
            elif self._may_go_on() and self._room():
                self._move(item)
            else:  # the target was deleted or filled while this was read back
                wait(self._store, self._source.group, item)
                self._left |= {"full": len(ids) - at} if self._may_go_on() else {}
                break
            looks = TAKE_LOOKS + line_looks(self._source)
            if self._is_used_up(looks):
                yield from self._next_step()
        self._left |= yield from why_left(self._walk, self._source, missing)

    def _filtered(self, where: Where, most: int) -> Steps:
        """Move what a filter is about, in the order of ids: up to `most` of it (0: all)."""
        place: Place | None = Place(0, self._source.home, 0)
        while place is not None:
            found, place, looks = look(self._source, place, where)
            for message in found:
                if not self._may_go_on() or (most and self._moved >= most):
                    return
                if not (yield from self._has_space()):
                    group = self._source.group
                    self._left["disk_full"] = group.lanes.ready + group.delayed_count
                    return
                if not self._room():
                    self._left["full"] = self._left.get("full", 0) + 1
                elif where.wants(message) and is_here(self._source, message):
                    take_waiting(self._store, self._source, message.block.origin, message.sequence)
                    self._move(message)
                looks += TAKE_LOOKS + line_looks(self._source)
                if self._is_used_up(looks):
                    yield from self._next_step()
                looks = 0
            if self._is_used_up(looks):
                yield from self._next_step()

    def _next_step(self) -> Steps:
        yield GO_ON
        yield from all_back(self._walk, self._source)  # a stop may have begun
        self._records = 0

    def _has_space(self) -> Generator[bool, None, bool]:
        effects = self._store.effects
        has_space = yield from self._walk.may_write()
        if self._store.effects is not effects:
            yield from all_back(self._walk, self._source)
            self._records = 0
        return has_space

    def _is_used_up(self, looks: int) -> bool:
        return self._walk.is_used_up(looks) or self._walk.has_written(self._records)

    def _may_go_on(self) -> bool:
        there = self._store.by_number.get
        if isinstance(self._target.group.retained, RetainedLog):
            return False  # it was a queue without messages when this was asked for
        return all(
            there(each.number) is each for each in (self._source, self._target) if each.number
        )

    def _room(self) -> int:
        limit = self._target.max_messages
        return max(limit - self._target.count(), 0) if limit else TAKE_MESSAGES

    def _move(self, item: Item) -> None:
        for message in singles_of(item):
            if self._again:
                send_back(self._store, self._source, self._target, message)
            else:
                message.ready_at_ms = self._store.now_ms
                move_message(self._store, self._source, self._target, message, None)
                keep_waiting(self._store, self._target, message)
            self._moved += 1
        self._store.touch(self._source.group)  # it may have nothing left


def keep_waiting(store: Store, queue: Queue, message: Message) -> None:
    """Let a message that was moved to a queue go on waiting there, if it comes after others."""
    if (message.block.origin, message.sequence) not in store.chains.waiting:
        return
    item = take_waiting(store, queue, message.block.origin, message.sequence)
    assert item is message, "it was put there"
    message.ready_at_ms = store.now_ms + limits.MAX_DELAY_MS
    store.write_return(queue, [message], limits.MAX_DELAY_MS, None)
    wait(store, queue.group, message)


def send_back(store: Store, dlq: Queue, source: Queue, message: Message) -> None:
    """Let a dead message, which was taken out of its DLQ, wait where it died, with all its attempts."""
    message.ready_at_ms = store.now_ms
    message.attempts = (0, 0, 0)
    message.redriven += 1
    move_message(store, dlq, source, message, None)
    unblock(store, source, message)


def purge_request(store: Store, frame: Frame, part: Any) -> None:
    """End every message of a queue, or some of those that wait."""
    queue = store.queue(part.queue)
    runs = read_ids(frame, part)
    walk = Walk(store, frame, changes=True)
    if runs:
        walk.begin(_purge_named(walk, queue, ids_of(runs)))
        return
    by = client_of(store, frame.connection)
    count = purge(store, queue, by) if queue.number else 0
    if isinstance(queue.group.retained, RetainedLog):
        count += queue.group.retained.purge(store)
    note(walk, "queue_purged", count, queue=queue.name)
    store.reply(frame.connection, frame.request, queue.last_batch, {"purged": count})


def _purge_named(walk: Walk, queue: Queue, ids: list[Id]) -> Steps:
    store, ended, logged, purged = walk.store, list[Run](), list[Run](), 0
    missing: list[Id] = []
    for origin, sequence in ids:
        item = take_waiting(store, queue, origin, sequence)
        if item is not None:
            queue.count_out(item.block, item.first, item.stop)
            if item.block.durability != MEMORY:
                logged.append((0, origin, sequence, 1))
        elif origin == queue.home and end_cold(queue, sequence):
            logged.append((0, origin, sequence, 1))
        else:
            missing.append((origin, sequence))
            continue
        purged += 1
        ended.append((0, origin, sequence, 1))
        if walk.is_used_up(TAKE_LOOKS + line_looks(queue)):
            _write_ended(walk, queue, ended, logged)
            yield GO_ON
    _write_ended(walk, queue, ended, logged)
    queue.group.counters["purged"] += purged
    store.touch(queue.group)
    wake_doomed(store, queue)
    left = yield from why_left(walk, queue, missing)
    note(walk, "queue_purged", purged, queue=queue.name)
    walk.reply(queue.last_batch, {"purged": purged} | ({"left": left} if left else {}))


def _write_ended(walk: Walk, queue: Queue, ended: list[Run], logged: list[Run]) -> None:
    store = walk.store
    end_runs(store, queue, Outcome.PURGED, ended, logged, client_of(store, walk.connection))
    ended.clear()
    logged.clear()


def take(
    walk: Walk, queue: Queue, origin: int, sequence: int
) -> Generator[bool, None, Item | None]:
    """Take a message that waits out of its queue, read back if need be; None: it does not wait there."""
    item = take_waiting(walk.store, queue, origin, sequence)
    if item is not None or origin != queue.home:
        return item
    return (yield from take_cold(walk, queue, sequence))


def why_left(walk: Walk, queue: Queue, ids: list[Id]) -> Generator[bool, None, Left]:
    """Return how many of these messages, which do not wait, are in which state, or `missing`."""
    found: dict[Id, tuple[State, Item]] = {}
    if ids:
        yield from find_delivered(walk, queue, set(ids), found)
    left: Left = {}
    for id in ids:
        why = found[id][0].name.lower() if id in found else "missing"
        left[why] = left.get(why, 0) + 1
    return left


def line_looks(queue: Queue) -> int:
    """Return what taking one message out of the middle of a queue counts."""
    spans = turns = 0
    for lanes in queue.group.lanes.levels:
        spans += len(lanes.default.fresh) + len(lanes.default.late)
        turns += lanes.turns
    return spans // LOOKS_PER_SPANS + turns // LOOKS_PER_SPANS


def note(walk: Walk, event: str, count: int, **fields: str) -> None:
    """Have it written to the log of the server who did what to how many messages."""
    if not count:  # nothing was done
        return
    client = client_of(walk.store, walk.connection)
    number = walk.connection
    walk.store.effects.note(event, client=client, connection=number, messages=count, **fields)


def client_of(store: Store, connection: int) -> str:
    """Return the name of the client at a connection; empty: it has none, or is gone."""
    known = store.connections.get(connection)
    return known.session.client if known is not None else ""


def ids_of(runs: list[Run]) -> list[Id]:
    """Return the id of each message of runs."""
    return [(origin, first + i) for _, origin, first, count in runs for i in range(count)]
