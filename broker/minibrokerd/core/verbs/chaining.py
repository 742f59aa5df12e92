"""Publishes that come after others (docs/decisions/0056): what they wait for, and how they go on."""

from __future__ import annotations

from collections import deque
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
from minibrokerd.core.model.noting import foreign_origins, ids_in, may_know
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
# At queues and deliveries, for messages that are in none of those where they should be.
MOST_LOOKS: Final = 10_000
GO_ON_BYTES: Final = 4_096  # of records of one that goes on
GO_ON: Final = 50  # messages in one step
STEP_LOST: Final = 100  # ends that a start notes in one step


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
    check_count(store, 0, named_by(part.after))
    ids = list(_ids(part.after))
    check_count(store, len(ids), len(ids))
    found = _found(store, ids, MOST_LOOKS)
    outcomes = {id: Outcome.DEAD for id, (_, is_over) in found.items() if is_over}
    for id in ids:
        known = store.kept.get(store, RESULT, id) if id not in found else None
        place = found[id][0] if id in found else 0 if known is None else int(known[3])
        if not (place and may_know(store, Asked(connection, 0, 0, id, None), place)):
            raise Refused("unknown_message", unknown_text(id))
        if known is not None:
            outcomes[id] = Outcome(int(known[0]))
    return After(ids, outcomes)


def unknown_text(id: Id) -> str:
    """Return what is said of a message that is nowhere."""
    return f"of message {id[0]}-{id[1]} nothing is known: it ended and no result is kept, or it never was"


def places_of(store: Store, ids: Iterable[Id]) -> set[Id] | None:
    """Return which of these messages are somewhere; None: looking takes more looks than one apply has."""
    if len(store.deliveries) > MOST_LOOKS:
        return None
    try:
        return set(_found(store, ids, MOST_LOOKS))
    except Refused:
        return None


def _ids(column: bytes) -> Iterator[Id]:
    seen: set[Id] = set()
    for _, origin, first, count in RUN.iter_unpack(column):
        if count > limits.MAX_AFTER:
            raise Refused("limit_reached", f"a message waits for at most {limits.MAX_AFTER} others")
        for sequence in range(first, first + count):
            if (origin, sequence) not in seen:
                seen.add((origin, sequence))
                yield origin, sequence


def named_by(column: bytes) -> int:
    """Return how many messages a run column names; 0: it is none."""
    return 0 if len(column) % RUN.size else sum(run[3] for run in RUN.iter_unpack(column))


def check_count(store: Store, most: int, total: int) -> None:
    """Check that a frame may have messages that wait for so many others: one for `most`, all for `total`.

    Raises:
        Refused: `limit_reached`.
    """
    awaited = store.chains.awaited
    asked = (most, limits.MAX_AFTER), (total, limits.MAX_AFTER_PER_FRAME)
    if any(count > limit for count, limit in (*asked, (awaited + total, limits.MAX_AWAITED))):
        raise Refused(
            "limit_reached",
            f"a message waits for at most {limits.MAX_AFTER} others, those of a frame together for "
            f"{limits.MAX_AFTER_PER_FRAME}, and all for {limits.MAX_AWAITED}; {total} more were named, "
            f"and {awaited} are awaited",
        )


def _found(store: Store, ids: Iterable[Id], most_looks: int = 0) -> dict[Id, tuple[int, bool]]:
    """Return which of these messages are there: the number of the queue of each, and whether it is dead.

    Raises:
        Refused: `limit_reached`, to look everywhere for those that were moved takes more looks than `most_looks`.
    """
    found: dict[Id, tuple[int, bool]] = {}
    for queue, some in _places(store, ids, found, most_looks):
        for id in ids_in(store, queue, some):
            found[id] = queue.number, queue.is_dlq or is_dead(queue.group.later.find(*id))
    return found


def _places(
    store: Store, ids: Iterable[Id], found: Container[Id] = (), most_looks: int = 0
) -> Iterator[tuple[Queue, list[Id]]]:
    """Yield where messages may be: where they were published, the dead-letter queue of that; then all queues.

    `found` are those that are looked for no more; it grows meanwhile. 0 looks: as many as it takes.
    """
    by_home = _by_origin(ids)
    for origin, some in by_home.items():
        home = store.by_number.get(origin)
        if home is not None:
            yield home, some
            dlq = store.queues.get(home.name + DLQ_SUFFIX)
            if dlq is not None:
                yield dlq, some
    missing = [id for some in by_home.values() for id in some if id not in found]
    if not missing:
        return
    looks = len(store.queues) + len(store.deliveries)
    if 0 < most_looks < looks:
        text = f"{len(missing)} messages are not where they were published; to look in {looks} places is too much"
        raise Refused(
            "limit_reached", f"{text}: name those alone that have not ended, and were not moved"
        )
    by_origin = _by_origin(missing)
    for queue in store.queues.values():
        for origin in foreign_origins(queue) & by_origin.keys():
            yield queue, by_origin[origin]


def _by_origin(ids: Iterable[Id]) -> dict[int, list[Id]]:
    found: dict[int, list[Id]] = {}
    for id in ids:
        found.setdefault(id[0], []).append(id)
    return found


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


def go_on(store: Store) -> bool:
    """Let messages go on whose predecessors have all ended, or die of one that died; a job."""
    due = store.chains.due
    for _ in range(min(GO_ON, len(due))):
        chain = store.chains.waiting.get(due.popleft())
        if chain is not None and not chain.left:
            _go_on(store, chain)
    return not due


def _go_on(store: Store, chain: Chain) -> None:
    id = chain.id
    queue = next(
        (queue for queue, some in _places(store, [id]) if ids_in(store, queue, some)), None
    )
    if queue is None:
        chains.end(store, chain)
        return
    item = take_waiting(store, queue, *id)
    if item is None:  # its own publish is not safe yet
        store.set_timer(_try_again, id, store.now_ms + TICK_MS)
        return
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


def _names(chain: Chain) -> str:
    ended = zip(chain.ids, chain.outcomes, strict=True)
    names = [f"{id[0]}-{id[1]} {Outcome(by - 1).name}" for id, by in ended if by not in chains.DONE]
    more = [f"{len(names) - chains.NAMED} more"] if len(names) > chains.NAMED else []
    return ", ".join(names[: chains.NAMED] + more)


def _try_again(store: Store, timer: Timer, id: Id) -> None:
    store.chains.let_go_on(store, id)


def look(store: Store) -> None:
    """Go on after a start: what is nowhere, and of which no end is noted, was lost with it.

    What is lost is found before the port opens, as one look at all there is; it is noted in steps.
    """
    known = store.chains
    if not known.waiting:
        return
    awaited = [id for id, followers in known.ids.items() if followers]
    found = _found(store, [*awaited, *known.waiting])
    # Of one that is nowhere itself, for it was purged, its end was not noted.
    lost = deque((chain, id) for id, chain in known.waiting.items() if id not in found)
    for id in awaited:
        if id not in found or found[id][1]:
            lost += ((known.waiting[follower], id) for follower in known.ids[id])
    for id, chain in known.waiting.items():
        if not chain.left:
            known.let_go_on(store, id)

    def step() -> bool:
        for _ in range(min(STEP_LOST, len(lost))):
            chain, id = lost.popleft()
            if known.waiting.get(chain.id) is not chain:
                continue
            if chain.id == id:
                chains.end(store, chain)
            else:
                outcome = Outcome.DEAD if id in found else Outcome.DAMAGED
                chains.note(store, chain, chain.index[id], outcome)
        chains.write(store)
        return not lost

    if lost:
        store.jobs.append(step)
