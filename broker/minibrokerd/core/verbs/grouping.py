"""`error_groups`: the dead messages of a queue by what they died of; and what a filter of dead messages is about.

One answer is about so many messages, in the order of ids, and has groups of these alone: who asks puts the pages
together. So nothing is kept between two, and no answer is long, however many messages and groups there are.
"""

from __future__ import annotations

from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deaths import Deaths, Where, died_unix_ms
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import Message
from minibrokerd.core.model.places import Place, waiting_from
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import GO_ON, Steps, Walk

GROUP_LOOKS: Final = 3  # what a message that is grouped counts
Group = dict[str, Any]


def error_groups(store: Store, frame: Frame, part: Any) -> None:
    """Answer with the dead messages that wait, by what they died of."""
    dlq = store.queue(part.queue)
    if not dlq.is_dlq:
        raise Refused("bad_value", f"{dlq.name!r} is not a dead-letter queue")
    try:
        place = Place.unpack(part.after) if part.after else Place(0, dlq.home, 0)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    where = read_where(store, part) or Where()
    walk = Walk(store, frame, changes=False)
    walk.begin(_steps(walk, dlq, place, where, part.count or limits.MAX_GROUPED))


def _steps(walk: Walk, dlq: Queue, start: Place, where: Where, most: int) -> Steps:
    groups: dict[str, Group] = {}
    deaths, count = Deaths(), 0
    place: Place | None = start
    while place is not None:
        found, place, looks = look(dlq, place, where)
        for message in found:
            id = message.block.origin, message.sequence
            group = deaths.of(message).group
            if count >= most or (len(groups) >= limits.MAX_GROUPS and group not in groups):
                place = Place(0, *id)
                break
            count += 1
            _count(groups, deaths, message)
        else:
            if walk.is_used_up(looks + GROUP_LOOKS * len(found)):
                yield GO_ON
            continue
        walk.is_used_up(looks)  # the page is full
        break
    value: dict[str, Any] = {"groups": list(groups.values()), "count": count}
    if place is not None:
        value["next"] = place.pack()
    walk.reply(dlq.last_batch, value)


def _count(groups: dict[str, Group], deaths: Deaths, message: Message) -> None:
    death, died = deaths.of(message), died_unix_ms(message)
    group = groups.get(death.group)
    if group is None:
        groups[death.group] = {
            **death._asdict(),
            "count": 1,
            "first_unix_ms": died,
            "last_unix_ms": died,
            "origin": message.block.origin,
            "sequence": message.sequence,
        }
        return
    group["count"] += 1
    group["first_unix_ms"] = min(group["first_unix_ms"], died)
    group["last_unix_ms"] = max(group["last_unix_ms"], died)


def read_where(store: Store, part: Any) -> Where | None:
    """Return the filter of a request; None: it has none.

    Raises:
        Refused: `unknown_queue`.
    """
    texts = (part.cause, part.error_class, part.error_text, part.group, part.key, part.origin)
    if not any(texts) and not part.older_ms and not part.younger_ms:
        return None
    return Where(
        cause=part.cause,
        error_class=part.error_class,
        error_text=part.error_text,
        group=part.group,
        key=part.key,
        origin=store.queue(part.origin).number if part.origin else 0,
        from_unix_ms=store.unix_ms - part.younger_ms + 1 if part.younger_ms else 0,
        until_unix_ms=max(store.unix_ms - part.older_ms, 1) if part.older_ms else 0,
    )


def look(dlq: Queue, place: Place, where: Where) -> tuple[list[Message], Place | None, int]:
    """Return some dead messages from a place on that a filter is about, where to go on, and what that counts.

    They come in the order of ids, and each that waits all the time comes once.
    """
    found, looks = waiting_from(dlq, place, None)
    if not found:
        return [], None, looks
    # What died has a history, so it is an item of its own, and never leaves memory.
    messages = [item for _, item in found if isinstance(item, Message) and where.wants(item)]
    last = found[-1][1]
    origin = last.queue if isinstance(last, ColdRun) else last.block.origin
    return messages, Place(0, origin, last.stop), looks + len(found)


def is_here(dlq: Queue, message: Message) -> bool:
    """Whether a message that was found a while ago still waits in a queue."""
    group = dlq.group
    return group.later.has(message) or any(lanes.index.has(message) for lanes in group.lanes.levels)
