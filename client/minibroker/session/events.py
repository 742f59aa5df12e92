"""What the session tells the shell after it was given bytes: one object for each thing that happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minibroker.contract.confirms import RoutedRun
from minibroker.contract.errors import MinibrokerError, OutcomeUnknown
from minibroker.session.address import Place
from minibroker.session.message import Delivery, MessageData
from minibroker.session.outbox import PublishGroup
from minibroker.session.route_groups import RouteGroup
from minibroker.session.settlements import Run, SettlePart
from minibroker.session.step_frame import StepFrame

Content = PublishGroup | list[SettlePart] | StepFrame  # of a frame with a sequence


class Welcomed(NamedTuple):
    """The connection is open; unanswered frames are to be sent again, consumers to be armed."""

    lost: Sequence[MessageData[Any]]
    cancelled: Sequence[MessageData[Any]] = ()  # of these


class Published(NamedTuple):
    """The messages of a group are stored, with ids from `first` on.

    `known` names those that were there already, or that replace one: a run for each, as the confirm has them.
    """

    group: PublishGroup
    origin: int
    first: int
    durability: str
    known: Sequence[Run] = ()


class PublishFailed(NamedTuple):
    """The server refused a group, or can no longer say what became of it.

    `later` are the groups of its queue that were under way behind it, if it may be sent again.
    """

    group: PublishGroup
    error: MinibrokerError
    later: Sequence[PublishGroup] = ()


class RouteDone(NamedTuple):
    """The messages of a group are stored in the queues that an exchange led them to."""

    group: RouteGroup
    run: RoutedRun


class Settled(NamedTuple):
    """The settlements of a part are safe, apart from those of `lost` messages."""

    part: SettlePart
    lost: Sequence[MessageData[Any]]


class SettleRefused(NamedTuple):
    """The server refused the settlements of these parts."""

    parts: Sequence[SettlePart]
    error: MinibrokerError


class StepDone(NamedTuple):
    """All of a step was done; `results` are those of its parts. Acks alone may have `lost` some.

    `known` is as `Published` has it, of all groups one after the other.
    """

    frame: StepFrame
    results: Sequence[Mapping[str, Any]]
    lost: Sequence[MessageData[Any]]
    known: Sequence[Run] = ()


class StepFailed(NamedTuple):
    """The server refused a step, or can no longer say what became of it."""

    frame: StepFrame
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


class Cancelled(NamedTuple):
    """Messages that this client has were cancelled, by a client of this name."""

    messages: Sequence[MessageData[Any]]
    by: str


class Recalled(NamedTuple):
    """The server asks for these messages back, as far as they have not begun."""

    messages: Sequence[MessageData[Any]]


class Leaving(NamedTuple):
    """The server is stopping."""

    text: str


Event = (
    Welcomed
    | Published
    | PublishFailed
    | RouteDone
    | Settled
    | SettleRefused
    | StepDone
    | StepFailed
    | Delivered
    | Answered
    | Cancelled
    | Recalled
    | Leaving
)


def failed(content: Content, error: MinibrokerError) -> Event:
    """Return what is told of a frame that ended with `error`."""
    if isinstance(content, PublishGroup):
        return PublishFailed(content, error)
    if isinstance(content, StepFrame):
        return StepFailed(content, error)
    return SettleRefused(content, error)


def given_up(content: Content, error: MinibrokerError) -> Event:
    """Return what is told of a frame for which the server ended the connection: it is not sent again."""
    unknown = OutcomeUnknown(
        f"the server ended the connection for it, and it is not sent again: {error}"
    )
    return failed(content, unknown)


# ---- what a machine asks of its shell, or tells it ----


class Dial(NamedTuple):
    """Connect to `place`; `Machine.dialled` or `Machine.ended` says what came of it. None: there is one alone."""

    place: Place | None = None


class HangUp(NamedTuple):
    """End the connection, or the attempt at one, behind `last`."""

    last: bytes = b""


class Opened(NamedTuple):
    """There is a connection again, after `attempts`; `away_ms` since the last one was lost, None for the first.

    `place` is where, if a url names it.
    """

    attempts: int
    away_ms: int | None
    place: Place | None = None


class Away(NamedTuple):
    """The connection that was open has ended."""

    why: str


class Again(NamedTuple):
    """The `attempt` follows in `delay_ms`; an operator should know if it `is_news`."""

    attempt: int
    delay_ms: int
    why: str
    is_news: bool


class Lost(NamedTuple):
    """These messages are not this client's any more."""

    messages: Sequence[MessageData[Any]]
    error: MinibrokerError


class Renew(NamedTuple):
    """Messages came under a lease of this length: whoever renews may have to look."""

    lease_ms: int


class Differs(NamedTuple):
    """A queue has other settings than this program declares: (asked for, has) by name."""

    queue: str
    differs: Mapping[str, tuple[int | str, int | str]]


class NotDeclared(NamedTuple):
    """The server refused a declaration."""

    queue: str
    error: MinibrokerError


class MadeAnew(NamedTuple):
    """A queue that this program had declared was gone, and a declaration has made it again."""

    queue: str


Effect = (
    Dial
    | HangUp
    | Opened
    | Away
    | Again
    | Lost
    | Renew
    | Leaving
    | Differs
    | NotDeclared
    | MadeAnew
)
