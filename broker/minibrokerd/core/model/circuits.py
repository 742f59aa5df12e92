"""Circuit breakers: a queue whose attempts fail hands nothing out for a while, then one message at a time.

What is broken is mostly not a message but what all of them call. While the circuit of a queue is open no attempt
is begun, and none is charged; then one message is tried, and its end decides. Settings say when a circuit opens,
and a queue whose settings have none (`circuit_failures_percent` is 0) has no object here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.kept import CIRCUIT

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.state import Store
    from minibrokerd.core.model.wheel import Timer

CLOSED: Final = 0
OPEN: Final = 1
PROBING: Final = 2
NAMES: Final = ("closed", "open", "probing")


class Circuit:
    """The circuit of one queue. Its window is two halves, the older of which is whole."""

    __slots__ = ("before", "now", "since_ms", "since_unix_ms", "state", "token", "until_ms", "why")

    def __init__(self, now_ms: int) -> None:
        self.state = CLOSED
        self.why = ""
        self.since_unix_ms = 0
        self.until_ms = 0  # of an open one: when a message is tried
        self.token = 0  # of a probing one: deliveries below it are older
        self.since_ms = now_ms  # the newer half of the window begins here
        self.now = (0, 0)  # attempts that failed, and that ended
        self.before = (0, 0)

    def note(self, now_ms: int, half_ms: int, failed: int, ended: int) -> tuple[int, int]:
        """Count attempts; return how many of how many failed within the window."""
        age_ms = now_ms - self.since_ms
        if age_ms >= half_ms:
            self.before = self.now if age_ms < 2 * half_ms else (0, 0)
            self.now, self.since_ms = (0, 0), now_ms
        self.now = self.now[0] + failed, self.now[1] + ended
        return self.now[0] + self.before[0], self.now[1] + self.before[1]

    def said(self, store: Store) -> dict[str, Any]:
        """Return what a client is told of it."""
        until_unix_ms = store.unix_ms_at(self.until_ms) if self.state == OPEN else 0
        return {
            "state": NAMES[self.state],
            "why": self.why,
            "since_unix_ms": self.since_unix_ms,
            "until_unix_ms": until_unix_ms,
        }


def arrange_circuit(store: Store, queue: Queue) -> None:
    """Have a circuit as the settings of a queue say; one that they do not want is closed."""
    group = queue.group
    wanted = has_circuit(queue, "queue")
    if wanted and group.circuit is None:
        group.circuit = Circuit(store.now_ms)
    elif not wanted and group.circuit is not None:
        if group.circuit.state != CLOSED:
            _close(store, queue, group.circuit)
        group.circuit = None


def has_circuit(queue: Queue, by: str) -> bool:
    """Whether the settings of a queue want a circuit of the whole `queue`, or of each `key`."""
    wanted = queue.setting("circuit_failures_percent") > 0 and not queue.is_dlq
    return wanted and queue.settings["circuit_by"] == by


def is_open(group: Group) -> bool:
    """Whether the circuit of a queue is not closed."""
    return group.circuit is not None and group.circuit.state != CLOSED


def spares(group: Group, key: str) -> bool:
    """Whether attempts of a key that end now are charged to nobody."""
    return is_open(group) or (group.keys is not None and group.keys.circuit_of(key) is not None)


def hands_out(group: Group) -> int:
    """Return how many messages a circuit that is not closed lets go now: one that is to be tried, or none."""
    circuit = group.circuit
    assert circuit is not None
    if circuit.state == OPEN:
        return 0
    newest = next(reversed(group.deliveries), 0)
    return int(newest < circuit.token)  # what was handed out since is being tried


def ended(
    store: Store, queue: Queue, token: int, *, failed: int, count: int, why: str = ""
) -> None:
    """Note attempts that ended under a token, `failed` of them badly; the queue has a circuit."""
    circuit = queue.group.circuit
    assert circuit is not None
    if circuit.state == CLOSED:
        half_ms = queue.setting("circuit_window_ms") // 2
        bad, all = circuit.note(store.now_ms, half_ms, failed, count)
        share = queue.setting("circuit_failures_percent")
        if failed and all >= queue.setting("circuit_attempts") and 100 * bad >= share * all:
            _open(store, queue, circuit, f"{bad} of {all} attempts failed, the last one with {why}")
    elif circuit.state == PROBING and token >= circuit.token:
        if failed:
            _open(store, queue, circuit, f"the message that was tried failed, with {why}")
        else:
            _close(store, queue, circuit)


def go_on(store: Store) -> None:
    """Have circuits as they were, after a start."""
    for entry in [entry for entry in store.kept if entry.kind is CIRCUIT]:
        of = store.by_number.get(int(entry.key[0]))
        circuit = of.group.circuit if of is not None else None
        if of is None or circuit is None:
            store.kept.end(store, CIRCUIT, entry.key)
            continue
        state, since_unix_ms, until_unix_ms, why = entry.value
        assert isinstance(why, bytes)
        circuit.state, circuit.since_unix_ms = int(state), int(since_unix_ms)
        circuit.why = why.decode(errors="replace")
        if circuit.state == OPEN:
            longest_ms = of.setting("circuit_open_ms")
            left_ms = min(max(int(until_unix_ms) - store.unix_ms, 0), longest_ms)
            _wait(store, of, circuit, left_ms)
        else:
            circuit.token = store.next_token()


def _open(store: Store, queue: Queue, circuit: Circuit, why: str) -> None:
    if circuit.state == CLOSED:
        circuit.since_unix_ms = store.unix_ms
    circuit.state, circuit.why = OPEN, why
    circuit.now = circuit.before = (0, 0)
    _wait(store, queue, circuit, queue.setting("circuit_open_ms"))
    _keep(store, queue, circuit)
    store.effects.note("circuit_opened", queue=queue.name, text=why)


def _wait(store: Store, queue: Queue, circuit: Circuit, wait_ms: int) -> None:
    circuit.until_ms = store.now_ms + wait_ms
    store.set_timer(_probe, queue, circuit.until_ms)


def _probe(store: Store, timer: Timer, queue: Queue) -> None:
    """Try one message, if it is still time for that."""
    circuit = queue.group.circuit
    if store.by_number.get(queue.number) is not queue or circuit is None:
        return
    if circuit.state == OPEN and store.now_ms >= circuit.until_ms:
        circuit.state, circuit.token = PROBING, store.next_token()
        _keep(store, queue, circuit)
        store.touch(queue.group)


def _close(store: Store, queue: Queue, circuit: Circuit) -> None:
    circuit.state, circuit.why, circuit.since_unix_ms = CLOSED, "", 0
    store.kept.end(store, CIRCUIT, (queue.number,))
    store.effects.note("circuit_closed", queue=queue.name)
    store.touch(queue.group)


def _keep(store: Store, queue: Queue, circuit: Circuit) -> None:
    until_unix_ms = store.unix_ms_at(circuit.until_ms) if circuit.state == OPEN else 0
    value = circuit.state, circuit.since_unix_ms, until_unix_ms, circuit.why.encode()
    store.kept.put(store, CIRCUIT, (queue.number,), value)
