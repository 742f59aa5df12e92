"""A delivery as data: what all of its messages share, and each message; their verbs are the shell's.

Objects of this module are made for every message, so they are small, and what most handlers never ask for
(headers, the decoded body, the date) is worked out when asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

from minibroker.contract import limits
from minibroker.contract.bodies import decode_body, decode_headers
from minibroker.contract.confirms import MessageId
from minibroker.contract.ends import After
from minibroker.contract.errors import LeaseLost, MessageCancelled
from minibroker.session.error_text import describe
from minibroker.session.settlements import BEGUN, ENDED, HELD, TOLD, Settlement, Settlements
from minibroker.session.ways_out import Ending

Body = TypeVar("Body")
_UNSET: Any = object()
LOST: Final = True  # its lease ended, or it was handed out again
CANCELLED: Final = 2  # somebody cancelled it, which is lost, too


class Delivery:
    """What all messages of one delivery frame share."""

    __slots__ = (
        "after",
        "convert",
        "handed",
        "keeps_results",
        "lease_ms",
        "max_attempts",
        "messages",
        "open",
        "queue",
        "settlements",
        "shell",
        "token",
    )

    def __init__(
        self,
        queue: str,
        token: int,
        lease_ms: int,
        settlements: Settlements,
        shell: Any,
        max_attempts: int | None = None,
    ) -> None:
        self.queue = queue
        self.token = token
        self.lease_ms = lease_ms
        self.max_attempts = max_attempts
        self.settlements = settlements
        self.shell = shell
        self.messages: list[Any] = []  # of the class that the shell has for them
        self.open = 0  # messages whose end was not written yet
        self.keeps_results = False  # the queue does
        self.handed = False  # the server has begun it, for a handler that waited
        # Of those that waited for others, by origin and sequence: how many of these were done, and not.
        self.after: dict[tuple[int, int], tuple[int, int]] | None = None
        self.convert: Any = None  # makes bodies into the type that the queue was given, if it was

    def begun(self) -> list[Any]:
        """Return the messages whose handlers run."""
        return [message for message in self.messages if message.state in (BEGUN, TOLD)]

    def give_back(self) -> None:
        """Give back messages that the server has begun, and that nobody is there for."""
        for message in self.messages:
            message.release_unseen(recalled=1)


class DeliveryRun(msgspec.Struct, eq=False):
    """What consecutive messages of a delivery share; of keys that take turns there is one for each message."""

    delivery: Delivery
    settlements: Settlements  # those of the delivery
    origin: int
    attempt: int
    marked: bool
    encoding: int
    published_unix_ms: int
    key: str | None


class MessageData(msgspec.Struct, Generic[Body], eq=False, gc=False):
    """One delivery of a message: what it is, and what became of it here."""

    # A struct of msgspec is made in a third of the time of a class with slots. `gc=False`: the collector does not
    # look at a thousand of them again and again (a fifth of what consuming cost). The circles they are in, with
    # their delivery and with what waits to be written, are broken by hand (delivery.py).
    run: DeliveryRun
    sequence: int
    _headers: bytes
    raw: bytes
    _body: Any = _UNSET
    state: int = HELD
    lost: int = False  # True, or CANCELLED
    begun_at: float = 0.0  # monotonic seconds
    task: Any = None

    @property
    def body(self) -> Body:
        """The body, decoded when first read.

        Raises:
            BodyError: the bytes are not what their encoding says, or the body does not fit the type that the queue
                was given; `raw` still has them.
        """
        if self._body is _UNSET:
            run = self.run
            convert = run.delivery.convert
            if not run.encoding and convert is None:
                return self.raw  # type: ignore[return-value]
            body = decode_body(self.raw, run.encoding) if run.encoding else self.raw
            self._body = body if convert is None else convert(body)
        return self._body  # type: ignore[no-any-return]

    @property
    def headers(self) -> dict[str, Any]:
        """The application's headers, as published; BodyError if they cannot be decoded."""
        return decode_headers(self._headers)

    @property
    def origin(self) -> int:
        """The number of the queue the message was first published to."""
        return self.run.origin

    @property
    def id(self) -> MessageId:
        """The identity of the message, as its confirm named it; kept over DLQ moves and redrives."""
        return MessageId(self.run.origin, self.sequence)

    @property
    def offset(self) -> int | None:
        """Of a message of a group its offset in the retained log, the same in each group; None of others."""
        return self.sequence & limits.MAX_OFFSET if limits.GROUP_MARK in self.queue else None

    @property
    def after(self) -> After | None:
        """How the messages ended that it waited for; None: it came after none."""
        counts = (self.run.delivery.after or {}).get((self.run.origin, self.sequence))
        return None if counts is None else After(*counts)

    @property
    def token(self) -> int:
        """The number of this delivery; it grows with each one, so it can fence off older handlers."""
        return self.run.delivery.token

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.run.attempt

    @property
    def max_attempts(self) -> int | None:
        """After how many attempts it is dead, if its publish said so; None: as its queue says."""
        return self.run.delivery.max_attempts

    @property
    def key(self) -> str | None:
        """The key it was published with; None if it has none."""
        return self.run.key

    @property
    def queue(self) -> str:
        """The name of the queue that delivered it."""
        return self.run.delivery.queue

    @property
    def published_at(self) -> datetime:
        """When the server took it, by the server's wall clock (UTC)."""
        return datetime.fromtimestamp(self.run.published_unix_ms / 1000, UTC)

    @property
    def marked(self) -> bool:
        """Whether it came back before without an end: an earlier handler may have died with it."""
        return self.run.marked

    def release_unseen(self, recalled: int | None = None) -> None:
        """Give back a message that the application never saw; `recalled`: the server asked for it."""
        if self.state != ENDED:
            self._end()
            settlements = self.run.settlements
            settlements.others.append(Settlement("release", self, recalled))
            settlements.owe()

    @property
    def cancelled(self) -> bool:
        """Whether somebody has cancelled it: what runs in a thread can look here, and stop."""
        return self.lost == CANCELLED

    def lose(self, *, cancelled: bool = False) -> None:
        """Note that it is not this client's any more."""
        self.lost = CANCELLED if cancelled else LOST
        if self.state != ENDED:
            self._end()

    def _end(self) -> None:
        if self.state == ENDED:
            raise self.lost_error()
        self.state = ENDED
        self.run.delivery.open -= 1

    def lost_error(self) -> LeaseLost:
        """Return what is raised by a settlement that comes too late."""
        if self.cancelled:
            return MessageCancelled(f"message {self.id} of {self.queue} was cancelled")
        if self.lost:
            return LeaseLost(f"the lease of message {self.id} of {self.queue} was lost")
        return LeaseLost(f"message {self.id} of {self.queue} was settled before")

    def __repr__(self) -> str:
        return f"<Message {self.id} of {self.queue}, attempt {self.attempt}, {len(self.raw)} bytes>"

    def _answer(self, error: BaseException, ending: Ending) -> Settlement:
        """Return the settlement of a message whose block has failed, which is logged."""
        if ending is Ending.INTERRUPTED:
            return Settlement("release", self)
        self.run.delivery.shell.failed(self, error)
        op = "reject" if ending is Ending.UNREADABLE else "nack"
        return Settlement(op, self, None, *describe(error))
