"""The deadline of paused clients: what they still have in hand goes back to its place, uncharged, for others.

They are told as of a cancel (`cancelled`), so that they stop; what they say of it later is lost. What went back is
in the log before anybody else gets it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.messages import Item, Message, State
from minibrokerd.core.model.pauses import Pause
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.cancelling import tell

STEP_DELIVERIES: Final = 50  # of one session, in one apply


def drain(store: Store, sessions: Iterable[Session], pause: Pause) -> None:
    """Take back what clients have, in steps."""
    for session in sessions:
        steps = _steps(store, session, pause)
        if next(steps, None) is not None:
            store.jobs.append(lambda steps=steps: next(steps, None) is None)  # type: ignore[misc]


def _steps(store: Store, session: Session, pause: Pause) -> Iterator[bool]:
    tokens, count = sorted(session.deliveries), 0
    while tokens:
        taken: dict[Queue, list[Run]] = defaultdict(list)
        for token in tokens[:STEP_DELIVERIES]:
            delivery = store.deliveries.get(token)
            queue = store.queue_of(delivery) if delivery is not None else None
            if delivery is None or queue is None or delivery.session != session.id:
                continue
            for item in _items(delivery):
                _give_back(store, queue, delivery, item)
                run = (token, item.block.origin, item.first, item.stop - item.first)
                taken[queue].append(run)
                count += run[3]
            drop_delivery(store, queue, delivery)
        del tokens[:STEP_DELIVERIES]
        for queue, runs in taken.items():
            tell(store, session.id, queue, runs, pause.by)
        if tokens:
            yield True
    if count:
        store.effects.note(
            "worker_drained",
            client=session.client,
            version=session.version,
            messages=count,
            by=pause.by,
        )


def _items(delivery: Delivery) -> list[Item]:
    items: list[Item] = [*delivery.spans.values(), *delivery.singles.values()]
    delivery.spans.clear()
    delivery.singles.clear()
    return items


def _give_back(store: Store, queue: Queue, delivery: Delivery, item: Item) -> None:
    if isinstance(item, Message) and item.state is State.BEGUN:
        item.ended_token = delivery.token
        item.started_unix_ms = 0
        store.write_return(queue, [item], 0, None)
    wait(store, queue.group, item, delivery)
