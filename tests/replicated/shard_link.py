"""What is between a client and a broker of a shard: frames in order, until the connection ends. Decision 83."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core_client import Client as Seat
    from core_client import Run
    from shard_broker import Broker
    from shard_client import Client


@dataclass(frozen=True, slots=True)
class Ask:
    """A login (`payload` is None), or a frame about one group.

    `name` is ("sequence" or "request", number); `version` is that of the group as its sender knows it.
    """

    payload: bytes | None = None
    group: str = ""
    version: int = 0
    name: tuple[str, int] = ("", 0)
    session: int = 0
    runs: Sequence[tuple[str, Run]] = ()


@dataclass(frozen=True, slots=True)
class NotHere:
    """The answer to a frame about a group that is elsewhere."""

    group: str
    version: int
    shard: int
    name: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Said:
    """A frame of the broker; `is_void`: of one that was deposed, and may not know it."""

    header: dict[str, Any]
    is_void: bool
    elsewhere: dict[str, tuple[int, int]]


class Link:
    """One connection."""

    def __init__(self, client: Client, broker: Broker) -> None:
        self.client = client
        self.broker = broker
        self.seat: Seat | None = None  # at the broker
        self.is_open = True
        self.elsewhere: dict[str, tuple[int, int]] = {}
        self.asked: deque[Ask] = deque()
        self.said: deque[Said | NotHere] = deque()

    def ask(self, ask: Ask) -> None:
        """The client says something."""
        if self.is_open:
            self.asked.append(ask)

    def tell(self, header: dict[str, Any], *, is_void: bool) -> None:
        """The broker says something."""
        if self.is_open:
            self.said.append(Said(header, is_void, dict(self.elsewhere)))

    def tell_not_here(self, ask: Ask, version: int, shard: int) -> None:
        """The broker says that a group is elsewhere."""
        if self.is_open:
            self.said.append(NotHere(ask.group, version, shard, ask.name))

    def drop(self) -> None:
        """It ends; what was on its way is lost."""
        if self.is_open:
            self.is_open = False
            self.asked.clear()
            self.said.clear()
            self.broker.inbox.append((self, None))
            self.client.lost(self)
