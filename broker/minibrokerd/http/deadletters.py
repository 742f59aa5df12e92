"""The API of dead-letter queues: dead messages by what they died of, and the way back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.peek import Peeked
from minibrokerd.http.requests import Ask, Failure, parse_id
from minibrokerd.http.shapes import Done, ErrorGroup, ErrorGroups, Select

MOST_LOOKED_AT: Final = (
    200_000  # dead messages that are grouped; beyond it the answer is not complete
)
MOST_GROUPS: Final = 200
STEP: Final = limits.MAX_MESSAGES_PER_FRAME
LOOK: Final = 250  # messages that are looked at in one turn of the loop: about 10 ms
TEXT_CHARS: Final = 200
NUMBERS: Final = re.compile(r"0x[0-9a-fA-F]+|\d+")


async def list_errors(ask: Ask) -> ErrorGroups:
    """Return the dead messages of a queue by what they died of."""
    groups: dict[str, ErrorGroup] = {}
    looked_at, complete = 0, True
    async for message in _dead(ask):
        looked_at += 1
        if looked_at > MOST_LOOKED_AT:
            looked_at, complete = MOST_LOOKED_AT, False
            break
        _count(groups, message)
    ordered = sorted(groups.values(), key=lambda group: -group.count)
    return ErrorGroups(ask.queue_name, ordered[:MOST_GROUPS], looked_at, complete)


async def redrive(ask: Ask) -> Done:
    """Send dead messages back to their origin: these ids, those of a group, the oldest, or all."""
    wish = await ask.body(Select)
    queue = ask.client.queue(ask.queue_name)
    if wish.group is not None:
        ids = [
            message.id async for message in _dead(ask) if key_of(*cause_of(message)) == wish.group
        ]
        moved = 0
        for at in range(0, len(ids), STEP):
            moved += await queue.redrive(ids[at : at + STEP])
    elif wish.ids is not None:
        moved = await queue.redrive(_some(wish.ids))
    else:
        moved = await queue.redrive(count=wish.count)
    ask.changed("redrive", queue=ask.queue_name, messages=moved)
    return Done(moved)


def _some(texts: list[str]) -> list[MessageId]:
    if not 0 < len(texts) <= limits.MAX_RUNS_PER_FRAME:
        raise Failure(400, "bad_value", f"a redrive is of 1 to {limits.MAX_RUNS_PER_FRAME} ids")
    return [parse_id(text) for text in texts]


async def _dead(ask: Ask) -> AsyncIterator[Peeked]:
    queue, after = ask.client.queue(ask.queue_name), b""
    while True:
        page = await queue.peek(LOOK, after=after)
        for message in page:
            yield message
        after = page.next
        if not after:
            return


def last_of(message: Peeked) -> dict[str, Any]:
    """Return the last attempt of a message; empty if it had none."""
    history: list[dict[str, Any]] = message.info.get("history") or [{}]
    return history[-1]


def cause_of(message: Peeked) -> tuple[str, str, str]:
    """Return what a message died of: cause, class and the first line of the text, numbers taken out."""
    last = last_of(message)
    text = str(last.get("error_text", "")).partition("\n")[0][:TEXT_CHARS]
    return last.get("cause", ""), last.get("error_class", ""), NUMBERS.sub("#", text)


def key_of(cause: str, name: str, text: str) -> str:
    """Return the name of a group in a URL or a form."""
    return hashlib.sha256(f"{cause}\0{name}\0{text}".encode()).hexdigest()[:16]


def _count(groups: dict[str, ErrorGroup], message: Peeked) -> None:
    cause = cause_of(message)
    ended_unix_ms = last_of(message).get("ended_unix_ms", 0)
    key = key_of(*cause)
    group = groups.get(key)
    if group is None:
        groups[key] = ErrorGroup(*cause, 1, ended_unix_ms, ended_unix_ms, str(message.id), key)
        return
    group.count += 1
    group.first_unix_ms = min(group.first_unix_ms, ended_unix_ms)
    group.last_unix_ms = max(group.last_unix_ms, ended_unix_ms)
