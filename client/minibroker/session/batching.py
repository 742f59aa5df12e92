"""Messages that are taken and acknowledged together: what both shells do with a batch of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import repeat, starmap
from typing import Any, Final

from minibroker.contract.errors import LeaseLost
from minibroker.session.settlements import BEGUN, ENDED, TOLD, Settlements
from minibroker.session.spans import whole

MOST_MESSAGES: Final = 10_000


def check_most(most: int) -> int:
    """Return how many messages a batch may have; TypeError, BadValue."""
    return whole("most", most, 1, MOST_MESSAGES)


def begin_some(buffer: deque[Any], most: int, now: float, settlements: Settlements) -> list[Any]:
    """Take up to `most` messages out of a buffer, and begin them; another thread may take some meanwhile.

    One that the server has begun is alone, and TOLD.
    """
    messages: list[Any] = []
    count = min(most, len(buffer))
    # One call takes all. Not `suppress`: 24 steps more for each message of the blocking client, which takes them
    # one by one.
    try:
        messages.extend(starmap(buffer.popleft, repeat((), count)))
    except IndexError:
        count = len(messages)  # what was there is in the list
    if not count:
        return messages
    for message in messages:
        message.begun_at = now
        message.state = BEGUN
    if count == 1 and messages[0].run.delivery.handed:
        messages[0].state = TOLD
        return messages
    if not settlements.begins:
        settlements.owe()
    settlements.begins += messages
    return messages


def end_all(messages: Iterable[Any]) -> tuple[list[Any], LeaseLost | None]:
    """End the messages of a batch that have not ended; return these, and what to raise for the others."""
    ended: list[Any] = []
    error: LeaseLost | None = None
    for message in messages:
        if message.state == ENDED:
            error = error or message.lost_error()
            continue
        message.state = ENDED
        message.run.delivery.open -= 1
        ended.append(message)
    return ended, error


def is_marked(messages: Sequence[Any]) -> bool:
    """Whether any of them came back before without an end."""
    run = None
    for message in messages:
        if message.run is not run:
            run = message.run
            if run.marked:
                return True
    return False
