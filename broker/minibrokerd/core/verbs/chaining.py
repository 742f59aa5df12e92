"""Publishes that come after others (docs/decisions/0056): what they wait for, and how they go on."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any, Final, NamedTuple

from minibroker.contract import limits
from minibroker.contract.ends import IF_DEAD, Outcome
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.wire import RUN
from minibrokerd.core.model import chains
from minibrokerd.core.model.chains import Chain
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.messages import MEMORY, Block, is_dead, singles_of
from minibrokerd.core.model.noting import ids_in, may_know
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.results import Asked, Id
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait
from minibrokerd.core.model.wheel import TICK_MS, Timer
from minibrokerd.core.verbs.finding import take_waiting
from minibrokerd.core.verbs.moving import dead_letter

CAUSE: Final = "predecessor"
DEAD_LETTER, RUNS = IF_DEAD
MOST_LOOKS: Final = (
    100_000  # at queues, for messages that are in none of those where they should be
)
STEP_IDS: Final = 1_000  # predecessors that one apply looks for after a start
GO_ON_BYTES: Final = 4_096  # of records of one that goes on


class After(NamedTuple):
    """What a publish waits for that was checked: ids, and what those came to that have ended."""

    ids: list[Id]
    outcomes: dict[Id, Outcome]


def check_after(
    store: Store, connection: int, part: Any, columns: dict[str, Any], *, is_step: bool
) -> After | None:
    """Return what a publish part waits for; None: for nothing.

    Raises:
        Broken: it has more than one message, or no ids.
        Refused: `bad_value`, `unknown_message`, `limit_reached`.
    """
    if not (part.after or part.after_step):
        return None
    if (part.if_dead or DEAD_LETTER) not in IF_DEAD:
        modes = " or ".join(IF_DEAD)
        raise Refused("bad_value", f"if_dead is {part.if_dead!r:.100}; it must be {modes}")
    if part.count != 1 or len(part.after) % RUN.size:
        raise Broken(
            "a publish that comes after others has one message, and names them by a run column"
        )
    if columns.keys() - {"key", "encoding"}:
        raise Refused(
            "bad_value", "what comes after others has no unique key, dedupe id or column of delays"
        )
    if part.after_step and not is_step:
        raise Broken("only a part of a step comes after the others of it")
    ids = list(_ids(part.after))
    if len(ids) > limits.MAX_AFTER or store.chains.awaited + len(ids) > limits.MAX_AWAITED:
        _refuse_many(store, len(ids))
    found = _found(store, ids)
    outcomes = {id: Outcome.DEAD for id, (_, is_over) in found.items() if is_over}
    for id in ids:
        known = store.kept.get(store, RESULT, id) if id not in found else None
        place = found[id][0] if id in found else 0 if known is None else int(known[3])
        if not (place and may_know(store, Asked(connection, 0, 0, id, None), place)):
            text = f"of message {id[0]}-{id[1]} nothing is known: it ended and no result is kept, or it never was"
            raise Refused("unknown_message", text)
        if known is not None:
            outcomes[id] = Outcome(int(known[0]))
    return After(ids, outcomes)


def _ids(column: bytes) -> Iterator[Id]:
    seen: set[Id] = set()
    for _, origin, first, count in RUN.iter_unpack(column):
        if count > limits.MAX_AFTER:
            raise Refused("limit_reached", f"a message waits for at most {limits.MAX_AFTER} others")
        for sequence in range(first, first + count):
            if (origin, sequence) not in seen:
                seen.add((origin, sequence))
                yield origin, sequence


def _refuse_many(store: Store, count: int) -> None:
    raise Refused(
        "limit_reached",
        f"a message waits for at most {limits.MAX_AFTER} others, and all together for {limits.MAX_AWAITED}; "
        f"{count} more were named, and {store.chains.awaited} are awaited",
    )


def _found(store: Store, ids: Iterable[Id], *, near: bool = False) -> dict[Id, tuple[int, bool]]:
    """Return which of these messages are there: the number of the queue of each, and whether it is dead.

    `near`: only of those that are where they should be.
    """
    found: dict[Id, tuple[int, bool]] = {}
    for queue, some in _places(store, ids, found, near=near):
        for id in ids_in(store, queue, some):
            found[id] = queue.number, queue.is_dlq or is_dead(queue.group.later.find(*id))
    return found


def _places(
    store: Store, ids: Iterable[Id], found: Container[Id] = (), *, near: bool = False
) -> Iterator[tuple[Queue, list[Id]]]:
    """Yield where messages may be: where they were published, the dead-letter queue of that; then all queues.

    `found` are those that are looked for no more; it grows meanwhile. `near`: not in all queues.
    """
    by_home: dict[int, list[Id]] = {}
    for id in ids:
        by_home.setdefault(id[0], []).append(id)
    for origin, some in by_home.items():
        home = store.by_number.get(origin)
        if home is not None:
            yield home, some
            dlq = store.queues.get(home.name + DLQ_SUFFIX)
            if dlq is not None:
                yield dlq, some
    if near:
        return
    missing = [id for some in by_home.values() for id in some if id not in found]
    if missing and len(missing) * len(store.queues) <= MOST_LOOKS:
        for queue in store.queues.values():
            yield queue, missing


def begin(store: Store, after: After, part: Any, block: Block, published: Iterable[Run]) -> None:
    """Let a message that was published wait; `published` are those of the parts before it in its step."""
    ids = list(after.ids)
    if part.after_step:
        ids += [(run[1], run[2] + at) for run in published for at in range(run[3])]
    chain = Chain(
        (block.origin, block.first),
        list(dict.fromkeys(ids)),
        runs_anyway=part.if_dead == RUNS,
        delay_ms=part.delay_ms,
        is_logged=block.durability != MEMORY,
    )
    for at, id in enumerate(chain.ids):
        outcome = after.outcomes.get(id)
        if outcome is None:
            outcome = store.chains.expected.get(id)
        if outcome is not None:
            chain.outcomes[at] = outcome + 1
    chain.left = chain.outcomes.count(0)
    chains.begin(store, chain)


# ---- going on ----


def go_on(store: Store, id: Id) -> bool:
    """Let a message go on whose predecessors have all ended, or die of one that died; a job of one step."""
    chain = store.chains.waiting.get(id)
    if chain is None or chain.left:
        return True
    queue = next(
        (queue for queue, some in _places(store, [id]) if ids_in(store, queue, some)), None
    )
    if queue is None:
        chains.end(store, chain)
        return True
    item = take_waiting(store, queue, *id)
    if item is None:  # its own publish is not safe yet
        store.set_timer(_try_again, id, store.now_ms + TICK_MS)
        return True
    store.keep_together(GO_ON_BYTES)
    (message,) = singles_of(item)
    done, dead = chain.counts()
    if dead and not chain.runs_anyway:
        text = f"{dead} of {dead + done} messages that it waited for did not end as done: {_names(chain)}"
        entry = AttemptMeta(0, 0, store.unix_ms, "", CAUSE, "", text)
        message.add_history(entry)
        dead_letter(store, queue, message, entry)
    else:
        chains.went(store, chain)
        message.ready_at_ms = store.now_ms + chain.delay_ms
        store.write_return(queue, [message], chain.delay_ms, None)
        wait(store, queue.group, message)
    store.touch(queue.group)
    return True


def _names(chain: Chain) -> str:
    ended = zip(chain.ids, chain.outcomes, strict=True)
    names = [f"{id[0]}-{id[1]} {Outcome(by - 1).name}" for id, by in ended if by not in chains.DONE]
    more = [f"{len(names) - chains.NAMED} more"] if len(names) > chains.NAMED else []
    return ", ".join(names[: chains.NAMED] + more)


def _try_again(store: Store, timer: Timer, id: Id) -> None:
    store.jobs.append(lambda: go_on(store, id))


def look(store: Store) -> None:
    """Go on after a start: what is nowhere, and of which no end is noted, was lost with it."""
    waiting = list(store.chains.waiting.values())

    def step() -> bool:
        some: list[Chain] = []
        count = 0
        while waiting and count < STEP_IDS:
            some.append(waiting.pop())
            count += 1 + some[-1].left
        _count_lost(store, [chain for chain in some if chain.id in store.chains.waiting])
        return not waiting

    if waiting:
        store.jobs.append(step)


def _count_lost(store: Store, waiting: list[Chain]) -> None:
    """Note which predecessors of chains were lost; where they should be, those of all are looked for at once."""
    ready = [chain for chain in waiting if not chain.left]
    found = _found(
        store, dict.fromkeys(id for chain in waiting for id in chain.missing()), near=True
    )
    for chain in waiting:
        left = chain.missing()
        found |= _found(store, [id for id in left if id not in found])
        for id in left:
            if id not in found or found[id][1]:
                outcome = Outcome.DEAD if id in found else Outcome.DAMAGED
                chains.note(store, chain, chain.index[id], outcome)
    for chain in ready:
        chains.see_end(store, chain)
