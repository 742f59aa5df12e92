"""Delivery frames as messages: one delivery, its runs, and the messages cut out of its blob."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Protocol

from minibroker.contract import wire
from minibroker.contract.errors import ProtocolError
from minibroker.session import message as message_module
from minibroker.session.message import Message
from minibroker.session.settlements import BEGUN, ENDED, TOLD, Settlements


class Shell(Protocol):
    """What a message asks of the shell around the protocol logic."""

    thread: int  # of the loop
    scheduled: bool  # what is settled now is written at the end of this turn

    current_task: Callable[[], Any]  # returns the task that runs now

    failed: Callable[[Message[Any], BaseException], None]  # notes that a handler failed

    # returns whether an error is the shell's own cancellation of a lost message's handler
    takes_cancellation: Callable[[Message[Any], BaseException | None], bool]

    def check_loop(self) -> None:
        """Raise RuntimeError if another event loop runs than the shell's."""

    def check_open(self) -> None:
        """Raise Closed if nothing can be asked any more, or as `check_loop` does."""

    def is_cancelled(self) -> bool:
        """Return whether somebody asked the task that runs now to be cancelled."""

    def flush(self) -> None:
        """Write what waits, now, as far as there is room."""

    def extended(self, message: Message[Any], lease_ms: int) -> None:
        """Note that `message` has a lease of its own length from now on."""

    async def confirmed(
        self, message: Message[Any], settlements: Settlements, extends: bool = False
    ) -> None:
        """Return when the settlement of `message` that was just handed over is confirmed."""


class Delivery:
    """What all messages of one delivery frame share."""

    __slots__ = ("lease_ms", "messages", "open", "queue", "settlements", "shell", "token")

    def __init__(
        self, queue: str, token: int, lease_ms: int, settlements: Settlements, shell: Shell
    ) -> None:
        self.queue = queue
        self.token = token
        self.lease_ms = lease_ms
        self.settlements = settlements
        self.shell = shell
        self.messages: list[Message[Any]] = []
        self.open = 0  # messages whose end was not written yet

    def begun(self) -> list[Message[Any]]:
        """Return the messages whose handlers run."""
        return [message for message in self.messages if message.state in (BEGUN, TOLD)]


class DeliveryRun:
    """What consecutive messages of a delivery share."""

    __slots__ = (
        "attempt",
        "delivery",
        "encoding",
        "key",
        "marked",
        "origin",
        "published_unix_ms",
        "settlements",
    )

    def __init__(
        self,
        delivery: Delivery,
        origin: int,
        attempt: int,
        marked: bool,
        encoding: int,
        published_unix_ms: int,
        key: str | None,
    ) -> None:
        self.delivery = delivery
        self.settlements = delivery.settlements
        self.origin = origin
        self.attempt = attempt
        self.marked = marked
        self.encoding = encoding
        self.published_unix_ms = published_unix_ms
        self.key = key


# help(Message) and inspect.signature(Message) look up the type of `run` where Message stands.
vars(message_module)["DeliveryRun"] = DeliveryRun


def unpack_delivery(frame: wire.Frame, settlements: Settlements, shell: Shell) -> Delivery:
    """Return the delivery in a `deliver` frame, its messages not begun.

    Raises:
        ProtocolError: counts, columns and blob do not fit each other; the caller must close.
    """
    header = frame.header
    try:
        delivery = Delivery(
            header["queue"], header["token"], header["lease_ms"], settlements, shell
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
            append(Message(run, sequence, blob[at:body_at], blob[body_at:end]))
            at = end
    delivery.open = count
    return delivery


def _keys(frame: wire.Frame, at: int, count: int) -> list[str | None]:
    keys, _ = wire.unpack_strings(frame.columns[at:], count)
    return [key.decode() or None for key in keys]


def drop(messages: list[Message[Any]]) -> None:
    """Note that `messages` are given back unseen, or were lost: nothing more is owed for them."""
    for message in messages:
        if message.state != ENDED:
            message.state = ENDED
            message.run.delivery.open -= 1
