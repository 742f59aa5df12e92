"""Messages that the server asks back, for another worker has nothing to do: what has not begun goes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minibroker.contract import wire
from minibroker.session.events import Recalled
from minibroker.session.message import Delivery
from minibroker.session.settlements import HELD, named_by
from minibroker.session.subscription import Subscription


def recalled_by(frame: wire.Frame, deliveries: Mapping[int, Delivery]) -> Recalled:
    """Return which messages a frame asks for, of those that are here."""
    runs = wire.unpack_runs(frame.columns)[: frame.header["runs"]]
    tokens = {run[0] for run in runs}
    here: list[Any] = []
    for token in tokens:
        delivery = deliveries.get(token)
        here += delivery.messages if delivery is not None else ()
    return Recalled(named_by(runs, here))


def give_back(event: Recalled, consumers: Iterable[Subscription]) -> bool:
    """Give back what no application has seen yet; return whether there is something to be written."""
    unseen = [message for message in event.messages if message.state == HELD]
    is_any = False
    for consumer in consumers if unseen else ():
        for message in consumer.take_out(unseen):
            message.release_unseen(recalled=1)
            is_any = True
    return is_any


def give_back_handed(consumers: Iterable[Subscription]) -> None:
    """Give back what the server has begun for handlers that did not take it yet, at the end."""
    for consumer in consumers:
        consumer.give_back_handed()
