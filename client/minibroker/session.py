"""The client's side of a session, as a value that is stepped: bytes in, events out.

No socket and no clock here; the shell (driver.py) feeds what it received, writes what `flush` returns and
acts on the events. The same object outlives connections: `disconnected` notes that one ended, `login`
gives the first frame of the next, and what had no answer is sent again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from minibroker import limits, wire
from minibroker.commands import COMMANDS
from minibroker.delivery import Delivery, Shell, unpack_delivery
from minibroker.errors import (
    ConnectionLost,
    MinibrokerError,
    OutcomeUnknown,
    ProtocolError,
    error_from_wire,
)
from minibroker.events import (
    Answered,
    Delivered,
    Event,
    Leaving,
    Published,
    PublishFailed,
    Settled,
    SettleRefused,
    Welcomed,
)
from minibroker.message import Message
from minibroker.outbox import Outbox, PublishGroup
from minibroker.peek import unpack_peek
from minibroker.settlements import (
    FRAME_BYTES,
    MAX_PARTS,
    Run,
    Settlements,
    SettlePart,
    named_by,
    runs_of,
)
from minibroker.window import Sent, Window

# A login frame may have 4 KiB; this many runs fit with the other fields. Only a lease that was lost in a crash
# needs to be named, and a crash loses the latest ones: those begun first stay begun at the server all the same.
MAX_RESUME_RUNS: Final = 128
# Queues share a settle frame while they have few parts and runs; take() itself stays below one frame.
MAX_SHARED_RUNS: Final = 1_000

Content = PublishGroup | list[SettlePart]
Ripe = Callable[[Settlements], Awaitable[None] | None]


class Request:
    """A request that has no answer yet; `frame` is kept for a new connection."""

    __slots__ = ("frame", "op", "waiter", "written")

    def __init__(self, op: str, frame: bytes, waiter: Any) -> None:
        self.op = op
        self.frame = frame
        self.waiter = waiter
        self.written = False


class Session:
    """One session: its identity, what was written and is unanswered, what waits to be written."""

    def __init__(self, client: str, shell: Shell, on_ripe: Ripe) -> None:
        self.client = client
        self.session_id: int | None = None
        self.secret = b""
        self.server_version = ""
        self.heartbeat_ms = limits.HEARTBEAT_MS
        self.max_frame_bytes = limits.MAX_FRAME_BYTES
        self.max_message_bytes = limits.MAX_MESSAGE_BYTES
        self.is_open = False
        self.window: Window[Content] = Window()
        self.outbox = Outbox()
        self.settlements: dict[str, Settlements] = {}
        self.returned: list[SettlePart] = []  # refused for now; the shell says when to try again
        self.deliveries: dict[int, Delivery] = {}
        self.consumers: set[int] = set()  # deliveries for others are ignored: they were cancelled
        self._requests: dict[int, Request] = {}
        self._unwritten: list[Request] = []
        self._next_request = 1
        self._reader = wire.FrameReader()
        self._resumed: list[Message[Any]] = []
        self._prune_at = 64
        self._shell = shell
        self._on_ripe = on_ripe
        self._handlers: Mapping[str, Callable[[wire.Frame], Event | list[Event] | None]] = {
            "welcome": self._welcome,
            "confirm": self._confirm,
            "deliver": self._deliver,
            "reply": self._reply,
            "messages": self._messages,
            "error": self._error,
            "pong": self._pong,
            "goodbye": self._goodbye,
        }

    # ---- connecting ----

    def login(self) -> bytes:
        """Return the first frame of a new connection: resume if there is a session, else hello."""
        self._reader = wire.FrameReader(self.max_frame_bytes)
        part: dict[str, object] = {"protocol": limits.PROTOCOL_VERSION}
        if self.session_id is None:
            return wire.pack_frame({"parts": [{"op": "hello", **part, "client": self.client}]})
        self._resumed = list(self.begun_messages())
        runs = _latest_runs(self._resumed)
        part |= {"session": self.session_id, "secret": self.secret, "client": self.client}
        part |= {"op": "resume", "runs": len(runs)}
        return wire.pack_frame({"parts": [part]}, wire.pack_runs(runs))

    def begun_messages(self) -> Iterator[Message[Any]]:
        """Yield the messages whose lease the client still needs: begun, or not safely settled."""
        for delivery in self.deliveries.copy().values():
            yield from delivery.begun()
        for settlements in list(self.settlements.values()):
            yield from list(settlements.acks)
            yield from [other.message for other in settlements.others if other.op != "extend"]
        for part in self._settle_parts():
            if part.op not in ("begin", "extend"):
                yield from part.messages

    def _settle_parts(self) -> Iterator[SettlePart]:
        yield from self.returned
        for sent in self.window:
            if not isinstance(sent.content, PublishGroup):
                yield from sent.content

    def disconnected(self) -> list[Event]:
        """Note that the connection ended: HELD messages are gone, some requests cannot be repeated."""
        self.is_open = False
        events: list[Event] = []
        for number, request in list(self._requests.items()):
            if COMMANDS[request.op].repeatable:
                request.written = False
            elif request.written:
                del self._requests[number]
                error = ConnectionLost(f"the connection ended before {request.op} was answered")
                events.append(Answered(request.waiter, None, error))
        self._unwritten = list(self._requests.values())
        return events

    def forget(self) -> list[Event]:
        """Drop the session: the server does not know it any more, so what was sent stays unjudged."""
        self.session_id = None
        events: list[Event] = []
        unknown = OutcomeUnknown(
            "the session is gone; what was written may have been stored or not"
        )
        for sent in self.window:
            if isinstance(sent.content, PublishGroup):
                events.append(PublishFailed(sent.content, unknown))
            else:
                events.append(SettleRefused(sent.content, unknown))
        self.window = Window()
        return events

    def let_go(self) -> None:
        """Forget every message, at the end: the collector would not see their circles (message.py)."""
        for delivery in self.deliveries.values():
            delivery.messages.clear()
        self.deliveries.clear()
        for settlements in self.settlements.values():
            settlements.let_go()
        self.returned.clear()
        self._resumed.clear()
        self.window = Window()

    def resend(self, given_up: Callable[[PublishGroup], bool]) -> list[bytes]:
        """Return the unanswered frames; publishes whose callers have gone are never sent again."""
        frames = []
        for sent in self.window:
            if isinstance(sent.content, PublishGroup) and given_up(sent.content):
                self.window.answer(sent.sequence)
            else:
                frames.append(sent.frame)
        return frames

    # ---- what leaves ----

    def settlements_of(self, queue: str) -> Settlements:
        """Return where the messages of `queue` put their settlements."""
        found = self.settlements.get(queue)
        if found is None:
            found = self.settlements[queue] = Settlements(queue, self._on_ripe)
        return found

    def request(
        self, op: str, fields: Mapping[str, object], waiter: Any, columns: bytes = b""
    ) -> int:
        """Add a request, to be written by the next flush, and return its number."""
        number = self._next_request
        self._next_request = number % (2**32 - 1) + 1
        header = {"parts": [{"op": op, **fields}], "request": number}
        request = Request(op, wire.pack_frame(header, columns), waiter)
        self._requests[number] = request
        self._unwritten.append(request)
        return number

    def withdraw(self, number: int) -> bool:
        """Forget a request and return whether it was written already."""
        request = self._requests.get(number)
        if request is None:
            return False
        if not request.written:
            del self._requests[number]
            self._unwritten.remove(request)
            return False
        request.waiter = None  # the answer is still to come, and belongs to nobody
        return True

    def flush(self, now_ms: int) -> list[bytes]:
        """Return the frames that may be written now, in order."""
        frames: list[bytes] = []
        if not self.is_open:
            self.outbox.close_older(now_ms)
            return frames
        # Settlements first: a cancel gives back what has not begun, so it must not overtake an ack.
        self._flush_settlements(frames)
        if self._unwritten:
            for request in self._unwritten:
                request.written = True
                frames.append(request.frame)
            self._unwritten.clear()
        if self.outbox.groups:
            self._flush_publishes(frames, now_ms)
        return frames

    def _flush_settlements(self, frames: list[bytes]) -> None:
        begins: list[SettlePart] = []
        owing = False
        for settlements in self.settlements.values():
            if settlements.begins:
                begins += settlements.take_begins()
            if settlements.acks or settlements.others:
                owing = True
        while owing and self.window.has_room(FRAME_BYTES):
            parts = self._take_settlements()
            if len(parts) + len(begins) <= MAX_PARTS:
                parts += begins
                begins = []
            self._write(frames, parts, self._pack_settlements(parts))
            owing = self.owes_settlements()
        for at in range(0, len(begins), MAX_PARTS):
            # No settlement to ride with: not sequenced, so it needs no room and gets no answer.
            frames.append(_pack_parts(begins[at : at + MAX_PARTS], {}))

    def owes_settlements(self) -> bool:
        """Return whether settlements wait to be written."""
        return any(not waiting.is_empty() for waiting in self.settlements.values())

    def _take_settlements(self) -> list[SettlePart]:
        parts: list[SettlePart] = []
        runs = 0
        for settlements in self.settlements.values():
            if settlements.is_empty():
                continue
            if len(parts) > 2 or runs > MAX_SHARED_RUNS:
                break  # the next frame has room for them
            taken = settlements.take()
            parts += taken
            runs += sum(len(part.runs) for part in taken)
        return parts

    def _pack_settlements(self, parts: Sequence[SettlePart]) -> bytes:
        return _pack_parts(
            parts,
            {"sequence": self.window.next_sequence, "answered_below": self.window.answered_below},
        )

    def _write(self, frames: list[bytes], content: Content, frame: bytes) -> None:
        self.window.add(frame, content)
        frames.append(frame)

    def _flush_publishes(self, frames: list[bytes], now_ms: int) -> None:
        outbox, window = self.outbox, self.window
        while outbox.groups and window.has_room(
            outbox.groups[0].account() + limits.MAX_HEADER_BYTES
        ):
            group = outbox.pop()
            group.drop_withdrawn()
            if group.count:
                self._write(frames, group, group.pack(window.next_sequence, window.answered_below))
        if outbox.groups:
            outbox.close_older(now_ms)

    def retry_returned(self) -> list[bytes]:
        """Return frames for the settlements that were refused for now, each under a new sequence."""
        frames: list[bytes] = []
        while self.returned and self.window.has_room(FRAME_BYTES):
            part = self.returned.pop(0)
            self._write(frames, [part], self._pack_settlements([part]))
        return frames

    # ---- what arrives ----

    def receive(self, data: bytes) -> list[Event]:
        """Take received bytes and return what happened, in order.

        Raises:
            ProtocolError, LoginRefused, ...: the connection cannot be used again; the caller closes it.
        """
        events: list[Event] = []
        for frame in self._reader.feed(data):
            try:
                event = self._handlers[frame.header["op"]](frame)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ProtocolError(f"the server sent a frame not understood: {error!r}") from error
            if event is None:
                continue
            if type(event) is list:
                events += event
            else:
                events.append(event)  # type: ignore[arg-type]
        return events

    def _welcome(self, frame: wire.Frame) -> Event:
        header = frame.header
        self.session_id, self.secret = header["session"], header["secret"]
        self.server_version = header["version"]
        self.heartbeat_ms = header["heartbeat_ms"]
        self.max_frame_bytes = header["max_frame_bytes"]
        self.max_message_bytes = header["max_message_bytes"]
        self.is_open = True
        lost = named_by(_runs(frame)[: header.get("lost", 0)], self._resumed)
        self._resumed = []
        return Welcomed(lost)

    def _confirm(self, frame: wire.Frame) -> Event | list[Event] | None:
        header = frame.header
        if "sequence" not in header:
            return None
        sent = self.window.answer(header["sequence"])
        if sent is None:
            return None
        content = sent.content
        results = header["results"]
        if isinstance(content, PublishGroup):
            result = results[0]
            return Published(content, result["origin"], result["first"], result["durability"])
        runs, events, at = _runs(frame), [], 0
        for part, result in zip(content, results, strict=True):
            count = result.get("lost", 0)
            lost = named_by(runs[at : at + count], part.messages) if count else ()
            at += count
            if lost or part.waiters:
                events.append(Settled(part, lost))
        return events  # type: ignore[return-value]

    def _deliver(self, frame: wire.Frame) -> Event | None:
        header = frame.header
        consumer = header.get("consumer")
        if consumer is not None and consumer not in self.consumers:
            return None  # cancelled meanwhile: the server has taken these back
        delivery = unpack_delivery(frame, self.settlements_of(header["queue"]), self._shell)
        if delivery.open:
            self._keep(delivery)
        if consumer is not None:
            return Delivered(consumer, delivery)
        request = self._requests.pop(header["request"], None)
        return Answered(request.waiter if request else None, delivery, None)

    def _keep(self, delivery: Delivery) -> None:
        if len(self.deliveries) >= self._prune_at:
            live = {}
            for token, kept in self.deliveries.items():
                if kept.open > 0:
                    live[token] = kept
                else:
                    kept.messages.clear()  # the collector would not see this circle (message.py)
            self.deliveries = live
            self._prune_at = 64 + 2 * len(live)
        self.deliveries[delivery.token] = delivery

    def _reply(self, frame: wire.Frame) -> Event | None:
        return self._answer(frame.header["request"], frame.header["value"])

    def _messages(self, frame: wire.Frame) -> Event | None:
        return self._answer(frame.header["request"], unpack_peek(frame))

    def _pong(self, frame: wire.Frame) -> Event | None:
        number = frame.header.get("request")
        return None if number is None else self._answer(number, None)

    def _goodbye(self, frame: wire.Frame) -> Event:
        return Leaving(str(frame.header.get("text", "")))

    def _answer(
        self, number: int, value: object, error: MinibrokerError | None = None
    ) -> Event | None:
        request = self._requests.pop(number, None)
        if request is None or request.waiter is None:
            return None
        return Answered(request.waiter, value, error)

    def _error(self, frame: wire.Frame) -> Event | None:
        header = frame.header
        error = error_from_wire(header["code"], header["text"], header.get("retry_ms"))
        error.retryable = header.get("retryable", error.retryable)
        if "sequence" in header:
            return self._refused(self.window.answer(header["sequence"]), error)
        if "request" in header:
            return self._answer(header["request"], None, error)
        raise error

    def _refused(self, sent: Sent[Content] | None, error: MinibrokerError) -> Event | None:
        if sent is None:
            return None
        if isinstance(sent.content, PublishGroup):
            return PublishFailed(sent.content, error)
        if error.retryable:
            self.returned += [part for part in sent.content if part.op != "begin"]
        return SettleRefused(sent.content, error)


def _latest_runs(messages: list[Message[Any]]) -> list[Run]:
    """Return the runs of `messages`; if they are too many, of those that were begun last."""
    runs = runs_of(messages)
    if len(runs) <= MAX_RESUME_RUNS:
        return runs
    latest = sorted(messages, key=lambda message: message.begun_at)
    while len(runs) > MAX_RESUME_RUNS:
        latest = latest[len(latest) // 8 or 1 :]
        runs = runs_of(latest)
    return runs


def _pack_parts(parts: Sequence[SettlePart], header: Mapping[str, object]) -> bytes:
    columns = b"".join([part.columns() for part in parts])
    return wire.pack_frame({"parts": [part.header() for part in parts], **header}, columns)


def _runs(frame: wire.Frame) -> list[Run]:
    if not frame.columns:
        return []
    return list(wire.RUN.iter_unpack(frame.columns[: len(frame.columns) // 24 * 24]))
