"""A broker of one shard in a world without time: a real core and fence, and the steps of a move. Decision 83.

What the core has no verb for is done around it: a group that is frozen gets no frames, and copies are taken up by
reading the own log again, as a start does. So whoever takes a group up loses its connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from core_client import Delivered
from shard_core import Shell, copies
from shard_letters import Freeze, GiveUp, IsFrozen, IsMoved, IsOver, Letter, NotMine
from shard_places import (
    Book,
    Claim,
    Coming,
    Complete,
    Entry,
    Frozen,
    Here,
    Is,
    Item,
    Moved,
    Thawed,
    group_of,
)
from sim_turns import turn

from minibroker.contract import wire
from minibrokerd.core.model.inputs import Hello, Resume, Tick
from minibrokerd.log.seam import Batch
from minibrokerd.net.frames import read_frame
from minibrokerd.replicated.leading import Fence, Overtaken
from minibrokerd.replicated.stream import Entry as StreamEntry
from minibrokerd.replicated.stream import StreamAway

if TYPE_CHECKING:
    from shard_link import Ask, Link
    from shard_world import World

ASK_TURNS: Final = 6  # between two letters of one matter
SIGN_TURNS: Final = 40  # whoever leads appends something so often, to find out whether it does
THAW_TURNS: Final = 250


class Broker:
    """One run of a broker of one shard."""

    def __init__(self, world: World, shard: int, number: int) -> None:
        self.world = world
        self.shard = shard
        self.number = number
        self.book = Book(shard, world.shards)
        self.fence = self._fence(shard)
        self.shell: Shell | None = None
        self.leads = False
        self.is_over = False
        self.is_paused = False
        self.inbox: deque[tuple[Link, Ask | None]] = deque()  # None: the connection ended
        self.letters: deque[Letter] = deque()
        self._links: dict[int, Link] = {}
        self._held: list[tuple[Link, Ask]] = []
        self._frozen: dict[str, IsFrozen] = {}  # what sources have told
        self._sources: dict[str, int] = {}
        self._frozen_since: dict[int, int] = {}  # by attempt, in turns
        self._turns = 0
        self._names = 0
        self.run: Coroutine[Any, Any, None] = self._run()

    def _fence(self, shard: int) -> Fence:
        return Fence(self.world.streams[shard].connect(turn), self._is_own, self.world.pause)

    def _is_own(self, entry: StreamEntry) -> bool:
        return entry.is_epoch and owner_of(entry) == self.number

    def _name(self, item: Item) -> bytes:
        self._names += 1
        name = b"%d:%d" % (self.number, self._names)
        self.world.items[name] = item
        return name

    def _epoch_record(self) -> bytes:
        return self._name(Item(Claim()))

    async def _run(self) -> None:
        try:
            await self._take_over()
            while True:
                await self._turn()
        except Overtaken:
            self.end()

    def end(self) -> None:
        """Be gone."""
        self.is_over = True
        self.leads = False
        self._part()

    async def _take_over(self) -> None:
        end = await self.fence.claim(self._epoch_record(), await self._last())
        async for some in self.fence.read(1, end):
            for entry in some:
                self.book.read(self.world.items[entry.body])
        self._open_core()
        self.leads = True

    async def _last(self) -> int:
        while True:
            try:
                return (await self.fence.stream.info()).last
            except StreamAway:
                await self.world.pause(0.1)

    def _open_core(self) -> None:
        self._part()
        self.shell = Shell(self.book, self.world.unix_ms, self._hands_out)

    def _part(self) -> None:
        links = [*self._links.values(), *(link for link, _ in self.inbox)]
        self._links, self._held = {}, []
        self.inbox.clear()
        for link in links:
            link.drop()
        self.inbox.clear()

    async def _append(self, item: Item) -> None:
        await self.fence.append([self._name(item)], self._epoch_record)
        self.book.read(item)

    def _item(self, says: Any = None, batch: Batch | None = None) -> Item:
        assert self.shell is not None
        records = () if batch is None else tuple(batch.records)
        return Item(says, records, self.shell.now_ms, self.world.unix_ms)

    # -- a turn -----------------------------------------------------------------------------------

    async def _turn(self) -> None:
        self._turns += 1
        self._let_time_pass()
        while self.inbox:
            self._serve(*self.inbox.popleft())
        self._send()
        await self._sync()
        self._send()
        while self.letters:
            await self._read(self.letters.popleft())
        await self._thaw_late()
        await self._fetch()
        if self._turns % SIGN_TURNS == 0:
            await self._append(self._item())
        await turn()

    def _let_time_pass(self) -> None:
        assert self.shell is not None
        shell = self.shell
        shell.now_ms += 1
        shell.unix_ms = self.world.unix_ms
        deadline_ms = shell.core.next_deadline_ms()
        if deadline_ms is not None and deadline_ms <= shell.now_ms:
            shell.apply(Tick(0.0))

    async def _sync(self) -> None:
        assert self.shell is not None
        self.shell.close_batch()
        while self.shell.closed:
            await self._append(self._item(None, self.shell.closed[0]))
            self.shell.sync_one()
            self.shell.close_batch()

    # -- clients ----------------------------------------------------------------------------------

    def _serve(self, link: Link, ask: Ask | None) -> None:
        assert self.shell is not None
        if ask is None:
            if link.seat is not None:
                self._links.pop(link.seat.connection, None)
                self.shell.disconnect(link.seat.connection)
            self._held = [one for one in self._held if one[0] is not link]
        elif ask.payload is None:
            self._welcome(link, ask)
        else:
            self._frame(link, ask)

    def _welcome(self, link: Link, ask: Ask) -> None:
        assert self.shell is not None
        link.seat = seat = self.shell._client(link.client.name)
        self._links[seat.connection] = link
        here = []
        for group, run in ask.runs:
            entry = self.book.where(group)
            if entry.state is Is.ELSEWHERE:
                link.elsewhere[group] = entry.version, entry.shard
            else:
                here.append(run)
        if not ask.session:
            self.shell.apply(Hello(seat.connection, seat.name))
            return
        runs = memoryview(wire.pack_runs(here))
        self.shell.apply(Resume(seat.connection, ask.session, seat.name, runs))

    def _frame(self, link: Link, ask: Ask) -> None:
        if link.seat is None or not link.is_open:
            return
        entry = self.book.where(ask.group)
        if self._is_known(link, ask):
            self._apply(link, ask)
        elif self._is_refused(entry, ask):
            link.tell_not_here(ask, entry.version, entry.shard)
        elif entry.state is Is.HERE and ask.version == entry.version:
            self._apply(link, ask)
        else:  # it is frozen, or on its way here: whoever says so has heard of MOVED
            self._held.append((link, ask))

    def _is_known(self, link: Link, ask: Ask) -> bool:
        """Whether a frame was applied before, wherever its group is now: its outcome is in the window of here."""
        assert self.shell is not None
        assert link.seat is not None
        assert ask.payload is not None
        frame = read_frame(ask.payload, link.seat.connection, 0.0)
        return ask.name[0] == "sequence" and self.shell.core.knows(frame)

    def _is_refused(self, entry: Entry, ask: Ask) -> bool:
        if ask.version == entry.version:
            return entry.state is Is.ELSEWHERE
        return ask.version < entry.version

    def _apply(self, link: Link, ask: Ask) -> None:
        assert self.shell is not None
        assert link.seat is not None
        assert ask.payload is not None
        self.shell.apply(read_frame(ask.payload, link.seat.connection, 0.0))

    def _hands_out(self, messages: list[Delivered]) -> None:
        self.world.hands_out(self, messages)

    def _look_again(self) -> None:
        """What became of a group is known: go on with what waited for it."""
        held, self._held = self._held, []
        for link, ask in held:
            self._frame(link, ask)

    def _send(self) -> None:
        for link in list(self._links.values()):
            assert link.seat is not None
            headers, link.seat.inbox = link.seat.inbox, []
            for header in headers:
                link.tell(header, is_void=not self.world.leads(self))
            if link.seat.closed and link.is_open:
                link.drop()

    # -- the source of a move ---------------------------------------------------------------------

    async def _read(self, letter: Letter) -> None:
        await READS[type(letter)](self, letter)

    async def _freeze(self, letter: Freeze) -> None:
        entry = self.book.where(letter.group)
        if entry.state is Is.ELSEWHERE:
            self._write(letter.sender, NotMine(letter.group, self.shard, entry.shard))
            return
        if entry.state is Is.HERE:
            if not self._is_quiet(letter.group):
                return
            attempt = self.world.next_attempt()
            await self._append(
                self._item(Frozen(letter.group, entry.version + 1, letter.sender, attempt))
            )
            entry = self.book.where(letter.group)
        if entry.shard == letter.sender:
            self._write(
                letter.sender,
                IsFrozen(
                    letter.group,
                    self.shard,
                    entry.version + 1,
                    entry.attempt,
                    self.fence.position,
                ),
            )

    def _is_quiet(self, group: str) -> bool:
        """Whether no message of a group is held unbegun, or may be begun by somebody who is not back yet."""
        assert self.shell is not None
        store = self.shell.store
        queues = [queue for queue in store.queues.values() if group_of(queue.name) == group]
        return all(store.hands_out(queue.group) and not queue.group.held for queue in queues)

    async def _give_up(self, letter: GiveUp) -> None:
        entry = self.book.where(letter.group)
        if letter.attempt in self.book.moved:
            self._write(letter.sender, IsMoved(letter.group, self.shard, letter.attempt))
        elif self._is_over(entry, letter):
            self._write(letter.sender, IsOver(letter.group, self.shard, letter.attempt))
        elif self._is_asked_for(entry, letter):
            batch = self._end_queues(letter.group)
            says = Moved(letter.group, entry.version + 1, entry.shard, letter.attempt)
            await self._append(self._item(says, batch))
            if batch is not None:
                assert self.shell is not None
                self.shell.sync_one()
            self._write(letter.sender, IsMoved(letter.group, self.shard, letter.attempt))
            self._look_again()

    def _is_over(self, entry: Entry, letter: GiveUp) -> bool:
        return letter.attempt in self.book.thawed

    def _is_asked_for(self, entry: Entry, letter: GiveUp) -> bool:
        return entry.state is Is.FROZEN and entry.attempt == letter.attempt

    def _end_queues(self, group: str) -> Batch | None:
        assert self.shell is not None
        shell = self.shell
        assert not shell.open
        assert not shell.closed
        operator = shell.hello("operator")
        names = [queue.name for queue in shell.store.queues.values() if not queue.is_dlq]
        for name in names:
            if group_of(name) == group:
                operator.delete(name, force=True)
        shell.disconnect(operator)
        shell.close_batch()
        return shell.closed[0] if shell.closed else None

    async def _thaw_late(self) -> None:
        for group, entry in list(self.book.entries.items()):
            if entry.state is not Is.FROZEN:
                continue
            since = self._frozen_since.setdefault(entry.attempt, self._turns)
            if (
                self._turns - since > THAW_TURNS
                or self.world.random.random() < self.world.trouble.thaw
            ):
                await self._append(self._item(Thawed(group, entry.attempt)))
                self._look_again()

    # -- the target of a move ---------------------------------------------------------------------

    async def _fetch(self) -> None:
        """Go on with what comes here, or shall."""
        groups = {*self.book.arrivals, *self.world.wished(self.shard)}
        for group in sorted(groups):
            entry = self.book.where(group)
            if entry.state is not Is.ELSEWHERE:
                continue
            arrival = self.book.arrivals.get(group)
            if arrival is not None and arrival.complete is not None:
                if self._turns % ASK_TURNS == 0:
                    letter = GiveUp(group, self.shard, arrival.attempt)
                    self._write(arrival.complete.source, letter)
            elif group in self._frozen:
                frozen = self._frozen.pop(group)
                if self._is_new(entry, frozen):
                    await self._copy(group, frozen)
            elif self._turns % ASK_TURNS == 0 and group in self.world.wished(self.shard):
                self._write(self._sources.get(group, entry.shard), Freeze(group, self.shard))

    def _is_new(self, entry: Entry, frozen: IsFrozen) -> bool:
        """Whether an attempt is not one that came to an end here: letters are late."""
        return frozen.version > entry.version

    async def _copy(self, group: str, frozen: IsFrozen) -> None:
        book = await self._state_at(frozen)
        if book is None:
            return
        found = copies(book, group, self._time_for(book), self.world.unix_ms)
        half = len(found) // 2
        for part, records in enumerate((found[:half], found[half:])):
            says = Coming(group, frozen.attempt, records, is_first=not part)
            await self._append(self._item(says))
        await self._append(
            self._item(Complete(group, frozen.version, frozen.attempt, frozen.sender, book.epoch))
        )

    def _time_for(self, source: Book) -> int:
        assert self.shell is not None
        return self.shell.now_ms

    async def _state_at(self, frozen: IsFrozen) -> Book | None:
        """Read the log of a source up to the record of an attempt."""
        book = Book(frozen.sender, self.world.shards)
        async for some in self._fence(frozen.sender).read(1, frozen.upto):
            for entry in some:
                item = self.world.items[entry.body]
                book.read(item)
                if isinstance(item.says, Frozen) and item.says.attempt == frozen.attempt:
                    return book
        return None

    async def _is_frozen(self, letter: IsFrozen) -> None:
        arrival = self.book.arrivals.get(letter.group)
        if arrival is None or arrival.complete is None:
            self._frozen[letter.group] = letter

    async def _is_moved(self, letter: IsMoved) -> None:
        arrival = self.book.arrivals.get(letter.group)
        if arrival is None or arrival.complete is None or arrival.attempt != letter.attempt:
            return
        await self._open(letter.group, arrival.complete)

    async def _open(self, group: str, complete: Complete) -> None:
        await self._append(self._item(Here(group, complete.version, complete.attempt)))
        self._open_core()

    async def _is_over_there(self, letter: IsOver) -> None:
        arrival = self.book.arrivals.get(letter.group)
        if arrival is not None and arrival.attempt == letter.attempt:
            del self.book.arrivals[letter.group]

    async def _is_elsewhere(self, letter: NotMine) -> None:
        if letter.shard != self.shard:
            self._sources[letter.group] = letter.shard

    def _write(self, shard: int, letter: Letter) -> None:
        self.world.post(shard, letter)


READS: Final[dict[type, Any]] = {
    Freeze: lambda broker, letter: broker._freeze(letter),
    GiveUp: lambda broker, letter: broker._give_up(letter),
    IsFrozen: lambda broker, letter: broker._is_frozen(letter),
    IsMoved: lambda broker, letter: broker._is_moved(letter),
    IsOver: lambda broker, letter: broker._is_over_there(letter),
    NotMine: lambda broker, letter: broker._is_elsewhere(letter),
}


def owner_of(entry: StreamEntry) -> int:
    """Return which broker wrote an entry."""
    return int(entry.body.partition(b":")[0])
