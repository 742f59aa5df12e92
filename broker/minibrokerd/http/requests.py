"""One request of the API: what it asks, who asks, and how it is answered or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minibroker.aio.broker import Broker
from minibroker.contract import errors
from minibroker.contract.confirms import MessageId
from minibrokerd.access.quotas import Quota
from minibrokerd.core.model.queues import Queue
from minibrokerd.http.gate import Caller
from minibrokerd.http.subject import Subject
from minibrokerd.monitoring.view import Phase
from minibrokerd.process.logs import events

Wanted = TypeVar("Wanted")
encode: Final = msgspec.json.Encoder().encode
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
MOST_PATTERN_CHARS: Final = 256
MOST_DIGITS: Final = 20  # `int` refuses thousands of them
# What the errors of a client mean as a status; every other one is 400.
STATUS: Final[dict[type[errors.MinibrokerError], int]] = {
    errors.UnknownQueue: 404,
    errors.UnknownMessage: 404,
    errors.UnknownSchedule: 404,
    errors.UnknownExchange: 404,
    errors.QueueInUse: 409,
    errors.IdConflict: 409,
    errors.NotWaiting: 409,
    errors.TooLarge: 413,
    errors.Busy: 503,
    errors.DiskFull: 503,
    errors.Timeout: 504,
    errors.ConnectionLost: 503,
}


class Failure(Exception):
    """The request is refused: a status, a code, and what to do."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code

    def answer(self) -> Response:
        """Return the answer that says so."""
        return JSONResponse({"code": self.code, "text": str(self)}, self.status)


class Ask:
    """A request that has passed the gate."""

    def __init__(self, request: Request, subject: Subject, caller: Caller) -> None:
        self.request = request
        self.subject = subject
        self.caller = caller
        self.body_bytes = 0  # after `body`

    @property
    def client(self) -> Broker:
        """The client inside the broker that does what is asked, under the name of whoever asks."""
        clients = self.subject.clients
        if self.subject.phase is not Phase.READY or clients is None:
            raise Failure(503, "not_ready", self.subject.not_ready)
        broker: Broker = clients.of(f"http {self.caller.name}")
        return broker

    @property
    def queue_name(self) -> str:
        """The queue that the path names."""
        return str(self.request.path_params["queue"])

    def queue(self) -> Queue:
        """Return that queue; 404 if there is none."""
        return self.find(self.queue_name)

    def find(self, name: str) -> Queue:
        """Return the queue of a name; 404 if there is none."""
        if not self.subject.is_open:
            raise Failure(503, "not_ready", self.subject.not_ready)
        queue = self.subject.store.queues.get(name)
        if queue is None:
            raise Failure(404, "unknown_queue", f"there is no queue {name!r:.200}")
        return queue

    def id(self) -> MessageId:
        """Return the message id that the path names."""
        return parse_id(str(self.request.path_params["id"]))

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter of the query."""
        return self.request.query_params.get(name, default)

    def pattern(self, name: str) -> str:
        """Return a part or a pattern of names of the query; to compile a long one would stop the loop."""
        return checked_pattern(name, self.text(name))

    def number(self, name: str, default: int, high: int) -> int:
        """Return a whole number of the query, from 0 to `high`."""
        text = self.text(name)
        if not text:
            return default
        number = whole(text)
        if number is None or number > high:
            raise Failure(
                400, "bad_value", f"{name} is {text!r:.100}; it must be an integer from 0 to {high}"
            )
        return number

    def cursor(self) -> bytes:
        """Return where a list goes on: the `next` of the one before."""
        try:
            return bytes.fromhex(self.text("after"))
        except ValueError as error:
            raise Failure(400, "bad_value", "after is not the `next` of a list") from error

    async def body(self, kind: type[Wanted]) -> Wanted:
        """Return what the request carries, as JSON of this kind; an empty one is as `{}`."""
        data = bytearray()
        async for chunk in self.request.stream():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise Failure(413, "too_large", f"a request has at most {MAX_BODY_BYTES} bytes")
        self.body_bytes = len(data)
        try:
            return msgspec.json.decode(bytes(data) or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Failure(400, "bad_value", f"the body does not fit: {error}") from error

    def make(self, queue: str) -> None:
        """Count a queue that is not there yet in the limits of the token that this is asked with; 400: no more."""
        quota = self._quota()
        if quota is None or queue in self.subject.store.queues:
            return
        if text := quota.may_make():
            raise Failure(400, "limit_reached", text)

    def spend(self, queue: str, size_bytes: int) -> None:
        """Likewise a message that goes to a queue, which it may make; 503: not now."""
        self.make(queue)
        quota = self._quota()
        if quota is None:
            return
        text, _ = quota.may_publish(1, size_bytes, self.subject.loop.time())
        if text:
            raise Failure(503, "busy", f"{text}; nothing was stored")

    def _quota(self) -> Quota | None:
        if self.caller.grant is None:
            return None
        door = self.subject.connections.door
        return door.quotas.of(self.caller.grant, self.subject.loop.time())

    def changed(self, action: str, **fields: Any) -> None:
        """Have an event say what was done, and by whom."""
        _, peer = address_of(self.request)
        events.info("http_change", action=action, who=self.caller.name, peer=peer, **fields)


def checked_pattern(name: str, text: str) -> str:
    """Return a pattern of names; 400 if it is longer than any that has a use."""
    if len(text) > MOST_PATTERN_CHARS:
        raise Failure(400, "bad_value", f"{name} has more than {MOST_PATTERN_CHARS} characters")
    return text


@contextmanager
def fitting() -> Iterator[None]:
    """Answer 400 where what the client is given is of a kind that no message may have."""
    try:
        yield
    except TypeError as error:
        raise Failure(400, "bad_value", str(error)) from error


def whole(text: str) -> int | None:
    """Return the whole number that a text is, of up to 20 digits; None: it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def address_of(request: Request) -> tuple[str, str]:
    """Return from where somebody asks: the address alone, and with its port."""
    client = request.client
    return (client.host, f"{client.host}:{client.port}") if client else ("", "")


def parse_id(text: str) -> MessageId:
    """Return the message id that a text is; 400 if it is none."""
    try:
        return MessageId.parse(text)
    except ValueError as error:
        raise Failure(400, "bad_value", str(error)) from error


def failure_of(error: errors.MinibrokerError) -> Failure:
    """Return what an error of a client is as an answer."""
    return Failure(STATUS.get(type(error), 400), error.code, str(error))


def as_json(value: Any, status: int = 200) -> Response:
    """Return an answer with this value."""
    return Response(encode(value), status, media_type="application/json")


Answers = Callable[[Ask], Any]
