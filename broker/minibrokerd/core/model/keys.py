"""What a queue knows of its keys where it limits them: which are open, and which are closed for now.

A key is an object while something of it is in work (held or begun), came back and holds its place, or is set for
it; a queue without any of this has none. The lane of a closed key stands out of turn, with all that it has; it is
looked at again when something of that key ends or comes back, or at a time, never by a walk over keys.

Where one message of a key is in work at a time their order is strict: one that was in work and waits again, for a
retry or because its worker gave it back, holds the key until it was handed out again or has ended. That it was in
work stands in the message itself (`is_back`), so a start knows the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from minibrokerd.core.model.kept import RATE
from minibrokerd.core.model.key import FOR_EVER_MS, Key, is_back
from minibrokerd.core.model.messages import NEVER, Item, Message
from minibrokerd.core.model.rates import Rate, rate_of
from minibrokerd.core.model.wheel import TICK_MS

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.index import Index
    from minibrokerd.core.model.key_circuits import KeyCircuit, KeyCircuits
    from minibrokerd.core.model.lanes import Lanes
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

STEP_LOOKS: Final = 2_000  # items or lanes that one step of other settings looks at, about 2 ms
# A record says that tokens of a rate are taken so far ahead, so few are written.
AHEAD_MS: Final = 1_000
OF_QUEUE: Final = ""  # the name of the bucket of the queue itself
# Why a key, or its queue, hands nothing out: codes of minibroker.contract.reasons.
BUSY: Final = "key_busy"
WAITS: Final = "key_waits"
PAUSED: Final = "key_paused"
RATED: Final = "key_rate"
QUEUE_RATED: Final = "rate"
CIRCUIT_OPEN: Final = "key_circuit_open"
CIRCUIT_PROBING: Final = "key_circuit_probing"


class Closed(NamedTuple):
    """Why a key is closed: a code, when that is over (log time; 0: nobody knows), and the message it is about."""

    reason: str
    until_ms: int = 0
    first: Message | None = None


class Says(NamedTuple):
    """What the settings of a queue say: messages of a key in work, and rates as (count, period in ms, burst).

    `blocks`: a message that died and was sent back goes first again. `breaks`: each key has a circuit.
    """

    most: int
    each: tuple[int, int, int]
    whole: tuple[int, int, int]
    blocks: bool = False
    breaks: bool = False


NO_RATE: Final = (0, 0, 0)
NOTHING_SAID: Final = Says(0, NO_RATE, NO_RATE)


class Keys:
    """The keys of a group; `most` of the messages of each may be in work (0: any number)."""

    __slots__ = (
        "_by_name",
        "_counts",
        "_group",
        "_store",
        "circuits",
        "each",
        "is_counting",
        "most",
        "names_set",
        "says",
        "whole",
    )

    def __init__(self, store: Store, group: Group) -> None:
        self._store = store
        self._group = group
        self._by_name: dict[str, Key] = {}
        self.names_set: dict[str, None] = {}  # keys for which something is set, or was
        self._counts = 0  # how often it was counted anew
        self.is_counting = False  # after other settings: nothing is handed out meanwhile
        self.says = NOTHING_SAID
        self.most = 0
        self.each: Rate | None = None  # of each key
        self.whole: Rate | None = None  # of the queue
        self.circuits: KeyCircuits | None = None  # where the settings want them by key

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def is_strict(self) -> bool:
        """Whether the messages of a key are worked on in their order."""
        return self.most == 1

    @property
    def is_needed(self) -> bool:
        """Whether anything is limited, or set for a key."""
        return self.says != NOTHING_SAID or bool(self._by_name)

    # -- for those who hand out -------------------------------------------------------------------

    def is_open(self, name: str, lanes: Lanes) -> bool:
        """Whether something of a key may be handed out now, out of these lanes; if not, it is woken then."""
        key = self._by_name.get(name)
        if key is None:
            if (
                self.each is None
                or self.each.due_ms(name, self._store.now_ms) <= self._store.now_ms
            ):
                return True
            key = self._made(name)
        return self._look(key) and _is_next_in(lanes, key.first())

    def turn_of(self, name: str, wanted: int, *, alone: bool) -> tuple[Message | None, int]:
        """Return what an open key gives: the message that goes before all others of it, or how many of `wanted`.

        At least one. Beside others a key gives in its turn as many as its weight says.
        """
        key, most = self._by_name.get(name), self.most
        if key is None:
            if not alone:
                return None, 1
            wanted = min(wanted, most or wanted)
        else:
            if key.back:
                return key.first(), 1
            if key.circuit is not None:
                return None, 1
            if not alone:
                wanted = min(wanted, key.left or key.weight)
            if most:
                wanted = min(wanted, most - key.work)
        if self.each is not None and wanted > 1:
            wanted = min(wanted, self.each.room(name, self._store.now_ms))
        return None, max(wanted, 1)

    def took(self, item: Item, lanes: Lanes) -> bool:
        """Count an item that is being delivered out of these lanes; return whether its key is open still.

        If it is not, they take its lane out of turn; no lane of another priority of it stands there any more.
        """
        name, count = item.key, item.stop - item.first
        key = self._by_name.get(name)
        has_tokens = self.each is None or self._charge(self.each, name, count, item)
        if key is None and has_tokens:  # nothing else is known of it, as of nearly all keys
            if not self.most:
                return True
            self._by_name[name] = Key(name, count)
            is_open = count < self.most
        else:
            is_open = self._took(key, item, count, has_tokens=has_tokens)
        if not is_open and self._group.lanes is not lanes:
            for others in self._group.lanes.levels:
                others.put_in_turn(name, is_open=False)
        return is_open

    def _took(self, key: Key | None, item: Item, count: int, *, has_tokens: bool) -> bool:
        if key is None:
            key = self._made(item.key)
        if key.circuit is not None:
            key.circuit.gave(item)
        if self.most:
            key.work += count
            key.went(item)
        is_simple = has_tokens and key.is_plain
        is_open = (not self.most or key.work < self.most) if is_simple else self._look(key)
        self._drop_if_unused(key)  # of a closed one, too: what comes later looks at its tokens
        return is_open

    def untook(self, item: Item) -> None:
        """An item was not delivered after all: it costs no token, and is in work no more."""
        if self.each is not None:
            self.each.take(item.key, -(item.stop - item.first), self._store.now_ms)
        self.ended_work((item,))
        if self.each is not None and not self.most:  # then no end of work opens a key
            self._settle(self._made(item.key))

    def keeps_turn(self, name: str, count: int) -> bool:
        """Whether a key that gave so many messages in its turn gives more of them."""
        key = self._by_name.get(name)
        if key is None or key.weight <= 1:
            return False
        key.left = max((key.left or key.weight) - count, 0)
        return key.left > 0

    def most_now(self) -> int:
        """Return how many messages may be handed out now, at the most."""
        lanes = self._group.lanes
        if lanes.has_any() or not self.most:
            return lanes.ready
        return min(lanes.ready, lanes.turns * self.most)

    def queue_room(self, wanted: int) -> int:
        """Return how many of `wanted` messages the rate of the queue allows now; none: it is woken."""
        if self.whole is None:
            return wanted
        room = self.whole.room(OF_QUEUE, self._store.now_ms)
        if not room:
            self._wake_at(self._made(OF_QUEUE), self._due_of_queue())
        return min(wanted, room)

    def delivered(self, items: Sequence[Item]) -> None:
        """Count messages that are delivered, whatever their keys."""
        if self.whole is not None:
            count = sum([item.stop - item.first for item in items])
            self._charge(self.whole, OF_QUEUE, count, items[0])

    def why_closed(self, name: str) -> Closed | None:
        """Return why a key is closed, or its queue; None: both are open."""
        key = self._by_name.get(name) if name else None
        closed = self._why(key) if key is not None else None
        if closed is None and self.whole is not None and self._due_of_queue() > self._store.now_ms:
            return Closed(QUEUE_RATED, self._due_of_queue())
        return closed

    # -- for those who change the state of a message ------------------------------------------------

    def works(self, items: Sequence[Item]) -> None:
        """Count items that are in work now, and were not handed out."""
        if self.most:
            for item in items:
                if item.key:
                    key = self._made(item.key)
                    key.work += item.stop - item.first
                    self._settle(key)

    def ended_work(self, items: Sequence[Item]) -> None:
        """Count items that are in work no more."""
        by_name, most, opened = self._by_name, self.most, list[str]()
        for item in items if most else ():
            if not item.key:
                continue
            key = by_name[item.key]
            key.work -= item.stop - item.first
            assert key.work >= 0, "more messages of a key ended than were in work"
            if self.each is not None or not key.is_plain:
                self._tried(key, item)
                self._settle(key)
                continue
            if not key.work:
                del by_name[item.key]
            if key.work < most:
                opened.append(item.key)
        for lanes in self._group.lanes.levels if opened else ():
            for name in opened:
                if lanes.put_in_turn(name, is_open=True):
                    self._store.touch(self._group)
        if not most and self.circuits is not None and self.circuits.open:
            self._tried_ended(items)

    def _tried_ended(self, items: Sequence[Item]) -> None:
        assert self.circuits is not None
        for item in items:
            if item.key in self.circuits.open:
                key = self._by_name[item.key]
                self._tried(key, item)
                self._settle(key)

    def _tried(self, key: Key, item: Item) -> None:
        """The message that is tried for an open circuit ended, somehow: the next one may be."""
        if key.circuit is not None and key.circuit.is_about(item):
            key.circuit.is_out = False

    def waits(self, item: Item) -> None:
        """Note an item that waits now, ready or delayed."""
        if not (self.is_strict and item.key and isinstance(item, Message)):
            return
        if is_back(item) or (self.says.blocks and item.redriven and not item.dead):
            key = self._made(item.key)
            key.came_back(item)
            self._settle(key)

    def left(self, item: Item) -> None:
        """Note an item that was taken out, by its id or because its delay is over; it does not wait here now."""
        key = self._by_name.get(item.key)
        if key is not None and key.went(item):
            self._settle(key)

    def forget_messages(self) -> None:
        """The group has no message any more."""
        for circuit in self.circuits.open.values() if self.circuits is not None else ():
            circuit.is_out = False
        self._forget_work()

    def _forget_work(self) -> None:
        for key in list(self._by_name.values()):
            key.work, key.back = 0, None
            if key.timer is not None:
                self._store.wheel.cancel(key.timer)
                key.timer = None
            self._drop_if_unused(key)

    # -- for those who set something ----------------------------------------------------------------

    def put(self, name: str, weight: int, paused_ms: int) -> None:
        """Let a key give so many messages in its turn, and none before a time (log time; 0: now)."""
        key = self._made(name)
        key.weight, key.left, key.paused_ms = weight, 0, paused_ms
        self.names_set[name] = None
        if paused_ms > self._store.now_ms:
            self._wake_at(key, paused_ms)  # if nothing of it waits then, it is forgotten
        self._settle(key)

    def put_circuit(self, name: str, circuit: KeyCircuit | None) -> None:
        """Let a key have a circuit that is not closed, or none; it is looked at again."""
        key = self._made(name)
        key.circuit = circuit
        self._settle(key)

    def circuit_of(self, name: str) -> KeyCircuit | None:
        """Return the circuit of a key that is not closed."""
        return self.circuits.open.get(name) if self.circuits is not None else None

    def recover(self, name: str, taken_to_ms: float) -> None:
        """A start found that tokens are taken up to a time."""
        rate, now_ms = self.each if name else self.whole, self._store.now_ms
        if rate is not None:
            # No more than a record can say while the clock goes on: it may have been set back since.
            most_ms = rate.ahead_ms + rate.interval_ms + _kept_ahead_ms(rate)
            rate.put(name, min(taken_to_ms, now_ms + most_ms), now_ms)
            if name:
                self._settle(self._made(name))

    def configure(self, says: Says) -> None:
        """Do what the settings say from now on."""
        self.says, self.most = says, says.most
        self.each, self.whole = rate_of(*says.each), rate_of(*says.whole)
        if self._group.count():
            self.count_anew()

    def count_anew(self) -> None:
        """Look at all that is there: the settings are others, or were set when messages were there already.

        What is in work is counted at once; the rest in steps, in which nothing is handed out.
        """
        self._forget_work()
        self.is_counting = True
        self._counts += 1
        for delivery in self._group.deliveries.values() if self.most else ():
            for item in delivery.items():
                if item.key:
                    self._made(item.key).work += item.stop - item.first
        in_steps(self._store, self._counting(self._counts))

    def _counting(self, number: int) -> Iterator[int]:
        group = self._group
        levels = group.lanes.levels
        if self.is_strict:
            for index in (group.later, *[lanes.index for lanes in levels]):
                yield from self._found_back(index, number)
        for lanes in levels:
            yield from lanes.put_all_in_turn()
        if self._counts == number:
            self.is_counting = False
            self._store.touch(group)
            if not self.is_needed:
                group.use_keys(None)

    def _found_back(self, index: Index, number: int) -> Iterator[int]:
        for items in index.after(0, 0):
            if index.queue is None or self._counts != number:
                return  # a purge took all of it, or the settings are others again
            for item in items:
                self.waits(item)
            yield len(items)

    # -- open or closed -----------------------------------------------------------------------------

    def _why(self, key: Key) -> Closed | None:
        """Return why a key is closed; None: it is open."""
        now_ms, circuit = self._store.now_ms, key.circuit
        if circuit is not None and circuit.until_ms > now_ms:
            return Closed(CIRCUIT_OPEN, circuit.until_ms)
        if circuit is not None and circuit.is_out:
            return Closed(CIRCUIT_PROBING)
        if self.most and key.work >= self.most:
            return Closed(BUSY)
        if key.paused_ms > now_ms:
            return Closed(PAUSED, key.paused_ms)
        key.paused_ms = 0
        first = key.first()
        if first is not None and first.timer is not None:  # it is DELAYED
            return Closed(WAITS, 0, first)
        if self.each is not None and self.each.due_ms(key.name, now_ms) > now_ms:
            return Closed(RATED, self.each.due_ms(key.name, now_ms))
        return None

    def _look(self, key: Key) -> bool:
        """Return whether a key is open; if it is not, and a time ends that, what waits is looked at again then."""
        closed = self._why(key)
        waits = any(lanes.has_key(key.name) for lanes in self._group.lanes.levels)
        if closed is not None and closed.until_ms and waits:
            self._wake_at(key, closed.until_ms)
        return closed is None

    def _settle(self, key: Key) -> None:
        """Let the lanes of a key stand in turn or out of it, as they should now."""
        is_open, first = self._look(key), key.first()
        self._drop_if_unused(key)
        for lanes in self._group.lanes.levels:
            if lanes.put_in_turn(key.name, is_open=is_open and _is_next_in(lanes, first)):
                self._store.touch(self._group)

    def _made(self, name: str) -> Key:
        key = self._by_name.get(name)
        if key is None:
            key = self._by_name[name] = Key(name)
        return key

    def _drop_if_unused(self, key: Key) -> None:
        if not key.is_needed:
            self._by_name.pop(key.name, None)
            self.names_set.pop(key.name, None)

    # -- time ---------------------------------------------------------------------------------------

    def _charge(self, rate: Rate, name: str, count: int, item: Item) -> bool:
        """Take tokens; the delivery of an item rests on the record that says so. Return: one is left."""
        store = self._store
        taken_to = rate.take(name, count, store.now_ms)
        until_unix_ms = store.unix_ms_at(round(taken_to))
        number = self._group.queue.number
        known = store.kept.find(store, RATE, (number, name))
        if known is None or int(known.value[0]) < until_unix_ms:
            until_unix_ms += _kept_ahead_ms(rate)
            store.kept.put(store, RATE, (number, name), (until_unix_ms,), until_unix_ms)
            item.batch = max(item.batch, store.open_batch)
            store.effects.wake = True
        elif store.synced < known.batch < NEVER:  # it says this ahead, and is not safe yet
            item.batch = max(item.batch, known.batch)
        return rate.due_after(taken_to) <= store.now_ms

    def _due_of_queue(self) -> int:
        assert self.whole is not None
        return self.whole.due_ms(OF_QUEUE, self._store.now_ms)

    def _wake_at(self, key: Key, at_ms: int) -> None:
        if at_ms >= FOR_EVER_MS:
            return
        if key.timer is None:
            key.timer = self._store.set_timer(_time_over, (self, key.name), at_ms)
        elif key.timer.tick * TICK_MS > at_ms:
            self._store.wheel.schedule(key.timer, at_ms)

    def time_over(self, name: str) -> None:
        """The time has come at which a key, or the queue, may be open again."""
        key = self._by_name.get(name)
        if key is None:
            return
        key.timer = None
        if name:
            self._settle(key)
        else:
            self._drop_if_unused(key)
            self._store.touch(self._group)


def _kept_ahead_ms(rate: Rate) -> int:
    """Return by how much a record says more than that is taken."""
    return AHEAD_MS if rate.interval_ms < AHEAD_MS else 0


def _time_over(store: Store, timer: Timer, argument: tuple[Keys, str]) -> None:
    keys, name = argument
    keys.time_over(name)


def _is_next_in(lanes: Lanes, first: Message | None) -> bool:
    """Whether lanes of one priority have the message of a key that goes before all others, if there is one."""
    return first is None or lanes.index.has(first)


def in_steps(store: Store, work: Iterator[int]) -> None:
    """Do work that yields how much it looked at: some of it now, the rest in steps."""

    def step() -> bool:
        looks = 0
        for some in work:
            looks += some
            if looks >= STEP_LOOKS:
                return False
        return True

    if not step():
        store.jobs.append(step)
