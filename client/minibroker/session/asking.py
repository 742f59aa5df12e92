"""Requests: what was asked and has no answer yet, and what takes it back when its caller is gone.

A request is checked against the command table before it is added: what the server would end the connection for
is refused here, by name. A caller that goes leaves nothing behind: what was never written is forgotten, a receive,
a consume or a wait for a result that was is withdrawn on the wire, and whatever still comes for it is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from minibroker.contract import limits, wire
from minibroker.contract.commands import COMMANDS, Kind
from minibroker.contract.errors import BadValue, ConnectionLost, MinibrokerError, TooLarge
from minibroker.session.events import Answered

# They leave something at the server that only a withdrawal ends.
_WITHDRAWN: Final = frozenset({"receive", "consume", "result"})
# Their answers may be long. So many may be under way: those of more than these could be what the server takes for
# a peer that does not read, and it would end the connection, and again when they are asked anew.
_LONG: Final = frozenset({"peek", "stats", "schedules", "error_groups", "pauses"})
MOST_LONG: Final = 4
# They are asked whether somebody waits for their answer or not.
_KEPT: Final = frozenset({"cancel", "withdraw"})
_TYPES: Final[Mapping[Kind, type | tuple[type, ...]]] = {
    Kind.INT: int,
    Kind.STR: str,
    Kind.BYTES: bytes,
    Kind.MAP: dict,
    Kind.NAMES: (list, tuple),
}


class Request:
    """A request that has no answer yet; `frame` is kept for a new connection."""

    __slots__ = ("asked", "blamed", "frame", "op", "waiter", "written")

    def __init__(self, op: str, frame: bytes, waiter: Any) -> None:
        self.op = op
        self.frame = frame
        self.waiter = waiter
        self.written = False  # on this connection
        self.asked = False  # on any
        # It was unanswered when the server ended a connection for what it was sent.
        self.blamed = False


class Requests:
    """The requests of a session, by number."""

    def __init__(self) -> None:
        self.unwritten: list[Request] = []
        self.max_frame_bytes = limits.MAX_FRAME_BYTES
        self._waiting: dict[int, Request] = {}
        self._next = 1
        # Requests of `_LONG` that were written on this connection, and have no answer.
        self._long = 0

    def add(self, op: str, fields: Mapping[str, object], waiter: Any, columns: bytes = b"") -> int:
        """Add a request, to be written by the next flush, and return its number.

        Raises:
            BadValue: a field is outside its range, or too much is named at once; nothing was added.
            TooLarge: the frame would exceed what the server takes.
        """
        _check(op, fields)
        number = self._next
        header = wire.pack_header({"parts": [{"op": op, **fields}], "request": number})
        if len(header) > limits.MAX_HEADER_BYTES:
            text = f"{op}: its fields take {len(header)} bytes, and {limits.MAX_HEADER_BYTES} are allowed"
            raise BadValue(text)
        frame = wire.frame_of_packed(header, columns)
        if len(frame) - wire.LENGTH.size > self.max_frame_bytes:
            raise TooLarge(f"{op}: a frame of {len(frame)} bytes exceeds {self.max_frame_bytes}")
        self._next = number % (2**32 - 1) + 1
        request = self._waiting[number] = Request(op, frame, waiter)
        self.unwritten.append(request)
        return number

    def write(self, operations: Collection[str] = COMMANDS) -> list[bytes]:
        """Return the frames that were not written on this connection, and note that they are.

        Of these operations only, where those are to be in front of all else.
        """
        frames, left = [], []
        for request in self.unwritten:
            is_long = request.op in _LONG
            if request.op in operations and not (is_long and self._long >= MOST_LONG):
                self._long += is_long
                request.written = request.asked = True
                frames.append(request.frame)
            else:
                left.append(request)
        self.unwritten = left
        return frames

    def is_written(self, op: str = "") -> bool:
        """Return whether a request (of this operation) without an answer was written on this connection."""
        return any(request.written and op in ("", request.op) for request in self._waiting.values())

    def answer(self, number: int) -> Request | None:
        """Take out and return the request that has its answer; None if its caller went before."""
        request = self._waiting.pop(number, None)
        if self._long and request is not None and request.written and request.op in _LONG:
            self._long -= 1
        return request

    def withdraw(self, number: int, op: str) -> None:
        """The caller is gone: see to it that nothing of the request is left, at the server either.

        It may have been answered: then the answer is taken back.
        """
        if op in _KEPT:
            if number in self._waiting:
                self._waiting[number].waiter = None
            return
        request = self.answer(number)
        if request is not None and not request.written:
            self.unwritten.remove(request)
        if op in _WITHDRAWN and (request is None or request.asked):
            self.add("withdraw", {"withdrawn": number}, None)

    def disconnected(self) -> list[Answered]:
        """Note that the connection ended; return the answers of those that may not be asked twice."""
        events = []
        for number, request in list(self._waiting.items()):
            if not COMMANDS[request.op].repeatable and request.written:
                del self._waiting[number]
                error = ConnectionLost(f"the connection ended before {request.op} was answered")
                events.append(Answered(request.waiter, None, error))
            request.written = False
        self._long = 0
        self.unwritten = list(self._waiting.values())
        return events

    def blame(self, error: MinibrokerError) -> list[Answered]:
        """The server ended the connection for something it was sent, and it was no sequenced frame.

        What was unanswered at two such ends is answered with `error`, and not asked again.
        """
        events = []
        for number, request in list(self._waiting.items()):
            if request.written and request.blamed:
                del self._waiting[number]
                events.append(Answered(request.waiter, None, error))
            request.blamed = request.blamed or request.written
        return events

    def forget_withdrawals(self) -> None:
        """The session is gone at the server, and with it what was to be taken back."""
        for number, request in list(self._waiting.items()):
            if request.op == "withdraw":
                del self._waiting[number]
        self.unwritten = [request for request in self.unwritten if request.op != "withdraw"]


def _check(op: str, fields: Mapping[str, object]) -> None:
    rows = {field.name: field for field in COMMANDS[op].fields}
    for name, value in fields.items():
        row = rows[name]
        if not isinstance(value, _TYPES[row.kind]) or isinstance(value, bool):
            raise BadValue(f"{name} is {value!r}, which is no {row.kind.value}")
        size = value if isinstance(value, int) else _size(value)
        if not 0 <= size <= row.high:
            what = f"{name} is {value}" if row.kind is Kind.INT else f"{name} has {size} {row.unit}"
            raise BadValue(f"{what}; it must be 0 to {row.high}")


def _size(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)
