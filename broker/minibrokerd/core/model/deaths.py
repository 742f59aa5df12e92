"""What a message died of: how deaths are grouped, and which of them a filter is about.

Two deaths are alike if cause, class and place in the code are: texts mostly name ids, hosts and amounts. A text
ends with its place where the client is ours; of one without a place the first line counts, numbers taken out.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from minibrokerd.core.model.messages import Item, Message
from minibrokerd.core.model.records import AttemptMeta

TEXT_CHARS: Final = 200
MOST_REMEMBERED: Final = 1_000  # deaths whose group is not computed again
PLACE: Final = re.compile(r" \(([^()]+:\d+ in [^()]+)\)$")
NUMBERS: Final = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|0x[0-9a-fA-F]+|\d+"
)


class Death(NamedTuple):
    """What is alike in messages that died of the same. `place` is `file:line in function`, or empty.

    `text` is the first line of what one of them said; without a place all said that, but for the numbers. `group`
    names all that are alike.
    """

    cause: str
    error_class: str
    place: str
    text: str
    group: str


def last_of(item: Item) -> AttemptMeta | None:
    """Return the last attempt of a message; None: it had none."""
    return item.history[-1] if isinstance(item, Message) and item.history else None


def death_of(cause: str, error_class: str, error_text: str) -> Death:
    """Return what a message died of whose last attempt ended so."""
    found = PLACE.search(error_text)
    place = found[1] if found is not None else ""
    text = error_text.partition("\n")[0][:TEXT_CHARS]
    if not place:
        text = NUMBERS.sub("#", text)
    alike = f"{cause}\0{error_class}\0{place or text}"
    group = hashlib.sha256(alike.encode()).hexdigest()[:16]
    return Death(cause, error_class, place, text, group)


class Deaths:
    """Finds what messages died of; most died of what others did."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Death] = {}

    def of(self, item: Item) -> Death:
        """Return what a message died of; of one without attempts all is empty."""
        last = last_of(item)
        said = ("", "", "") if last is None else (last.cause, last.error_class, last.error_text)
        death = self._known.get(said)
        if death is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            death = self._known[said] = death_of(*said)
        return death


def died_unix_ms(item: Item) -> int:
    """Return when a message died: its last attempt ended; without one, when it was published."""
    last = last_of(item)
    return item.block.unix_ms if last is None else last.ended_unix_ms


class Where:
    """Which dead messages: those of which all holds that is given (empty, or 0: it does not matter)."""

    def __init__(
        self,
        *,
        cause: str = "",
        error_class: str = "",
        error_text: str = "",
        group: str = "",
        key: str = "",
        origin: int = 0,
        from_unix_ms: int = 0,
        until_unix_ms: int = 0,
        below_token: int = 0,
    ) -> None:
        """`origin`: number of the queue they were published to. They died from `from_unix_ms` on, until
        `until_unix_ms`, and in a delivery with a token below `below_token`.
        """
        self.cause = cause
        self.error_class = error_class
        self.error_text = error_text
        self.group = group
        self.key = key
        self.origin = origin
        self.from_unix_ms = from_unix_ms
        self.until_unix_ms = until_unix_ms
        self.below_token = below_token
        self._deaths = Deaths()

    def wants(self, item: Item) -> bool:
        """Whether a dead message is one of them."""
        if self.key and item.key != self.key:
            return False
        if self.origin and item.block.origin != self.origin:
            return False
        if self.below_token and isinstance(item, Message) and item.ended_token >= self.below_token:
            return False
        died = died_unix_ms(item)
        if died < self.from_unix_ms or (self.until_unix_ms and died > self.until_unix_ms):
            return False
        death = self._deaths.of(item)
        last = last_of(item)
        return (
            self.cause in ("", death.cause)
            and self.error_class in ("", death.error_class)
            and self.group in ("", death.group)
            and (not self.error_text or (last is not None and self.error_text in last.error_text))
        )
