"""Circuit breakers of single keys: one whose attempts fail gives nothing for a while, then one message at a time.

As the circuit of a queue (circuits.py), by the same settings, where `circuit_by` is `key`. An open one closes its
key (keys.py), which is woken when a message may be tried. What a key costs begins with its first failure: two
numbers in a window of two halves, which all keys of the queue share, so a half that is over is dropped as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.circuits import NAMES, OPEN, PROBING
from minibrokerd.core.model.kept import KEY_CIRCUIT
from minibrokerd.core.model.keys import Keys, in_steps
from minibrokerd.core.model.wheel import TICK_MS

if TYPE_CHECKING:
    from minibrokerd.core.model.key import Place
    from minibrokerd.core.model.messages import Item
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

MOST_FAILING: Final = 100_000  # keys in the windows of all queues
TELL_MS: Final = 10_000  # an operator hears of what opened and closed so long after the first of it
CLOSE_LOOKS: Final = 20  # what it costs to close one, beside a look of `in_steps`
NOTHING: Final = (0, 0)  # attempts that failed, and that ended


class KeyCircuit:
    """The circuit of one key, which is not closed: from `until_ms` (log time) on one message is tried at a time.

    `tried` is the last one that was given for that; `is_out`: it has not ended.
    """

    __slots__ = ("is_out", "since_unix_ms", "tried", "until_ms", "why")

    def __init__(self, since_unix_ms: int, until_ms: int, why: str) -> None:
        self.since_unix_ms = since_unix_ms
        self.until_ms = until_ms
        self.why = why
        self.tried: Place | None = None
        self.is_out = False

    def gave(self, item: Item) -> None:
        """Note that a message is handed out to be tried."""
        self.tried, self.is_out = (item.block.origin, item.first), True

    def is_about(self, item: Item) -> bool:
        """Whether this is the message that is being tried."""
        return self.is_out and self.tried == (item.block.origin, item.first)

    def said(self, store: Store) -> dict[str, Any]:
        """Return what a client is told of it, as of the circuit of a queue."""
        is_open = self.until_ms > store.now_ms
        return {
            "state": NAMES[OPEN if is_open else PROBING],
            "why": self.why,
            "since_unix_ms": self.since_unix_ms,
            "until_unix_ms": store.unix_ms_at(self.until_ms) if is_open else 0,
        }


class KeyCircuits:
    """What a queue knows of its keys that failed of late; `open` are the circuits that are not closed."""

    __slots__ = (
        "_before",
        "_changes",
        "_keys",
        "_now",
        "_store",
        "_turns",
        "failing",
        "open",
        "queue",
    )

    def __init__(self, store: Store, queue: Queue, keys: Keys) -> None:
        self._store = store
        self.queue = queue
        self._keys = keys
        self.open: dict[str, KeyCircuit] = {}
        self._now: dict[str, tuple[int, int]] = {}
        self._before: dict[str, tuple[int, int]] = {}  # the older half of the window
        self.failing = 0  # keys that are in one of these
        self._turns = False  # a timer ends this half
        self._changes: list[int] | None = None  # [opened, closed] since an operator heard of it

    @property
    def any_failed(self) -> bool:
        """Whether acks say something: of a key that failed of late, or is open."""
        return bool(self.open or self._now or self._before)

    def failed(self, item: Item, why: str) -> None:
        """Note an attempt that failed; a key opens with too many of them."""
        name, circuit = item.key, self.open.get(item.key)
        if circuit is not None:
            if circuit.is_about(item):
                self._open(name, f"the message that was tried failed, with {why}")
        elif name:
            bad, all = self._count(name, 1, 1)
            share = self.queue.setting("circuit_failures_percent")
            if all >= self.queue.setting("circuit_attempts") and 100 * bad >= share * all:
                self._open(name, f"{bad} of {all} attempts failed, the last one with {why}")

    def acked(self, item: Item) -> None:
        """Note attempts that were good; nothing is remembered of a key that did not fail."""
        name, circuit = item.key, self.open.get(item.key)
        if circuit is not None:
            if circuit.is_about(item):
                self.close(name)
        elif name in self._now or name in self._before:
            self._count(name, 0, item.stop - item.first)

    def close(self, name: str) -> None:
        """Let a key go on, if its circuit is not closed."""
        if self.open.pop(name, None) is not None:
            self._store.kept.end(self._store, KEY_CIRCUIT, (self.queue.number, name))
            self._closed(name)

    def forgotten(self, name: str) -> None:
        """There are too many circuits in the server, and what is kept of this one was forgotten."""
        if self.open.pop(name, None) is not None:
            self._closed(name)

    def recover(self, name: str, since_unix_ms: int, until_unix_ms: int, why: str) -> None:
        """Have a circuit as it was before a start."""
        longest_ms = self.queue.setting("circuit_open_ms")
        left_ms = min(max(until_unix_ms - self._store.unix_ms, 0), longest_ms)
        until_ms = _to_tick(self._store.now_ms + left_ms)
        self.open[name] = KeyCircuit(since_unix_ms, until_ms, why)
        self._added()
        self._keys.put_circuit(name, self.open[name])

    def end(self) -> None:
        """The queue ends, or wants no circuits of keys any more: close all, in steps."""
        self._turn()
        self._turn()
        in_steps(self._store, self._closing())

    def _closing(self) -> Iterator[int]:
        while self.open:
            self.close(next(reversed(self.open)))
            yield CLOSE_LOOKS

    # -- the window -----------------------------------------------------------------------------

    def _count(self, name: str, failed: int, ended: int) -> tuple[int, int]:
        """Count attempts of a key; return how many of how many failed within the window."""
        if name not in self._now and not self._has_room():
            return NOTHING
        bad, all = self._now.get(name, NOTHING)
        if name not in self._now:
            self.failing += name not in self._before
            self._store.sums.failing_keys += 1
            self._wait_to_turn()
        self._now[name] = bad, all = bad + failed, all + ended
        bad_before, all_before = self._before.get(name, NOTHING)
        return bad + bad_before, all + all_before

    def _has_room(self) -> bool:
        """Whether one more key may be counted; what is oldest here goes first."""
        sums = self._store.sums
        for _ in range(2):
            if sums.failing_keys >= MOST_FAILING:
                self._turn()
        return sums.failing_keys < MOST_FAILING

    def _turn(self) -> None:
        """Begin a half of the window, and forget the one before this one."""
        old, self._before, self._now = self._before, self._now, {}
        self.failing = len(self._before)
        self._store.sums.failing_keys -= len(old)
        in_steps(self._store, _emptied(old))

    def _forget(self, name: str) -> None:
        halves = [half for half in (self._now, self._before) if half.pop(name, None) is not None]
        self._store.sums.failing_keys -= len(halves)
        self.failing -= bool(halves)

    def _wait_to_turn(self) -> None:
        if not self._turns:
            self._turns = True
            half_ms = self.queue.setting("circuit_window_ms") // 2
            self._store.set_timer(_half_over, self, self._store.now_ms + half_ms)

    def half_over(self) -> None:
        """Half of the window is over."""
        self._turns = False
        self._turn()
        if self._before:
            self._wait_to_turn()

    # -- open and closed ------------------------------------------------------------------------

    def _open(self, name: str, why: str) -> None:
        store, circuit = self._store, self.open.get(name)
        until_ms = _to_tick(store.now_ms + self.queue.setting("circuit_open_ms"))
        if circuit is None:
            circuit = self.open[name] = KeyCircuit(store.unix_ms, until_ms, why)
            self._added()
            self._forget(name)
            self._changed()[0] += 1
        circuit.until_ms, circuit.why, circuit.is_out = until_ms, why, False
        value = circuit.since_unix_ms, store.unix_ms_at(until_ms), why.encode()
        forgotten = store.kept.put(store, KEY_CIRCUIT, (self.queue.number, name), value)
        if forgotten is not None:
            _forget(store, *forgotten)
        self._keys.put_circuit(name, circuit)

    def _added(self) -> None:
        self._store.sums.key_circuits += 1
        self._store.sums.broken[self] = None

    def _closed(self, name: str) -> None:
        self._store.sums.key_circuits -= 1
        if not self.open:
            del self._store.sums.broken[self]
        self._changed()[1] += 1
        self._keys.put_circuit(name, None)

    def _changed(self) -> list[int]:
        if self._changes is None:
            self._changes = [0, 0]
            self._store.set_timer(_tell_operator, self, self._store.now_ms + TELL_MS)
        return self._changes

    def tell_operator(self) -> None:
        """Have the log of the server say what changed."""
        if self._changes is None:
            return
        opened, closed = self._changes
        self._changes = None
        name, text = "", ""
        if self.open:
            name, circuit = next(reversed(self.open.items()))
            text = circuit.why
        self._store.effects.note(
            "key_circuits", queue=self.queue.name, opened=opened, closed=closed,
            open=len(self.open), key=name, text=text,
        )  # fmt: skip


def arrange_key_circuits(store: Store, queue: Queue, keys: Keys, *, wanted: bool) -> None:
    """Have circuits of keys as the settings of a queue say; those that they do not want are closed."""
    if wanted and keys.circuits is None:
        keys.circuits = KeyCircuits(store, queue, keys)
    elif not wanted and keys.circuits is not None:
        keys.circuits.end()
        keys.circuits = None


def opened(store: Store) -> None:
    """End a replay: have circuits of keys as they were."""
    for entry in list(store.kept.of(KEY_CIRCUIT)):
        number, name = entry.key
        queue = store.by_number.get(int(number))
        circuits = queue.group.key_circuits if queue is not None else None
        if circuits is None:
            store.kept.forget(KEY_CIRCUIT, entry.key)  # its queue was deleted, or wants none
            continue
        since_unix_ms, until_unix_ms, why = entry.value
        assert isinstance(why, bytes)
        text = why.decode(errors="replace")
        circuits.recover(str(name), int(since_unix_ms), int(until_unix_ms), text)


def _forget(store: Store, number: int | str, name: int | str) -> None:
    queue = store.by_number.get(int(number))
    circuits = queue.group.key_circuits if queue is not None else None
    if circuits is not None:
        circuits.forgotten(str(name))


def _to_tick(ms: int) -> int:
    """Return when a timer for a time fires: a message is tried when it is said, and neither before nor after."""
    return -(-ms // TICK_MS) * TICK_MS


def _emptied(counts: dict[str, tuple[int, int]]) -> Iterator[int]:
    while counts:
        counts.popitem()
        yield 1


def _half_over(store: Store, timer: Timer, circuits: KeyCircuits) -> None:
    circuits.half_over()


def _tell_operator(store: Store, timer: Timer, circuits: KeyCircuits) -> None:
    circuits.tell_operator()
