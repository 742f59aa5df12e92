"""Redrives that go on by themselves: at a rate, after a canary, and over a restart.

It goes once through what was dead when it began, in the order of ids, so no message is sent back twice. After each
step it keeps where it stands, in the batch of what it moved, or the next one: after a crash it goes on there, and
what was moved already is not in the DLQ any more. What is kept is all there is: stopping one is a change of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, Final

from msgspec.structs import astuple

from minibrokerd.core.model.deaths import Deaths
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.kept import REDRIVE
from minibrokerd.core.model.messages import Item, Message, State, is_dead
from minibrokerd.core.model.places import Place
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.redrives import (
    CANARY,
    DONE,
    REMEMBERED_MS,
    RUNNING,
    SENDING,
    STOPPED,
    WATCHING,
    Plan,
    Progress,
    forget,
    keep_plan,
    keep_progress,
    plan_of,
    said_of,
)
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import GO_ON, PAUSE_MS, Errand, Steps
from minibrokerd.core.verbs.bulk import TAKE_LOOKS, ids_of, line_looks, send_back
from minibrokerd.core.verbs.dooming import wake_doomed
from minibrokerd.core.verbs.finding import Id, find_delivered, take_waiting
from minibrokerd.core.verbs.grouping import is_here, look, read_where
from minibrokerd.core.verbs.runs import read_ids
from minibrokerd.core.verbs.takers import is_awaiting

# For what became of the canary, for room in the queue, for space on the disk.
LOOK_AGAIN_MS: Final = 1_000
LEAST_WAIT_MS: Final = 100  # at a rate: what is due within so long goes together


def redrive_start(store: Store, frame: Frame, part: Any) -> None:
    """Begin to send dead messages back."""
    dlq = _dlq(store, part.queue)
    ids = ids_of(read_ids(frame, part))
    where = read_where(store, part)
    if len(ids) != part.runs or (ids and where is not None):
        text = "a redrive is of messages that are named one by one, or of those of a filter"
        raise Refused("bad_value", text)
    known = plan_of(store, dlq.number)
    if known is not None and known[1].state in RUNNING:
        text = f"a redrive of {dlq.name!r} by {known[0].by!r} is under way; stop it, or let it end"
        raise Refused("limit_reached", text)
    by = store.connections[frame.connection].session.client
    token = store.next_token()
    plan = Plan(token, by, store.unix_ms, part.rate, part.canary, ids)
    if where is not None:
        plan = Plan(
            token, by, store.unix_ms, part.rate, part.canary, ids,
            where.cause, where.error_class, where.error_text, where.group, where.key, where.origin,
            where.from_unix_ms, where.until_unix_ms,
        )  # fmt: skip
    progress = Progress(token, CANARY if plan.canary else SENDING, origin=dlq.home)
    if dlq.number:
        keep_plan(store, dlq.number, plan)
        keep_progress(store, dlq.number, progress)
        store.effects.note("redrive_started", client=by, queue=dlq.name)
        _begin(store, dlq, plan, progress)
    else:  # nothing has died yet
        progress.state, progress.ended_unix_ms = DONE, store.unix_ms
    _answer(store, frame, plan, progress)


def redrive_show(store: Store, frame: Frame, part: Any) -> None:
    """Answer with how the redrive of a DLQ stands."""
    known = plan_of(store, _dlq(store, part.queue).number)
    if known is None:
        store.reply(frame.connection, frame.request, 0, {})
    else:
        _answer(store, frame, *known)


def redrive_stop(store: Store, frame: Frame, part: Any) -> None:
    """Let a redrive send nothing more."""
    dlq = _dlq(store, part.queue)
    known = plan_of(store, dlq.number)
    if known is None:
        store.reply(frame.connection, frame.request, 0, {})
        return
    plan, progress = known
    if progress.state in RUNNING:
        client = store.connections[frame.connection].session.client
        _end(store, dlq, plan, progress, STOPPED, f"{client or 'a client'} stopped it")
    _answer(store, frame, plan, progress)


def go_on(store: Store) -> None:
    """Go on, after a start, with what was under way."""
    numbers = [int(entry.key[0]) for entry in store.kept if entry.kind is REDRIVE]
    for number in dict.fromkeys(numbers):
        dlq, known = store.by_number.get(number), plan_of(store, number)
        if dlq is None:
            forget(store, number)
        elif known is not None and known[1].state in RUNNING:
            _begin(store, dlq, *known)


def _dlq(store: Store, name: str) -> Queue:
    queue = store.queue(name)
    if not queue.is_dlq:
        raise Refused("bad_value", f"{queue.name!r} is not a dead-letter queue")
    return queue


def _answer(store: Store, frame: Frame, plan: Plan, progress: Progress) -> None:
    store.effects.wake = True  # a client waits for the batch of what is kept
    value = {"redrive": said_of(plan, progress)}
    rests_on = store.open_batch if store.effects.records or store.effects.ended else 0
    store.reply(frame.connection, frame.request, rests_on, value)


def _begin(store: Store, dlq: Queue, plan: Plan, progress: Progress) -> None:
    redriving = _Redriving(Errand(store), dlq, plan, progress)
    redriving.errand.begin(redriving.steps())


def _end(store: Store, dlq: Queue, plan: Plan, progress: Progress, state: str, why: str) -> None:
    progress.state, progress.why, progress.ended_unix_ms = state, why, store.unix_ms
    keep_progress(store, dlq.number, progress)
    keep_plan(store, dlq.number, plan, progress.ended_unix_ms + REMEMBERED_MS)
    store.effects.note(
        "redrive_ended", queue=dlq.name, messages=progress.redriven, state=state, text=why
    )


class _Redriving:
    """The errand of one redrive."""

    def __init__(self, errand: Errand, dlq: Queue, plan: Plan, progress: Progress) -> None:
        self.errand = errand
        self._store = errand.store
        self._dlq = dlq
        self._source = errand.store.by_number[dlq.home]
        self._plan = plan
        self._progress = progress
        self._where = plan.where()
        self._found: deque[Message] = deque()
        self._place: Place | None = Place(0, progress.origin, progress.sequence)
        self._due_ms = float(errand.store.now_ms)
        self._at = progress.at  # in the ids of the plan
        self._records = 0  # of this apply, older than the step
        self._kept: tuple[object, ...] = ()

    def steps(self) -> Steps:
        """Send and watch the canary, then send the rest."""
        plan, progress = self._plan, self._progress
        if progress.state == CANARY:
            yield from self._send(plan.canary - len(progress.canaries))
            if not self._is_live():
                return
            progress.state = WATCHING
        if progress.state == WATCHING:
            why = yield from self._watch()
            if not self._is_live():
                return
            if why:
                self._ends(STOPPED, why)
                return
            progress.state = SENDING
        yield from self._send(2**62)
        if self._is_live():
            self._ends(DONE, "")

    # -- sending ----------------------------------------------------------------------------------

    def _send(self, most: int) -> Steps:
        store, progress = self._store, self._progress
        sent = 0
        self._records = len(store.effects.records)
        while sent < most:
            message = yield from self._next()
            if message is None:
                break
            yield from self._may_send()
            if not self._is_live():
                return
            if not (is_here(self._dlq, message) and self._wants(message)):
                continue
            id = message.block.origin, message.sequence
            take_waiting(store, self._dlq, *id)
            send_back(store, self._dlq, self._source, message)
            self._dlq.group.counters["redriven"] += 1
            progress.redriven += 1
            progress.origin, progress.sequence, progress.at = id[0], id[1] + 1, self._at
            if progress.state == CANARY:
                progress.canaries.append(id)
            sent += 1
            store.touch(self._dlq.group)
            looks = TAKE_LOOKS + line_looks(self._dlq)
            if self.errand.is_used_up(looks) or self.errand.has_written(self._records):
                yield from self._pause()
        self._keep()

    def _next(self) -> Generator[bool, None, Message | None]:
        """Return the next dead message that is to go; None: there is no other."""
        if self._plan.ids:
            return self._next_named()
        while not self._found and self._place is not None:
            found, self._place, looks = look(self._dlq, self._place, self._where)
            self._found.extend(found)
            if self.errand.is_used_up(looks):
                yield from self._pause()
                if not self._is_live():
                    return None
        return self._found.popleft() if self._found else None

    def _next_named(self) -> Message | None:
        ids = self._plan.ids
        while self._at < len(ids):
            message = _waits(self._dlq, ids[self._at])
            self._at += 1
            if message is not None:
                return message
        return None

    def _wants(self, message: Message) -> bool:
        return bool(self._plan.ids) or self._where.wants(message)

    def _may_send(self) -> Steps:
        """Wait until the next message may go: for its turn at a rate, for room in the queue, and on the disk."""
        store, progress = self._store, self._progress
        while self._is_live():
            lacks = ""
            if store.short or store.paused:
                lacks = "the disk is full"
            elif is_awaiting(store, self._dlq):
                lacks = "who took from it before the start is not back"
            elif not self._source.has_room():
                lacks = f"{self._source.name} is full"
            if lacks:
                progress.why = f"it waits: {lacks}"
                yield from self._pause(store.now_ms + LOOK_AGAIN_MS)
            elif self.errand.is_ahead:
                yield from self._pause(store.now_ms + PAUSE_MS)
            elif self._plan.rate and self._due_ms > store.now_ms:
                until_ms = max(round(self._due_ms + 0.5), store.now_ms + LEAST_WAIT_MS)
                yield from self._pause(until_ms)
            else:
                break
            progress.why = ""
        if self._plan.rate:
            # What could not go when it was due, because the server was busy, goes a little later, and no more.
            self._due_ms = max(self._due_ms, store.now_ms - LOOK_AGAIN_MS)
            self._due_ms += 1_000 / self._plan.rate

    # -- watching ---------------------------------------------------------------------------------

    def _watch(self) -> Generator[bool, None, str]:
        """Wait until each message of the canary has ended; return why the rest must not follow, empty: it may."""
        store, ids = self._store, self._progress.canaries
        while self._is_live():
            dead = yield from self._are_in(self._dlq, ids)
            at_work = yield from self._are_in(self._source, ids)
            dead |= {id: item for id, item in at_work.items() if is_dead(item)}
            for id, item in dead.items():
                return self._why(id, item)
            for id in ids:
                if id not in at_work and (yield from self._ended_dead(id)):
                    return self._why(id, None)
            if not at_work:
                return ""
            self._progress.why = f"{len(at_work)} of the {len(ids)} sent first have not ended"
            yield from self._pause(store.now_ms + LOOK_AGAIN_MS)
        return ""

    def _are_in(self, queue: Queue, ids: list[Id]) -> Generator[bool, None, dict[Id, Item]]:
        """Return those of these messages that are in a queue, in whatever state."""
        found: dict[Id, Item] = {}
        for id in ids:
            item = _waits(queue, id)
            if item is not None:
                found[id] = item
        delivered: dict[Id, tuple[State, Item]] = {}
        if len(found) < len(ids):
            yield from find_delivered(self.errand, queue, set(ids) - set(found), delivered)
        return found | {id: item for id, (_, item) in delivered.items()}

    def _ended_dead(self, id: Id) -> Generator[bool, None, bool]:
        """Return whether a message ended in the DLQ: it had died again, and somebody saw to it there."""
        for ending in self._store.endings.find(*id):
            if ending is not None:
                return ending.queue == self._dlq.name
            if self.errand.is_used_up(1):
                yield GO_ON
        return False

    def _why(self, id: Id, item: Item | None) -> str:
        first = len(self._progress.canaries)
        text = f"{id[0]}-{id[1]}, one of the {first} sent first, died again"
        if item is None:
            return text
        death = Deaths().of(item)
        return f"{text}: {': '.join(filter(None, (death.error_class, death.text))) or death.cause}"

    # -- how it stands ----------------------------------------------------------------------------

    def _is_live(self) -> bool:
        """Whether it is still to go on: nobody stopped it, and its queues are there."""
        store, numbers = self._store, (self._dlq, self._source)
        if any(store.by_number.get(queue.number) is not queue for queue in numbers):
            forget(store, self._dlq.number)
            return False
        known = plan_of(store, self._dlq.number)
        return (
            known is not None and known[0].token == self._plan.token and known[1].state in RUNNING
        )

    def _keep(self) -> None:
        now = astuple(self._progress)
        if now != self._kept and self._is_live():
            self._kept = now
            keep_progress(self._store, self._dlq.number, self._progress)
            wake_doomed(self._store, self._dlq)

    def _pause(self, until_ms: int = 0) -> Steps:
        """Keep how it stands, and go on in another step, or at a time."""
        self._keep()
        if until_ms:
            yield from self.errand.wait_until(until_ms)
        else:
            yield GO_ON
        self._records = 0

    def _ends(self, state: str, why: str) -> None:
        _end(self._store, self._dlq, self._plan, self._progress, state, why)


def _waits(queue: Queue, id: Id) -> Message | None:
    """Return a message that waits in a queue; what has died is always in memory."""
    item = queue.group.lanes.find(*id) or queue.group.later.find(*id)
    return item if isinstance(item, Message) else None
