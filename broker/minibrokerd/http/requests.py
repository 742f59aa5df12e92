"""One request of the API: what it asks, who asks, and how it is answered or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minibroker.aio.broker import Broker
from minibroker.contract import errors
from minibroker.contract.confirms import MessageId
from minibrokerd.core.model.queues import Queue
from minibrokerd.http.gate import Caller
from minibrokerd.http.subject import Phase, Subject
from minibrokerd.process.logs import events

Wanted = TypeVar("Wanted")
encode: Final = msgspec.json.Encoder().encode
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
# What the errors of a client mean as a status; every other one is 400.
STATUS: Final[dict[type[errors.MinibrokerError], int]] = {
    errors.UnknownQueue: 404,
    errors.QueueInUse: 409,
    errors.IdConflict: 409,
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

    @property
    def client(self) -> Broker:
        """The client inside the broker that does what is asked, under the name of whoever asks."""
        clients = self.subject.clients
        if self.subject.phase is not Phase.READY or clients is None:
            raise Failure(503, "not_ready", f"the broker is {self.subject.phase.value}")
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
        if self.subject.phase is Phase.RECOVERING:
            raise Failure(503, "not_ready", "the broker is recovering")
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

    def number(self, name: str, default: int, high: int) -> int:
        """Return a whole number of the query, from 0 to `high`."""
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdecimal() and int(text) <= high):
            raise Failure(
                400, "bad_value", f"{name} is {text!r:.100}; it must be an integer from 0 to {high}"
            )
        return int(text)

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
        try:
            return msgspec.json.decode(bytes(data) or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Failure(400, "bad_value", f"the body does not fit: {error}") from error

    def changed(self, action: str, **fields: Any) -> None:
        """Have an event say what was done, and by whom."""
        _, peer = address_of(self.request)
        events.info("http_change", action=action, who=self.caller.name, peer=peer, **fields)


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
