"""A broker's core in a test's hands: time moves when the test says so, and a batch is safe when it says so.

`World` does what the engine does around a `Core`, with a list for the log and a list for each connection's
output. Its clients (core_client.py) speak the real protocol. There is no socket, no file, no thread and no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from contents import items_of
from core_client import Client, Delivered, Id, Run
from world_files import WorldFiles

from minibroker.contract import wire
from minibrokerd.bodies.shelves import stands
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.durable.digest import Digest
from minibrokerd.core.durable.paging import ask
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.effects import Effects, Note, Outgoing, ReadBack
from minibrokerd.core.model.inputs import (
    Attach,
    Command,
    Disconnected,
    Flow,
    Forward,
    Freeze,
    Hello,
    Loaded,
    Resume,
    Synced,
    Tick,
)
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import decode
from minibrokerd.core.verbs.takers import wait_no_longer
from minibrokerd.engine.indexer import Indexer
from minibrokerd.log.seam import Batch, Digested, Place, Record
from minibrokerd.log.sizes import LARGEST, Sizes
from minibrokerd.net.outgoing import frame_of
from minibrokerd.schedules.on_demand import calendar_of

START_UNIX_MS = 1_700_000_000_000
TICK_MS = 8


class World:
    """One broker: a core, a log, and the frames that left for each connection.

    With `auto_sync` (the default) every batch is safe at once; without it `sync()` says when.
    """

    open: list[Record]  # of the batch that is not closed yet
    closed: list[Batch]  # not safe yet
    held: list[Outgoing]  # what rests on them

    def __init__(
        self,
        *,
        auto_create: bool = True,
        auto_sync: bool = True,
        segment_batches: int = 1,
        sizes: Sizes = LARGEST,
    ) -> None:
        self.sizes = sizes
        self.segment_batches = segment_batches  # how many batches stand in one segment
        self.records: dict[tuple[int, int], Record] = {}  # by segment and offset
        self.digests = False  # a start reads digests of all segments but the last
        self.cools = 0  # a start lets leave memory what can, behind every so many parts of the log
        self.auto_create = auto_create
        self.auto_sync = auto_sync
        self.now_ms = 0
        self.unix_ms = START_UNIX_MS
        self.jitter = 0.0
        self.epoch = 0
        self.log: list[Batch] = []
        self.clients: dict[int, Client] = {}
        self._connections = 0
        self.files = WorldFiles(self)
        self.notes: list[Note] = []  # for the operator
        self._start(clean=True)

    # -- what the engine does -------------------------------------------------------------------

    def apply(self, command: Command) -> Effects:
        """Step the core and route the effects."""
        effects = self.core.apply(command, self.now_ms, self.unix_ms)
        self._route(effects)
        if self.auto_sync:
            self.sync()
        self.files.catch_up()
        return effects

    def _route(self, effects: Effects) -> None:
        for number, records, _ in effects.ended:
            self._end_batch(number, [*self.open, *records])
        self.open += effects.records
        for outgoing in effects.outgoing:
            if outgoing.rests_on:
                self.held.append(outgoing)
            else:
                self._send(outgoing)
        for asked in effects.reads:
            self._load(asked)
        self.notes += effects.notes
        if effects.files is not None:
            self.files.ask(effects.files)
        for connection in effects.closes:
            client = self.clients.pop(connection, None)
            if client is not None:
                client.closed = True
                self.apply(Disconnected(connection))
        if sum(record.size_bytes for record in self.open) >= self.sizes.open_bytes:
            self.close_batch()

    def _load(self, asked: ReadBack) -> None:
        loaded = Loaded(asked, self._read(asked))
        self._route(self.core.apply(loaded, self.now_ms, self.unix_ms))

    def _read(self, asked: ReadBack) -> list[Record | None]:
        segment, offsets = stands(asked)
        return [self.records[segment, offset] for offset in offsets]

    def _send(self, outgoing: Outgoing) -> None:
        client = self.clients.get(outgoing.connection)
        if client is not None:
            client.take_frame(
                b"".join(frame_of(outgoing.header, outgoing.columns, list(outgoing.bodies)))
            )

    def close_batch(self) -> None:
        """Close the open batch, so that what comes later goes to another one."""
        if self.open:
            self._end_batch(self.core.close_batch(), self.open)

    def _end_batch(self, number: int, records: list[Record]) -> None:
        self.closed.append(Batch(number, records, self.now_ms, self.unix_ms))
        self.open = []

    def sync_one(self) -> None:
        """The oldest closed batch is safe now."""
        batch = self.closed.pop(0)
        self.log.append(batch)
        self._place(batch)
        assert batch.place is not None
        self.indexer.placed(batch.records, batch.place)
        leaving = [outgoing for outgoing in self.held if outgoing.rests_on <= batch.number]
        self.held = [outgoing for outgoing in self.held if outgoing.rests_on > batch.number]
        for outgoing in leaving:
            self._send(outgoing)
        self._route(self.core.apply(Synced(batch.number), self.now_ms, self.unix_ms))
        self.files.synced()

    def sync(self) -> None:
        """Everything applied so far is safe now, and what that sets free."""
        self.close_batch()
        while self.closed:
            self.sync_one()
            self.close_batch()
        waiting = [outgoing.header for outgoing in self.held]
        assert not waiting, f"these rest on a batch that has no record: {waiting}"

    def free(self, upto: int, *, most_bytes: int = 2**30) -> None:
        """Copy forward what stands in batches up to `upto`, sync, and take them out of the log."""
        upto = min(upto, self.core.synced)
        while self.core.clear_below <= upto:
            self.apply(Forward(upto, most_bytes))
        self.sync()
        self.forget(upto)

    def forget(self, upto: int) -> None:
        """Take the batches up to `upto` out of the log; nothing that stood there can be read any more."""
        self.log = [batch for batch in self.log if batch.number > upto]
        kept = {batch.place.segment for batch in self.log if batch.place}
        self.records = {at: record for at, record in self.records.items() if at[0] in kept}

    def segment_end(self, upto: int) -> int:
        """Return the newest batch up to `upto` that is the last of its segment; only whole ones are freed."""
        return upto // self.segment_batches * self.segment_batches

    def _place(self, batch: Batch) -> None:
        segment = (batch.number - 1) // self.segment_batches + 1
        offset = 88 + max((at[1] + 8 for at in self.records if at[0] == segment), default=0)
        batch.place = Place(segment, offset)
        for record in batch.records:
            self.records[segment, offset] = record
            offset += record.size_bytes

    def freeze(self) -> None:
        """Let whatever may leave memory leave it."""
        self.apply(Freeze(2**62))

    def thaw(self) -> None:
        """Read everything back."""
        for queue in self.store.queues.values():
            for lanes in queue.group.lanes.levels:
                while lanes.default.cold:
                    ask(self.store, queue, lanes, lanes.default.cold[0])
                    reads, self.store.effects.reads = self.store.effects.reads, ()
                    for asked in reads:
                        self._load(asked)

    # -- time -----------------------------------------------------------------------------------

    def advance(self, duration_ms: int, *, wall_ms: int | None = None) -> None:
        """Let time pass, firing timers when they are due; the wall clock moves by `wall_ms` instead."""
        end_ms = self.now_ms + duration_ms
        end_unix_ms = self.unix_ms + (duration_ms if wall_ms is None else wall_ms)
        while (deadline_ms := self.core.next_deadline_ms()) is not None and deadline_ms <= end_ms:
            step_ms = max(deadline_ms - self.now_ms, 0)
            self.now_ms += step_ms
            if wall_ms is None:
                self.unix_ms += step_ms
            self.apply(Tick(self.jitter))
        self.now_ms, self.unix_ms = end_ms, end_unix_ms

    def run_job(self) -> None:
        """Apply one tick, without letting time pass."""
        self.apply(Tick(self.jitter))

    def run_jobs(self) -> int:
        """Apply ticks until no long work is left, without letting time pass; return how many."""
        ticks = 0
        while self.store.jobs:
            self.apply(Tick(self.jitter))
            ticks += 1
        return ticks

    # -- restarts -------------------------------------------------------------------------------

    def restart(
        self,
        *,
        clean: bool = True,
        lose_unsynced: bool = True,
        wall_ms: int | None = None,
        waits: bool = False,
    ) -> None:
        """Stop (`clean`) or crash, and start again; the wall clock moves by `wall_ms` meanwhile.

        A crash loses the open batch; `lose_unsynced` says whether it also loses the closed ones. `waits`: for the
        sessions of before, as it does; else it is as if that time were over.
        """
        if clean:
            self.core.hold()
            for connection in list(self.clients):
                self.disconnect(connection)
            self.sync()
        elif not lose_unsynced:
            for batch in self.closed:
                self._place(batch)
            self.log += self.closed
        for client in self.clients.values():
            client.closed = True
        self.clients.clear()
        self.unix_ms += wall_ms or 0
        self._start(clean=clean)
        if not waits:
            self.wait_no_longer()

    def wait_no_longer(self) -> None:
        """Hand out what waits for the sessions of before, as if they had been given up."""
        wait_no_longer(self.store)

    def _start(self, *, clean: bool) -> None:
        self.core = Core(
            BodyStore(lambda *at: self.records[at]),
            auto_create=self.auto_create,
            sizes=self.sizes,
            calendar_of=calendar_of,
        )
        self.indexer = Indexer()
        self.open = []
        self.closed = []
        self.held = []
        for number, part in enumerate(self._digested() if self.digests else self.log):
            self.core.replay(part)
            self.indexer.replayed(part)
            if self.cools and not number % self.cools:
                self.core.cool(0)
        self.epoch += 1
        self.now_ms = max((batch.now_ms for batch in self.log), default=0) + 1
        next_batch = max((batch.number for batch in self.log), default=0) + 1
        self.core.opened(self.epoch, self.now_ms, self.unix_ms, clean=clean, next_batch=next_batch)
        self.files.start(self.core)

    def _digested(self) -> Iterator[Batch | Digested]:
        """Yield digests of all segments but the last, then the batches of that."""
        for segment, group in groupby(self.log, key=_segment_of):
            batches = list(group)
            if batches[-1] is self.log[-1]:
                yield from batches
                continue
            digest = Digest()
            for batch in batches:
                assert batch.place is not None
                offset = batch.place.offset
                for record in batch.records:
                    digest.add(record, decode(record), offset)
                    offset += record.size_bytes
            last = batches[-1]
            yield Digested(segment, last.number, last.now_ms, digest.seal(), True)

    # -- clients --------------------------------------------------------------------------------

    def hello(self, name: str = "client") -> Client:
        """Connect a new session."""
        client = self._client(name)
        self.apply(Hello(client.connection, name))
        client.session = client.pop("welcome")["session"]
        return client

    def resume(
        self, old: Client, begun: Iterable[Delivered] = (), *, runs: Iterable[Run] = ()
    ) -> Client:
        """Continue the session of `old` on a new connection, naming what it has begun."""
        client = self._client(old.name)
        client.session, client.sequence = old.session, old.sequence
        client.answered_below, client.requests = old.answered_below, old.requests
        column = wire.pack_runs([*(message.run for message in begun), *runs])
        self.apply(Resume(client.connection, old.session, old.name, memoryview(column)))
        while self.store.jobs and not (client.closed or client.inbox):
            self.run_job()
        return client

    def attach(self, main: Client) -> Client:
        """Open the second connection of a session."""
        client = self._client(main.name)
        client.session = main.session
        self.apply(Attach(client.connection, main.session))
        return client

    def _client(self, name: str) -> Client:
        self._connections += 1
        client = self.clients[self._connections] = Client(self, self._connections, name)
        return client

    def disconnect(self, client: Client | int) -> None:
        """End a connection without a word."""
        connection = client if isinstance(client, int) else client.connection
        gone = self.clients.pop(connection, None)
        if gone is not None:
            gone.closed = True
            self.apply(Disconnected(connection))

    def flow(self, client: Client, *, paused: bool) -> None:
        """The client stops reading, or reads again."""
        self.apply(Flow(client.connection, paused=paused))

    # -- what a test looks at -------------------------------------------------------------------

    @property
    def store(self) -> Any:
        """The state of the core."""
        return self.core.store

    def queue(self, name: str) -> Queue:
        """Return a queue of the core."""
        queue: Queue = self.store.queues[name]
        return queue

    def lanes(self, name: str) -> Sequence[Lanes]:
        """Return the lanes of a queue, of each priority; none: there is no such queue."""
        return self.queue(name).group.lanes.levels if name in self.store.queues else []

    def states(self, name: str) -> dict[Id, str]:
        """Return the state of every message of a queue, those on their way into it too."""
        if name not in self.store.queues:
            return {}
        queue = self.queue(name)
        found: dict[Id, str] = {}
        for state, item in items_of(queue):
            for sequence in range(item.first, item.stop):
                id = item.block.origin, sequence
                assert id not in found, f"{id} is in {name} twice"
                found[id] = State(state).name
        for run in cold_runs(queue):
            start = run.bounds(run.at)[0]
            for first, stop in run.live(start, run.stop):
                for sequence in range(first, stop):
                    assert (run.queue, sequence) not in found
                    found[run.queue, sequence] = "READY"
        for _, entered, block, spans, count in self.store.entering:
            if entered is queue:
                assert count == sum(span.stop - span.first for span in spans)
                for span in spans:
                    for sequence in range(span.first, span.stop):
                        assert (block.origin, sequence) not in found
                        found[block.origin, sequence] = "ENTERING"
        return found

    def check(self) -> None:
        """What holds after every step: counts agree with what is there, and nothing is lost or made up."""
        for queue in self.store.queues.values():
            by_state = list(self.states(queue.name).values())
            counts = {
                "READY": queue.group.lanes.ready,
                "DELAYED": queue.group.delayed_count,
                "HELD": queue.group.held,
                "BEGUN": queue.group.begun,
                "ENTERING": queue.group.entering,
            }
            assert counts == {state: by_state.count(state) for state in counts}, queue.name
            cold = cold_runs(queue)
            assert queue.cold_bytes == sum(run.cost for run in cold), queue.name
            self._check_timers(queue)
            self._check_unique_keys(queue)
            if not queue.count() - queue.group.entering:
                assert not queue.live_bytes or queue.group.entering, queue.name
        self._check_extents()
        self._check_item_bytes()

    def _check_item_bytes(self) -> None:
        """What waits by its id is charged for as its kind says; what a purge has not freed yet may still be."""
        indexes = {}
        for queue in self.store.queues.values():
            group = queue.group
            found = [lanes.index for lanes in group.lanes.levels]
            for index in [*found, group.later, getattr(group.later, "_sheaves", None)]:
                indexes[id(index)] = index
        item_bytes = sum(
            item.memory_bytes + index.more_bytes
            for index in indexes.values()
            for some in (index.after(0, 0) if index is not None else ())
            for item in some
        )
        counted = self.store.standing.item_bytes
        assert counted >= item_bytes if self.store.jobs else counted == item_bytes

    def _check_extents(self) -> None:
        """Each extent knows how many messages are in it; what a purge has not freed yet may still be counted."""
        refs: Counter[Any] = Counter()
        for queue in self.store.queues.values():
            for _, item in items_of(queue):
                refs[item.block.extent] += item.stop - item.first
        for _, _, block, _, count in self.store.entering:
            refs[block.extent] += count
        # What was replaced before its sync left its publish empty: nothing of that takes memory.
        held_bytes = sum(extent.size for extent, count in refs.items() if count)
        if self.store.jobs:
            assert all(extent.refs >= count for extent, count in refs.items())
            assert self.store.sums.held_bytes >= held_bytes
        else:
            assert all(extent.refs == count for extent, count in refs.items())
            assert self.store.sums.held_bytes == held_bytes

        self._check_credit()

    def _check_timers(self, queue: Queue) -> None:
        """A timer runs for what is begun or delayed, but for the dead; for nothing else."""
        for state, item in items_of(queue):
            timer = getattr(item, "timer", None)
            waits = state in (State.BEGUN, State.DELAYED) and not getattr(item, "dead", False)
            assert (timer is not None and timer.armed) == waits, (queue.name, state, item.first)

    def _check_unique_keys(self, queue: Queue) -> None:
        """A unique key is held by the messages of its queue that have it, and by nothing else."""
        items = [item for _, item in items_of(queue)]
        for _, entered, _, spans, _ in self.store.entering:
            items += spans if entered is queue else []
        held: dict[str, list[Id]] = {}
        for item in items:
            block = item.block
            for sequence in range(item.first, item.stop):
                key = block.uniques[sequence - block.first] if block.uniques else ""
                if key:
                    held.setdefault(key, []).append((block.origin, sequence))
        keys = queue.unique
        said = {key: sorted(keys.holders(key)) for key in keys} if keys is not None else {}
        assert said == {key: sorted(ids) for key, ids in held.items()}, queue.name

    def _check_credit(self) -> None:
        """A consumer has as many messages outstanding as its deliveries have."""
        outstanding = Counter[Any]()
        for delivery in self.store.deliveries.values():
            outstanding[delivery.consumer] += delivery.count()
        for connection in self.store.connections.values():
            for consumer in (*connection.consumers.values(), *connection.receives.values()):
                assert consumer.outstanding == outstanding[consumer], consumer.number


def cold_runs(queue: Queue) -> list[ColdRun]:
    """Return the runs of what left memory, of all priorities."""
    return [run for lanes in queue.group.lanes.levels for run in lanes.default.cold]


def _segment_of(batch: Batch) -> int:
    assert batch.place is not None
    return batch.place.segment
