"""The client's side of a session, as a value that is stepped: bytes in, events out.

No socket and no clock here; the shell feeds what it received, writes what `flush` returns and
acts on the events. The same object outlives connections: `disconnected` notes that one ended, `login`
gives the first frame of the next, and what had no answer is sent again, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from minibroker.contract import limits, wire
from minibroker.contract.commands import COMMANDS
from minibroker.contract.errors import (
    LoginRefused,
    MinibrokerError,
    NotLeading,
    OutcomeUnknown,
    ProtocolError,
    error_from_wire,
)
from minibroker.session.accepting import accept_of
from minibroker.session.asking import Requests
from minibroker.session.delivery import Deliveries, MakeMessage, unpack_delivery
from minibroker.session.events import (
    Answered,
    Content,
    Delivered,
    Event,
    Leaving,
    Published,
    PublishFailed,
    RouteDone,
    Settled,
    SettleRefused,
    StepDone,
    Welcomed,
    failed,
    given_up,
)
from minibroker.session.log_pages import unpack_page
from minibroker.session.message import MessageData
from minibroker.session.outbox import Outbox, PublishGroup
from minibroker.session.peek import unpack_peek
from minibroker.session.recalled import recalled_by
from minibroker.session.revoked import cancelled_by
from minibroker.session.route_groups import RouteGroup, routed_of
from minibroker.session.settle_frames import Owed, resume_runs, write_singly
from minibroker.session.settlements import GOES_ON, Ripe, Run, Settlements, SettlePart, named_by
from minibroker.session.step_frame import StepFrame
from minibroker.session.suspects import Suspects
from minibroker.session.window import Sent, Window

_RESUME_FIELDS: Final = frozenset(field.name for field in COMMANDS["resume"].fields)


class Session:
    """One session: its identity, what was written and is unanswered, what waits to be written.

    A message is what `make` returns; `shell` is what its verbs ask, and opaque here.
    """

    def __init__(
        self, client: str, shell: Any, on_ripe: Ripe, make: MakeMessage = MessageData
    ) -> None:
        self.client = client
        self.token = self.version = ""
        self.session_id: int | None = None
        self.secret = b""
        self.server_version = ""
        self.heartbeat_ms = limits.HEARTBEAT_MS
        self.max_frame_bytes = limits.MAX_FRAME_BYTES
        self.max_message_bytes = limits.MAX_MESSAGE_BYTES
        self.is_open = False
        self.accept = b""  # the frame that says what this client knows of what the server offers
        self.window: Window[Content] = Window()
        self.outbox = Outbox()
        self.requests = Requests()
        self.owed = Owed()
        self.owing = self.owed.owing  # looked at by each flush
        self._settlements: WeakValueDictionary[str, Settlements] = WeakValueDictionary()
        self.steps: dict[StepFrame, None] = {}  # that are not written, or were refused for now
        self.deliveries = Deliveries()
        self.consumers: set[int] = set()  # deliveries for others are ignored: they were cancelled
        self._suspects = Suspects()
        self._given_up: list[Event] = []  # told when the connection has ended
        self._reader = wire.FrameReader()
        self._resumed: list[MessageData[Any]] = []
        self._shell = shell
        self.make = make
        self._on_ripe = on_ripe
        self._handlers: Mapping[str, Callable[[wire.Frame], Event | list[Event] | None]] = {
            "welcome": self._welcome,
            "confirm": self._confirm,
            "deliver": self._deliver,
            "reply": self._reply,
            "messages": self._messages,
            "log": self._log,
            "error": self._error,
            "pong": self._pong,
            "goodbye": self._goodbye,
            "recall": lambda frame: recalled_by(frame, self.deliveries),
            "cancelled": lambda frame: cancelled_by(frame, self.deliveries, self._settle_parts()),
        }

    # ---- connecting ----

    def login(self) -> bytes:
        """Return the first frame of a new connection: resume if there is a session, else hello."""
        self._reader = wire.FrameReader()  # what the welcome bounds is what the client sends
        part: dict[str, object] = {"protocol": limits.PROTOCOL_VERSION}
        part |= {"token": self.token} if self.token else {}  # an older server does not know it
        part |= {"version": self.version} if self.version else {}
        if self.session_id is None:
            return wire.pack_frame({"parts": [{"op": "hello", **part, "client": self.client}]})
        self._resumed = list(self.begun_messages())
        runs = resume_runs(self._resumed)
        part |= {"session": self.session_id, "secret": self.secret, "client": self.client}
        part |= {"op": "resume", "runs": len(runs)}
        if "next_sequence" in _RESUME_FIELDS:
            part["next_sequence"] = self.window.next_sequence
        return wire.pack_frame({"parts": [part]}, wire.pack_runs(runs))

    def begun_messages(self) -> Iterator[MessageData[Any]]:
        """Yield the messages whose lease the client still needs: begun, or not safely settled."""
        for delivery in self.deliveries.copy().values():
            yield from delivery.begun()
        yield from self.owed.messages()
        for part in self._settle_parts():
            if part.op not in GOES_ON:
                yield from part.messages

    def _settle_parts(self) -> Iterator[SettlePart]:
        yield from self.owed.returned
        yield from self.owed.single
        for step in list(self.steps):
            yield from step
        for sent in self.window:
            if not isinstance(sent.content, PublishGroup):
                yield from sent.content

    def disconnected(self) -> list[Event]:
        """Note that the connection ended: HELD messages are gone, some requests cannot be repeated."""
        self.is_open = False
        events, self._given_up = self._given_up, []
        self._suspects.disconnected()
        events += self.requests.disconnected()
        return events

    def forget(self) -> list[Event]:
        """Drop the session: the server does not know it any more, so what was sent stays unjudged."""
        self.session_id = None
        self.requests.forget_withdrawals()
        events: list[Event] = []
        unknown = OutcomeUnknown(
            "the session is gone; what was written may have been stored or not"
        )
        events += [failed(sent.content, unknown) for sent in self.window]
        self.window = Window()
        self._suspects = Suspects()
        return events

    def let_go(self) -> None:
        """Forget every message, at the end: the collector would not see their circles (message.py)."""
        self.deliveries.let_go()
        self.owed.let_go()
        self._resumed.clear()
        self.window = Window()

    def expire(self, now_ms: int) -> list[Event]:
        """Give up publishes and steps whose outcome the server may have forgotten: unanswered for that long."""
        unknown = OutcomeUnknown("no confirm came for so long that it cannot come any more")
        events: list[Event] = []
        for sent in self.window:
            if now_ms - sent.written_ms < limits.FRAME_OUTCOME_MS - 2 * self.heartbeat_ms:
                break  # the oldest come first
            if isinstance(sent.content, PublishGroup | StepFrame):
                self.window.answer(sent.sequence)
                events.append(failed(sent.content, unknown))
        return events

    def resend(self, given_up: Callable[[PublishGroup | StepFrame], bool]) -> list[bytes]:
        """Return the unanswered frames; publishes and steps whose callers have gone are never sent again.

        None while it is looked for the frame that ended a connection: `flush` returns them one by one.
        """
        frames = []
        for sent in self.window:
            content = sent.content
            if isinstance(content, PublishGroup | StepFrame) and given_up(content):
                self.window.answer(sent.sequence)
                if isinstance(content, PublishGroup):
                    self.outbox.answered(content)
            else:
                frames.append(sent.frame)
        return [] if self._suspects else frames

    # ---- what leaves ----

    def settlements_of(self, queue: str) -> Settlements:
        """Return where the messages of `queue` put their settlements."""
        found = self._settlements.get(queue)
        if found is None:
            found = self._settlements[queue] = Settlements(queue, self.owing, self._on_ripe)
        return found

    def request(
        self, op: str, fields: Mapping[str, object], waiter: Any, columns: bytes = b""
    ) -> int:
        """Add a request, to be written by the next flush, and return its number; BadValue, TooLarge."""
        return self.requests.add(op, fields, waiter, columns)

    def flush(self, now_ms: int) -> list[bytes]:
        """Return the frames that may be written now, in order."""
        frames: list[bytes] = []
        if not self.is_open or self._suspects:
            self.outbox.close_older(now_ms)
            if self.is_open:
                self._write_suspect(frames)
            if not self.is_open or self._suspects:
                return frames
        # Settlements first: a cancel gives back what has not begun, so it must not overtake an ack.
        if self.owing or self.owed.single:
            self.owed.write(frames, self.window, self.max_frame_bytes, now_ms)
        if self.requests.unwritten:
            frames += self.requests.write()
        if self.steps:
            self._flush_steps(frames, now_ms)
        if self.outbox.groups:
            self._flush_publishes(frames, now_ms)
        return frames

    def _write_suspect(self, frames: list[bytes]) -> None:
        sequence = self._suspects.next(self.window.get)
        sent = None if sequence is None else self.window.get(sequence)
        if sent is not None:
            frames.append(sent.frame)

    def has_work(self) -> bool:
        """Return whether an answer that arrived lets something more be written."""
        if self.outbox.groups or self._suspects or self.owed.single or self.steps:
            return True
        if self.requests.unwritten:
            return True
        return bool(self.owing) and self.owed.is_any()

    def _write(self, frames: list[bytes], content: Content, frame: bytes, now_ms: int) -> None:
        self.window.add(frame, content, now_ms)
        frames.append(frame)

    def _flush_steps(self, frames: list[bytes], now_ms: int) -> None:
        window = self.window
        for step in list(self.steps):
            if step.until_ms > now_ms:
                continue
            if not window.has_room(step.size):
                break
            del self.steps[step]
            frame = step.pack(window.next_sequence, window.answered_below)
            self._write(frames, step, frame, now_ms)

    def _flush_publishes(self, frames: list[bytes], now_ms: int) -> None:
        outbox, window = self.outbox, self.window
        while (group := outbox.next(now_ms)) is not None and window.has_room(
            group.account() + limits.MAX_HEADER_BYTES
        ):
            outbox.take(group)
            group.drop_withdrawn()
            if group.count:
                group.sequence = window.next_sequence
                group.order = group.order or group.sequence
                frame = group.pack(window.next_sequence, window.answered_below)
                self._write(frames, group, frame, now_ms)
            else:
                outbox.answered(group)
        if outbox.groups:
            outbox.close_older(now_ms)

    def retry_returned(self, now_ms: int) -> list[bytes]:
        """Return frames for the settlements that were refused for now, each under a new sequence."""
        frames: list[bytes] = []
        if not self._suspects:
            write_singly(self.owed.returned, frames, self.window, now_ms)
        return frames

    # ---- what arrives ----

    def receive(self, data: bytes) -> list[Event]:
        """Take received bytes and return what happened, in order.

        Raises:
            ProtocolError, LoginRefused, ...: the connection cannot be used again; the caller closes it.
        """
        events: list[Event] = []
        for frame in self._reader.feed(data):
            try:  # a frame of a newer server is passed over
                event = self._handlers.get(frame.header["op"], _pass_over)(frame)
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
        self.max_frame_bytes = self.requests.max_frame_bytes = header["max_frame_bytes"]
        self.max_message_bytes = header["max_message_bytes"]
        self.outbox.fit(self.max_frame_bytes)
        self.accept = accept_of(header)
        self.owed.tells_waits = "begins" in header
        self.is_open = True
        runs = wire.unpack_runs(frame.columns)
        lost = named_by(runs[: header.get("lost", 0)], self._resumed)
        cancelled = named_by(runs[: header.get("cancelled", 0)], self._resumed)
        self._resumed = []
        return Welcomed(lost, cancelled)

    def _confirm(self, frame: wire.Frame) -> Event | list[Event] | None:
        header = frame.header
        if "sequence" not in header:
            return None
        if "through" in header:
            return self._confirm_many(header["sequence"], header["through"])
        sent = self.window.answer(header["sequence"])
        if sent is None:
            return None
        content = sent.content
        results = header["results"]
        if type(content) is PublishGroup:
            result = results[0]
            told = result["origin"], result["first"], result["durability"]
            known = wire.unpack_runs(frame.columns) if "known" in result else ()
            return Published(content, *told, known)
        runs, events, at = wire.unpack_runs(frame.columns), [], 0
        if not isinstance(content, list):
            return self._done(content, results, runs)
        for part, result in zip(content, results, strict=True):
            count = result.get("lost", 0)
            lost = named_by(runs[at : at + count], part.messages) if count else ()
            at += count
            self._forget_ended(part)
            if lost or part.waiters:
                events.append(Settled(part, lost))
        return events  # type: ignore[return-value]

    def _confirm_many(self, first: int, last: int) -> list[Event]:
        """All frames from one to another are answered: settlements that lost nothing."""
        events: list[Event] = []
        for content in self.window.answer_all(first, last):
            if type(content) is not list:
                raise TypeError(f"{content!r} settles nothing, and needs an answer of its own")
            for part in content:
                self._forget_ended(part)
                if part.waiters:
                    events.append(Settled(part, ()))
        return events

    def _done(
        self,
        step: StepFrame | PublishGroup,
        results: Sequence[Mapping[str, Any]],
        runs: Sequence[Run],
    ) -> Event:
        """Return what happened: a step was done, or a group routed."""
        if not isinstance(step, StepFrame):
            assert isinstance(step, RouteGroup)
            return RouteDone(step, routed_of(results[0], runs, step.count))
        step.end()
        for part in step:
            self._forget_ended(part)
        if not runs:
            return StepDone(step, results, ())
        at = sum(result["lost"] for result in results[: len(step.acks)])
        return StepDone(step, results, named_by(runs[:at], step.messages()), runs[at:])

    def _forget_ended(self, part: SettlePart) -> None:
        """Forget the deliveries of which nothing is left behind a part that has its answer."""
        for token, *_ in part.runs:
            ended = self.deliveries.get(token)
            if ended is not None and ended.open <= 0:
                del self.deliveries[token]
                ended.messages.clear()  # as `Deliveries.forget`

    def _deliver(self, frame: wire.Frame) -> Event | None:
        header = frame.header
        consumer = header.get("consumer")
        is_begun, is_known = header.get("begun", False), consumer in self.consumers
        if consumer is not None and not (is_known or is_begun):
            return None  # cancelled meanwhile: the server has taken these back
        request = self.requests.answer(header["request"]) if consumer is None else None
        if consumer is None and request is None:
            return None  # withdrawn: the server takes these back
        delivery = unpack_delivery(
            frame, self.settlements_of(header["queue"]), self._shell, self.make
        )
        if delivery.open:
            self.deliveries.keep(delivery)
        if consumer is not None:
            delivery.handed = is_begun
            if not is_known:
                delivery.give_back()
            return Delivered(consumer, delivery) if is_known else None
        assert request is not None
        return Answered(request.waiter, delivery, None)

    def _reply(self, frame: wire.Frame) -> Event | None:
        return self._answer(frame.header["request"], frame.header["value"])

    def _messages(self, frame: wire.Frame) -> Event | None:
        return self._answer(frame.header["request"], unpack_peek(frame))

    def _log(self, frame: wire.Frame) -> Event | None:
        return self._answer(frame.header["request"], unpack_page(frame))

    def _pong(self, frame: wire.Frame) -> Event | None:
        number = frame.header.get("request")
        return None if number is None else self._answer(number, None)

    def _goodbye(self, frame: wire.Frame) -> Event:
        return Leaving(str(frame.header.get("text", "")))

    def _answer(
        self, number: int, value: object, error: MinibrokerError | None = None
    ) -> Event | None:
        request = self.requests.answer(number)
        if request is None or request.waiter is None:
            return None
        return Answered(request.waiter, value, error)

    def _error(self, frame: wire.Frame) -> Event | None:
        header = frame.header
        error = error_from_wire(header["code"], header["text"], header.get("retry_ms"))
        error.retryable = header.get("retryable", error.retryable)
        if isinstance(error, NotLeading):
            error.leader = str(header.get("leader", ""))
        if "sequence" in header:
            return self._refused(self.window.answer(header["sequence"]), error)
        if "request" in header:
            return self._answer(header["request"], None, error)
        if isinstance(error, ProtocolError):
            self._blame(error)
        raise error

    def _blame(self, error: ProtocolError) -> None:
        """The server ends the connection for something it was sent; find out what, and do not send it again."""
        if not self.is_open:
            if self.session_id is not None:
                raise LoginRefused(f"the session cannot be resumed: {error}") from error
            return
        sequences = [sent.sequence for sent in self.window]
        if sequences:
            alone = not self.requests.is_written()
            guilty = self._suspects.accuse(sequences, only_these=alone)
            sent = None if guilty is None else self.window.answer(guilty)
            if sent is not None:
                self._given_up.append(given_up(sent.content, error))
        else:
            self._given_up += self.requests.blame(error)

    def _later(self, sent: Sent[Content], group: PublishGroup) -> list[PublishGroup]:
        """Return the groups of the same queue that are under way behind one."""
        return [
            other.content
            for other in self.window
            if isinstance(other.content, PublishGroup)
            and other.sequence > sent.sequence
            and other.content.where[0] == group.where[0]
        ]

    def _refused(self, sent: Sent[Content] | None, error: MinibrokerError) -> Event | None:
        if sent is None:
            return None
        content = sent.content
        if isinstance(content, PublishGroup):
            return PublishFailed(
                content, error, self._later(sent, content) if error.retryable else ()
            )
        if isinstance(content, StepFrame):
            return failed(content, error)
        if error.retryable:
            self.owed.returned += [part for part in content if part.op != "begin"]
        elif len(content) > 1 and not isinstance(error, OutcomeUnknown | ProtocolError):
            # Parts that only shared a frame do not share its refusal: each is sent once more, alone.
            self.owed.single += [part for part in content if part.op != "begin"]
            return None
        return SettleRefused(content, error)


def _pass_over(frame: wire.Frame) -> None:
    return None
