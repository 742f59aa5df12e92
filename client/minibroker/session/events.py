"""What the session tells the shell after it was given bytes: one object for each thing that happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from minibroker.contract.errors import MinibrokerError
from minibroker.session.message import Message
from minibroker.session.outbox import PublishGroup
from minibroker.session.settlements import SettlePart

if TYPE_CHECKING:
    from minibroker.session.delivery import Delivery


class Welcomed(NamedTuple):
    """The connection is open; unanswered frames are to be sent again, consumers to be armed."""

    lost: Sequence[Message[Any]]


class Published(NamedTuple):
    """The messages of a group are stored, with ids from `first` on."""

    group: PublishGroup
    origin: int
    first: int
    durability: str


class PublishFailed(NamedTuple):
    """The server refused a group, or can no longer say what became of it.

    `later` are the groups of its queue that were under way behind it, if it may be sent again.
    """

    group: PublishGroup
    error: MinibrokerError
    later: Sequence[PublishGroup] = ()


class Settled(NamedTuple):
    """The settlements of a part are safe, apart from those of `lost` messages."""

    part: SettlePart
    lost: Sequence[Message[Any]]


class SettleRefused(NamedTuple):
    """The server refused the settlements of these parts."""

    parts: Sequence[SettlePart]
    error: MinibrokerError


class Delivered(NamedTuple):
    """Messages for a consumer; HELD until they are handed to the application."""

    consumer: int
    delivery: Delivery


class Answered(NamedTuple):
    """A request has its answer: a value, or an error."""

    waiter: Any
    value: Any
    error: MinibrokerError | None


class Leaving(NamedTuple):
    """The server is stopping."""

    text: str


Event = (
    Welcomed | Published | PublishFailed | Settled | SettleRefused | Delivered | Answered | Leaving
)
