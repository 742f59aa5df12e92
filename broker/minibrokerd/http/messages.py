"""The API of messages: lists, one with its history and holder, and what is done with them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BodyError
from minibroker.session.peek import Peeked
from minibroker.session.requeueing import SAME, requeued
from minibrokerd.core.model.messages import Message, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.wheel import TICK_MS
from minibrokerd.http.queues import source_of
from minibrokerd.http.requests import Ask, Failure, fitting, parse_id
from minibrokerd.http.seeking import delivery_of, seek
from minibrokerd.http.shapes import (
    Attempt,
    Cancel,
    Done,
    FoundMessage,
    Holder,
    MessageList,
    MessageView,
    NewJob,
    NewMessage,
    Requeue,
    Retime,
    Select,
    Stored,
)
from minibrokerd.text.values import text_of

PREVIEW_CHARS: Final = 2_000  # of a body in a list
WHOLE_CHARS: Final = 256 * 1024  # of one that was asked for alone
MOST_MESSAGES: Final = 500
LOOKS: Final = 3  # for one that moves between two looks
ENCODINGS: Final = ("bytes", "msgpack")
TERMS: Final = ("max_attempts", "lease_ms", "priority", "ttl_ms", "expires_unix_ms")


async def list_messages(ask: Ask) -> MessageList:
    """Return a page of the messages of a queue."""
    state = ask.text("state").upper()
    page = await ask.client.queue(ask.queue_name).peek(
        ask.number("count", 50, MOST_MESSAGES) or 1,
        state=state,
        after=ask.cursor(),
        order=ask.text("order"),
    )
    return MessageList([view_of(message, PREVIEW_CHARS) for message in page], page.next.hex())


async def show_message(ask: Ask) -> MessageView:
    """Return all that is known of one message."""
    return await _shown(ask, ask.queue(), ask.id())


async def find_message(ask: Ask) -> FoundMessage:
    """Return one message, whichever queue it is in."""
    id = ask.id()
    for _ in range(LOOKS):
        queue = await seek(ask.subject.store, id.origin, id.sequence)
        if queue is None:
            break
        with suppress(Failure):  # it has moved meanwhile
            return FoundMessage(queue.name, await _shown(ask, queue, id))
    raise Failure(404, "unknown_message", f"no message {id} waits or is held in any queue")


async def _shown(ask: Ask, queue: Queue, id: MessageId) -> MessageView:
    message = await _find(ask, queue.name, id)
    view = view_of(message, WHOLE_CHARS)
    view.body_base64 = base64.b64encode(message.raw).decode()
    view.holder = _holder(ask, queue, id)
    return view


async def publish_message(ask: Ask) -> Stored:
    """Store one message."""
    new = await ask.body(NewMessage)
    body = body_of(new)
    if body is msgspec.UNSET:
        raise Failure(400, "bad_value", "a message needs one of json, text and base64")
    queue = ask.client.queue(ask.queue_name)
    ask.spend(ask.queue_name, ask.body_bytes)
    with fitting():
        confirm = await queue.publish(
            body,
            headers=new.headers or None,
            key=new.key or None,
            delay=new.delay_ms / 1_000,
            unique_key=new.unique_key or None,
            unique=new.unique,
            dedupe_id=new.dedupe_id or None,
            dedupe_window=new.dedupe_window_ms / 1_000 or None,
            **terms_of(new),
        )
    ask.changed("publish", queue=ask.queue_name, id=str(confirm.id))
    replaced = "" if confirm.replaced is None else str(confirm.replaced)
    return Stored(str(confirm.id), confirm.durability, confirm.duplicate, replaced)


def terms_of(new: NewJob) -> dict[str, Any]:
    """Return what a message asks for instead of the settings of its queue, as a client takes it."""
    return {
        "max_attempts": new.max_attempts or None,
        "lease": new.lease_ms / 1_000 or None,
        "priority": new.priority,
        "ttl": new.ttl_ms / 1_000 or None,
    }


async def requeue_message(ask: Ask) -> Stored:
    """Publish a message again, as it is or changed; the original stays where it is."""
    wish, id = await ask.body(Requeue), ask.id()
    original = await _find(ask, ask.queue_name, id)
    target = wish.queue or source_of(ask.queue_name)
    body = body_of(wish)
    is_new = body is not msgspec.UNSET
    try:
        again = requeued(
            ask.queue_name, id, [original], body if is_new else SAME, wish.headers, wish.key
        )
    except BodyError as error:
        raise Failure(
            400, "bad_value", f"what is kept of the original cannot be read: {error}"
        ) from error
    queue = ask.client.queue(target)
    ask.spend(target, ask.body_bytes if is_new else len(original.raw))
    with fitting():
        confirm = await queue.publish(**again._asdict())
    ask.changed("requeue", queue=target, id=str(confirm.id), original=str(id))
    return Stored(str(confirm.id), confirm.durability)


async def retime_message(ask: Ask) -> Done:
    """Let a message that waits be ready at another time."""
    wish, id = await ask.body(Retime), ask.id()
    if wish.delay_ms and wish.at_unix_ms:
        raise Failure(400, "bad_value", "a message is ready after a delay, or at a time")
    queue = ask.client.queue(ask.queue_name)
    if wish.at_unix_ms:
        await queue.reschedule(id, at=_time(wish.at_unix_ms))
    else:
        await queue.reschedule(id, delay=wish.delay_ms / 1_000)
    ask.changed("retime", queue=ask.queue_name, id=str(id))
    return Done(1)


def _time(unix_ms: int) -> datetime:
    try:
        return datetime.fromtimestamp(unix_ms / 1_000, UTC)
    except (ValueError, OverflowError) as error:
        raise Failure(400, "bad_value", f"at_unix_ms: {error}") from error


async def delete_message(ask: Ask) -> Done:
    """End one message that waits."""
    id = ask.id()
    ended = await ask.client.queue(ask.queue_name).purge([id])
    if not ended:
        raise _missing(ask.queue_name, id)
    ask.changed("delete_message", queue=ask.queue_name, id=str(id))
    return Done(ended)


async def purge(ask: Ask) -> Done:
    """End messages of a queue: these, or all."""
    wish = await ask.body(Select)
    if wish.group or wish.count:
        raise Failure(400, "bad_value", "a purge is of ids, or of all")
    ids = None if wish.ids is None else _ids(wish.ids)
    ended = await ask.client.queue(ask.queue_name).purge(ids)
    ask.changed("purge", queue=ask.queue_name, messages=ended)
    return Done(ended)


async def cancel(ask: Ask) -> Done:
    """Cancel messages, those that workers have, too."""
    wish = await ask.body(Cancel)
    ids = None if wish.ids is None else _ids(wish.ids)
    with fitting():
        ended = await ask.client.queue(ask.queue_name).cancel(
            ids, key=wish.key, state=wish.state, client=wish.client
        )
    ask.changed("cancel", queue=ask.queue_name, messages=ended)
    return Done(ended)


def _ids(texts: Sequence[str]) -> list[MessageId]:
    if len(texts) > limits.MAX_RUNS_PER_FRAME:
        raise Failure(400, "bad_value", f"at most {limits.MAX_RUNS_PER_FRAME} ids at a time")
    return [parse_id(text) for text in texts]


async def _find(ask: Ask, queue: str, id: MessageId) -> Peeked:
    found = await ask.client.queue(queue).peek(1, ids=[id])
    if not found:
        raise _missing(queue, id)
    return found[0]


def _missing(queue: str, id: MessageId) -> Failure:
    return Failure(
        404, "unknown_message", f"{queue} has no message {id} that can be shown or changed"
    )


def body_of(new: NewJob | Requeue) -> Any:
    """Return the body that a request gives, in one of three ways; UNSET if in none, 400 if in several."""
    given = [
        value for value in (new.json, new.text, new.base64) if value not in (None, msgspec.UNSET)
    ]
    given += [None] if new.json is None else []
    if len(given) > 1:
        raise Failure(400, "bad_value", "a message has one of json, text and base64")
    if new.base64 is None:
        return given[0] if given else msgspec.UNSET
    try:
        return base64.b64decode(new.base64, validate=True)
    except ValueError as error:
        raise Failure(400, "bad_value", f"base64: {error}") from error


def view_of(message: Peeked, most_chars: int) -> MessageView:
    """Return what is shown of a message; nothing in it is taken for more than text."""
    info = message.info
    try:
        text = text_of(message.body)
    except BodyError:
        text = text_of(message.raw)
    try:
        headers = _plain(message.headers)
    except BodyError:
        headers = {}
    return MessageView(
        id=str(message.id),
        state=info["state"],
        key=info.get("key", ""),
        encoding=ENCODINGS[info.get("encoding", 0)],
        published_unix_ms=info["published_unix_ms"],
        body_bytes=len(message.raw),
        body_text=text[:most_chars],
        body_cut=len(text) > most_chars,
        headers=headers,
        attempt=message.attempt,
        attempts=message.attempts,
        redriven=info.get("redriven", 0),
        history=[_attempt(entry) for entry in message.history],
        history_dropped=info.get("history_dropped", 0),
        terms={name: info[name] for name in TERMS if name in info},
        damaged=bool(info.get("damaged")),
        ready_unix_ms=info.get("ready_unix_ms", 0),
        after=info.get("after", ""),
    )


def _plain(headers: dict[str, Any]) -> dict[str, Any]:
    """Return headers as JSON has them: what it does not know is text."""
    return {
        text_of(name): value if isinstance(value, str | int | bool | None) else text_of(value)
        for name, value in headers.items()
    }


def _attempt(entry: dict[str, Any]) -> Attempt:
    return Attempt(**{name: entry[name] for name in Attempt.__struct_fields__})


def _holder(ask: Ask, queue: Queue, id: MessageId) -> Holder | None:
    delivery = delivery_of(queue, id.origin, id.sequence)
    if delivery is None:
        return None
    single = delivery.singles.get(queue.key_of(id.origin, id.sequence))
    session = ask.subject.store.sessions.get(delivery.session)
    begun = single is not None and single.state is State.BEGUN
    return Holder(
        delivery.session,
        session.client if session else "",
        peer_of(ask, delivery.session),
        "BEGUN" if begun else "HELD",
        single.started_unix_ms if single is not None and begun else 0,
        (single.lease_ms if single is not None else 0) or delivery.lease_ms,
        _lease_until(ask, single) if single is not None and begun else 0,
    )


def _lease_until(ask: Ask, message: Message) -> int:
    """Return when a lease ends, in unix ms; 0: none runs."""
    if message.timer is None or not message.timer.armed:
        return 0
    clock = ask.subject.engine.clock
    return clock.unix_ms() + message.timer.tick * TICK_MS - clock.now_ms()


def peer_of(ask: Ask, session: int) -> str:
    """Return the address of the other end of a session's main connection; empty: it has none."""
    known = ask.subject.store.sessions.get(session)
    if known is None or known.connection is None:
        return ""
    return str(ask.subject.engine.describe(known.connection).get("peer", ""))
