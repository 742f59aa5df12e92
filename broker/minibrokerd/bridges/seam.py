"""What passes over a bridge, and what stands at its two ends: a source and a sink.

A source hands out messages and keeps them until it is told that they are stored at the other side; a sink stores
them and says of each what became of it. Neither knows the other: `passing.py` has the loop between them. All
that an end of a library can raise comes out of it as one of the errors below, so the loop knows no library.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

MSGPACK: Final = "application/msgpack"  # what a value of a Python program is, as bytes
JSON: Final = "application/json"


class Away(Exception):
    """The connection is gone, or cannot be made; another attempt may succeed."""


class Refused(Exception):
    """The other broker does not let the bridge do this, or has not what it is to work on."""


class Stored(Enum):
    """What became of a message that the sink has."""

    NEW = "it is stored"
    KNOWN = "it was stored before, and is there once"
    UNSURE = "it is stored, and may have been before: its source had handed it out already"


@dataclass(frozen=True, slots=True)
class Unfit:
    """This message can never be stored there; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Later:
    """This message was not stored, or nobody knows; it may be later."""

    reason: str


Outcome = Stored | Unfit | Later


@dataclass(slots=True, eq=False)
class Parcel:
    """One message on its way.

    `id` names it at its source, at each delivery by the same text; empty: it has no name there. `repeats`: the
    source may have handed it out before, so that the sink may know it. `is_value`: the body is the msgpack of a
    value, and no plain bytes. Of times 0 means that none is known.
    """

    body: bytes
    handle: Any  # the source's own
    id: str = ""
    repeats: bool = True
    is_value: bool = False
    content_type: str = ""
    headers: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    priority: int = 0
    ttl_ms: int = 0
    unix_ms: int = 0  # when its source took it


class Source(ABC):
    """Where messages come from. Every method may raise `Away`; then it is closed and opened again."""

    name = ""  # as it is printed, without a password
    has_position = False  # `done` settles all that stand before, too

    @abstractmethod
    async def open(self) -> None:
        """Connect. Raises `Away`, and `Refused` where there is nothing to take from."""

    @abstractmethod
    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        """Return up to `most` messages: those that are there, else what comes within about `wait_s`."""

    @abstractmethod
    async def is_empty(self) -> bool:
        """Return whether nothing is left to take, now that `take` returned nothing."""

    @abstractmethod
    async def done(self, parcels: Sequence[Parcel]) -> int:
        """Say that these are stored at the other side, in the order in which they were taken.

        Returns how many come again all the same, since they were not this bridge's any more.
        """

    async def keep(self, parcels: Sequence[Parcel]) -> None:
        """Say that these are still worked on: called every few seconds."""
        del parcels

    async def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Give messages back that were taken, as far as the end of the connection does not do so."""
        del parcels

    async def reject(self, parcel: Parcel, reason: str) -> bool:
        """Move a message that fits nowhere to the dead letters here; False: there is no such place.

        After `Away` nobody knows whether it was moved: it is not done, and comes again.
        """
        del parcel, reason
        return False

    @abstractmethod
    async def close(self) -> None:
        """Leave; nothing is raised."""


class Sink(ABC):
    """Where messages go to."""

    name = ""

    @abstractmethod
    async def open(self) -> None:
        """Connect. Raises `Away`, and `Refused` where there is no place for messages."""

    @abstractmethod
    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        """Store messages in this order; return what became of each, when it is as safe as it gets there.

        Raises:
            Away: the connection is gone; nothing is known of any of them.
        """

    @abstractmethod
    async def close(self) -> None:
        """Leave; nothing is raised."""
