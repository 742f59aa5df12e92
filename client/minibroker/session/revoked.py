"""Messages that somebody cancelled while this client has them: which they are, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from minibroker.contract import wire
from minibroker.contract.errors import LeaseLost, MessageCancelled
from minibroker.session.events import Cancelled, Welcomed
from minibroker.session.message import Delivery, MessageData
from minibroker.session.settlements import ENDED, HELD, SettlePart, named_by
from minibroker.session.subscription import Subscription


def cancelled_by(
    frame: wire.Frame, deliveries: Mapping[int, Delivery], parts: Iterable[SettlePart]
) -> Cancelled:
    """Return which messages a frame speaks of: those that are here, and those whose settlement is on its way."""
    runs = wire.unpack_runs(frame.columns)[: frame.header["runs"]]
    tokens = {run[0] for run in runs}
    here: dict[int, MessageData[Any]] = {}
    for token in tokens:
        delivery = deliveries.get(token)
        here |= {id(each): each for each in (delivery.messages if delivery is not None else ())}
    for part in parts:
        here |= {id(each): each for each in part.messages if each.token in tokens}
    return Cancelled(named_by(runs, list(here.values())), str(frame.header.get("by", "")))


def seen(event: Cancelled, consumers: Iterable[Subscription]) -> list[MessageData[Any]]:
    """Return those that the application knows of; the others are taken out of the buffers, and never begin."""
    unseen = [message for message in event.messages if message.state == HELD]
    for message in unseen:
        message.lose(cancelled=True)
    for consumer in consumers if unseen else ():
        consumer.take_out(unseen)
    return [message for message in event.messages if not message.lost]


def told(event: Welcomed) -> Iterator[tuple[Sequence[MessageData[Any]], LeaseLost]]:
    """Yield what a session that came back has lost, and why.

    A settlement that is unanswered is judged by the answer to its frame, which is sent again.
    """
    yield [m for m in event.cancelled if not m.lost], MessageCancelled("cancelled meanwhile")
    lost = [m for m in event.lost if m.state != ENDED]
    yield lost, LeaseLost("the server handed it out again, or it has ended")


def error_of(event: Cancelled) -> MessageCancelled:
    """Return what is told of cancelled messages."""
    return MessageCancelled(f"cancelled by {event.by or 'a client without a name'}")
