"""Delivery frames as messages: one delivery, its runs, the messages cut out of its blob; and all of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from operator import itemgetter
from typing import Any, Final

from minibroker.contract import wire
from minibroker.contract.errors import ProtocolError
from minibroker.session.message import Delivery, DeliveryRun, MessageData
from minibroker.session.settlements import ENDED, Settlements

_COUNT: Final = itemgetter(2)  # the messages of a row
PAIR: Final = struct.Struct("<II")  # the lengths of headers and body of a message
FIRST_LOOK: Final = 64  # deliveries, before it is looked through for those of which nothing is left

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
        if "results" in header:
            delivery.keeps_results = bool(header["results"])
        if "after" in header:
            delivery.after = {(row[0], row[1]): (row[2], row[3]) for row in header["after"]}
        count, columns = header["count"], header["runs"] * wire.DELIVERY_RUN.size
        rows = list(wire.DELIVERY_RUN.iter_unpack(frame.columns[:columns]))
        keys = _keys(frame, columns, len(rows)) if header.get("keyed") else [None] * len(rows)
        headers: Iterator[bytes]
        if count == 1:
            of_headers, of_body = PAIR.unpack(frame.lengths)
            if of_headers + of_body != len(frame.blob):
                raise ValueError(f"a message of {of_headers + of_body} bytes")
            headers, bodies = iter((frame.blob[:of_headers],)), iter((frame.blob[of_headers:],))
        else:
            headers, bodies = _pieces(frame.lengths, count, frame.blob)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise ProtocolError(
            f"the server sent a delivery that does not add up: {error!r}"
        ) from error
    if sum(map(_COUNT, rows)) != count:
        raise ProtocolError("the runs of a delivery do not cover its messages")
    messages = delivery.messages
    for (origin, first, run_count, attempt, flags, encoding, published), key in zip(
        rows, keys, strict=True
    ):
        marked = flags & wire.MARKED != 0
        run = DeliveryRun(delivery, settlements, origin, attempt, marked, encoding, published, key)
        if run_count == 1:  # as where keys take turns
            messages.append(make(run, first, next(headers), next(bodies)))
            continue
        # The range comes first: it ends before it takes what belongs to the next run.
        messages += map(make, repeat(run), range(first, first + run_count), headers, bodies)
    delivery.open = count
    return delivery


def _pieces(lengths: bytes, count: int, blob: bytes) -> tuple[Iterator[bytes], Iterator[bytes]]:
    """Return the headers and the bodies of so many messages; ValueError, struct.error: they do not add up.

    Those of one size, as of most publishes, are all cut by one call: in slices they took half of what receiving
    them costs, and of a frame of 16 more than all else.
    """
    if len(lengths) != PAIR.size * count:
        raise ValueError(f"{len(lengths)} bytes of lengths for {count} messages")
    if count and lengths == lengths[: PAIR.size] * count:
        of_headers, of_body = PAIR.unpack_from(lengths)
        if not of_headers:
            return repeat(b""), iter(struct.unpack(f"{of_body}s" * count, blob))
        pieces: Sequence[bytes] = struct.unpack(f"{of_headers}s{of_body}s" * count, blob)
    else:
        ends = list(accumulate(struct.unpack(f"<{2 * count}I", lengths), initial=0))
        if ends[-1] != len(blob):
            raise ValueError(f"lengths of {ends[-1]} bytes, and a blob of {len(blob)}")
        pieces = [blob[at:end] for at, end in pairwise(ends)]
    return iter(pieces[::2]), iter(pieces[1::2])


def _keys(frame: wire.Frame, at: int, count: int) -> list[str | None]:
    keys, _ = wire.unpack_strings(frame.columns[at:], count)
    return [key.decode() or None for key in keys]


def drop(messages: Iterable[MessageData[Any]]) -> None:
    """Note that `messages` are given back unseen, or were lost: nothing more is owed for them."""
    for message in messages:
        if message.state != ENDED:
            message.state = ENDED
            message.run.delivery.open -= 1


class Deliveries(dict[int, Delivery]):
    """What was delivered and has not ended; what has is forgotten with its answer, or when there are many."""

    def __init__(self) -> None:
        super().__init__()
        self._prune_at = FIRST_LOOK

    def keep(self, delivery: Delivery) -> None:
        """Know a delivery until nothing of it is left."""
        if len(self) >= self._prune_at:
            self.prune()
        self[delivery.token] = delivery

    def prune(self) -> None:
        """Forget the deliveries of which nothing is left, and with them the bodies."""
        for token, kept in self.copy().items():
            if kept.open <= 0:
                self.forget(token, kept)
        self._prune_at = FIRST_LOOK + 2 * len(self)

    def forget(self, token: int, delivery: Delivery) -> None:
        """Know a delivery no more, and nothing of its messages."""
        self.pop(token, None)
        delivery.messages.clear()  # the collector would not see this circle (message.py)

    def take_back(self, answer: object) -> None:
        """Drop an answer that came when its caller went: the withdrawal gives it back at the server."""
        if isinstance(answer, Delivery):
            drop(answer.messages)
            self.forget(answer.token, answer)

    def let_go(self) -> None:
        """Forget every message, at the end: the collector would not see their circles (message.py)."""
        for delivery in self.values():
            delivery.messages.clear()
        self.clear()
