"""Delivery frames as messages: one delivery, its runs, and the messages cut out of its blob."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from minibroker.contract import wire
from minibroker.contract.errors import ProtocolError
from minibroker.session.message import Delivery, DeliveryRun, MessageData
from minibroker.session.settlements import ENDED, Settlements

MakeMessage = Callable[[DeliveryRun, int, bytes, bytes], MessageData[Any]]


def unpack_delivery(
    frame: wire.Frame, settlements: Settlements, shell: Any, make: MakeMessage
) -> Delivery:
    """Return the delivery in a `deliver` frame, its messages not begun.

    Raises:
        ProtocolError: counts, columns and blob do not fit each other; the caller must close.
    """
    header = frame.header
    try:
        delivery = Delivery(
            header["queue"],
            header["token"],
            header["lease_ms"],
            settlements,
            shell,
            header.get("max_attempts"),
        )
        count, columns = header["count"], header["runs"] * wire.DELIVERY_RUN.size
        lengths = struct.unpack(f"<{2 * count}I", frame.lengths)
        rows = list(wire.DELIVERY_RUN.iter_unpack(frame.columns[:columns]))
        keys = _keys(frame, columns, len(rows)) if header.get("keyed") else [None] * len(rows)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise ProtocolError(
            f"the server sent a delivery that does not add up: {error!r}"
        ) from error
    if sum(row[2] for row in rows) != count or sum(lengths) != len(frame.blob):
        raise ProtocolError("the runs or lengths of a delivery do not cover its messages")
    messages = delivery.messages
    blob, at, append = frame.blob, 0, messages.append
    ends = accumulate(lengths)
    cuts = zip(ends, ends, strict=True)  # where headers and body of each message end
    for (origin, first, run_count, attempt, flags, encoding, published), key in zip(
        rows, keys, strict=True
    ):
        run = DeliveryRun(
            delivery, origin, attempt, bool(flags & wire.MARKED), encoding, published, key
        )
        # The range comes first: it ends before it takes a cut that belongs to the next run.
        for sequence, (body_at, end) in zip(range(first, first + run_count), cuts, strict=False):
            append(make(run, sequence, blob[at:body_at], blob[body_at:end]))
            at = end
    delivery.open = count
    return delivery


def _keys(frame: wire.Frame, at: int, count: int) -> list[str | None]:
    keys, _ = wire.unpack_strings(frame.columns[at:], count)
    return [key.decode() or None for key in keys]


def drop(messages: Iterable[MessageData[Any]]) -> None:
    """Note that `messages` are given back unseen, or were lost: nothing more is owed for them."""
    for message in messages:
        if message.state != ENDED:
            message.state = ENDED
            message.run.delivery.open -= 1
