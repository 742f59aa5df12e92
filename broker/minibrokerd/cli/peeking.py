"""`minibroker peek`: messages as they lie in a queue; nothing is changed."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

import minibroker
from minibroker.contract import limits, wire
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import BodyError
from minibroker.session.peek import Peeked, Peeks
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.printing import Listing, fail, note, print_json, print_table, say, say_fields
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text
from minibrokerd.text.values import is_text, text_of

Shown = Peeked | minibroker.Message[Any] | minibroker.LogMessage[Any]
DUE_HEADS: Final = ("id", "due", "attempts", "age", "key", "body")
HEADS: Final = ("id", "state", "attempts", "age", "key", "body")


@click.command()
@queue_argument()
@option("--count", type=click.IntRange(min=1), default=20, help="Most messages to show.")
@option(
    "--after",
    metavar="CURSOR",
    callback=lambda _, __, value: cursor_of(value),
    help="Go on behind a list that was shown before, which names its CURSOR.",
)
@option(
    "--skip",
    type=click.IntRange(0, limits.MAX_PEEK_SKIP),
    default=0,
    help="Messages to pass over first.",
)
@option(
    "--state",
    type=click.Choice(["ready", "delayed", "held", "begun"]),
    help="Only messages in this state.",
)
@option("--due", is_flag=True, help="The delayed ones, by when they are due.")
@client_options
def peek(
    queue: str,
    count: int,
    after: bytes,
    skip: int,
    state: str | None,
    due: bool,
    url: str,
    as_json: bool,
) -> None:
    """Show messages of QUEUE in every state; nothing is changed.

    First those that wait, ready and delayed ones, by their ids; then those that workers have.
    """
    if due and state not in (None, "delayed"):
        raise click.UsageError("--due shows delayed messages: leave --state out.")

    async def work(broker: minibroker.Broker) -> None:
        order = "due" if due else ""
        only = (state or "").upper()
        found = pages(broker, queue, count, after=after, skip=skip, state=only, order=order)
        heads, row = (DUE_HEADS, _due_row) if due else (HEADS, _row)
        empty = f"{queue} has no delayed message" if due else f"{queue} is empty"
        await print_messages(found, as_json, row, heads, empty, ("key", "body"))

    talk(url, work)


def cursor_of(text: str | None) -> bytes:
    """Return the cursor that a list named."""
    try:
        return bytes.fromhex(text or "")
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no cursor", param_hint="--after") from error


async def pages(
    broker: minibroker.Broker,
    queue: str,
    count: int,
    *,
    after: bytes = b"",
    skip: int = 0,
    state: str = "",
    order: str = "",
) -> AsyncIterator[Peeks]:
    """Yield up to `count` messages, page by page: one answer has at most about 1 MiB of them."""
    asked = broker.queue(queue)
    while count > 0:
        page = await asked.peek(
            min(count, limits.MAX_MESSAGES_PER_FRAME), skip, after=after, state=state, order=order
        )
        yield page
        count -= len(page)
        after, skip = page.next, 0
        if not after:
            return


async def print_messages(
    found: AsyncIterator[Peeks],
    as_json: bool,
    row_of: Callable[[Peeked], Sequence[object]],
    heads: Sequence[str],
    empty: str,
    elastic: Sequence[str],
) -> None:
    """Print pages of messages as they come, and where to go on behind the last one."""
    listing, cursor = Listing(heads, empty, elastic), b""
    async for page in found:
        cursor = page.next
        if as_json:
            for message in page:
                print_json(as_map(message))
        else:
            listing.add(map(row_of, page))
    if not as_json:
        listing.end()
    if cursor:
        note(f"there are more: --after {cursor.hex()}")


async def show_messages(
    broker: minibroker.Broker, queue: str, ids: Sequence[MessageId], as_json: bool
) -> None:
    """Print all that is known of these messages; the command fails if one is not there."""
    found = {message.id: message for message in await find(broker, queue, ids)}
    there = [found[each] for each in dict.fromkeys(ids) if each in found]
    for number, message in enumerate(there):
        if as_json:
            print_json(as_map(message))
        else:
            if number:
                say()
            _print_message(message)
    missing = [str(each) for each in ids if each not in found]
    if missing:
        text = f"{queue} has no message {', '.join(missing)}; `minibroker peek {queue}` shows those it has"
        fail(text, exits.REFUSED)


async def find(broker: minibroker.Broker, queue: str, ids: Sequence[MessageId]) -> list[Peeked]:
    """Return those of these messages that the queue has."""
    found: list[Peeked] = []
    left = list(dict.fromkeys(ids))
    while left:
        asked, left = left[: limits.MAX_MESSAGES_PER_FRAME], left[limits.MAX_MESSAGES_PER_FRAME :]
        after = b""
        while True:
            page = await broker.queue(queue).peek(len(asked), ids=asked, after=after)
            found += page
            after = page.next
            if not after:
                break
    return found


def body_of(message: Shown) -> Any:
    """Return the body, or its bytes if they are not what their encoding says."""
    try:
        return message.body
    except BodyError:
        return message.raw


def headers_of(message: Shown) -> Any:
    """Return the headers, or None if a client published what cannot be read as such."""
    try:
        return message.headers
    except BodyError:
        return None


def body_fields(message: Shown) -> dict[str, Any]:
    """Return the body for programs: as a value, and where that is no text, its bytes as base64 beside it."""
    body = body_of(message)
    fields = {"body": body}
    if isinstance(body, bytes) and not is_text(body):
        fields["body_base64"] = base64.b64encode(body).decode()
    return fields


def as_map(message: Peeked) -> dict[str, Any]:
    """Return all that is known of a message, for programs."""
    encoding = message.info.get("encoding", wire.ENCODING_BYTES)
    last = message.history[-1] if message.history else {}
    return {
        "id": str(message.id),
        "state": message.info["state"].lower(),
        "dead": bool(message.info.get("dead")),
        "damaged": bool(message.info.get("damaged")),
        "key": message.info["key"],
        "published_unix_ms": message.info["published_unix_ms"],
        "ready_unix_ms": message.info.get("ready_unix_ms"),
        "after": message.info.get("after"),
        "attempt": message.attempt or None,
        "attempts": message.attempts,
        "max_attempts": message.info.get("max_attempts"),
        "lease_ms": message.info.get("lease_ms"),
        "priority": message.info.get("priority", 0),
        "unique_key": message.info.get("unique_key"),
        "expires_unix_ms": message.info.get("expires_unix_ms"),
        "redriven": message.info.get("redriven", 0),
        "cause": last.get("cause"),
        "error_class": last.get("error_class"),
        "error_text": last.get("error_text"),
        "history": message.history,
        "headers": headers_of(message),
        "encoding": "bytes" if encoding == wire.ENCODING_BYTES else "msgpack",
        **body_fields(message),
    }


def age_of(unix_ms: int) -> str:
    """Return how long ago that was, in the two largest units."""
    left = max(int(time.time() - unix_ms / 1_000), 0)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])


def state_of(message: Peeked) -> str:
    """Return the state for people: also whether the bytes are damaged, or room in the DLQ is waited for."""
    words = [message.info["state"].lower()]
    words += [word for word in ("dead", "damaged") if message.info.get(word)]
    return ", ".join(words)


def error_of(attempt: dict[str, Any]) -> str:
    """Return class and text of the error of an attempt."""
    return ": ".join(filter(None, (attempt.get("error_class"), attempt.get("error_text"))))


def _row(message: Peeked) -> Sequence[object]:
    return (
        message.id,
        state_of(message),
        message.attempt or sum(message.attempts.values()),
        age_of(message.info["published_unix_ms"]),
        message.info["key"],
        text_of(body_of(message)),
    )


def _due_row(message: Peeked) -> Sequence[object]:
    id, _, *rest = _row(message)
    due = message.info.get("ready_unix_ms")
    return id, _when(due) if due else "after others", *rest


def _print_message(message: Peeked) -> None:
    info = as_map(message)
    attempts = ", ".join(f"{count} {cause}" for cause, count in info["attempts"].items() if count)
    running = f"number {message.attempt} runs" if message.attempt else ""
    rows = [
        ("id", info["id"]),
        ("state", state_of(message)),
        ("key", info["key"]),
        ("published", _when(info["published_unix_ms"])),
        ("due", _when(info["ready_unix_ms"]) if info["ready_unix_ms"] and not info["dead"] else ""),
        ("waits for", info["after"] or ""),
        ("attempts", ", ".join(filter(None, (attempts, running))) or "none"),
        (
            "at most",
            f"{count_text(info['max_attempts'], 'attempt')}, its own"
            if info["max_attempts"]
            else "",
        ),
        ("lease", f"{duration_text(info['lease_ms'])}, its own" if info["lease_ms"] else ""),
        ("priority", info["priority"]),
        ("unique key", info["unique_key"]),
        ("ends", _when(info["expires_unix_ms"]) if info["expires_unix_ms"] else ""),
        ("redriven", count_text(info["redriven"], "time")),
        ("headers", text_of(info["headers"]) if info["headers"] else ""),
        # Bytes look as the value that they spell.
        ("encoding", "bytes" if info["encoding"] == "bytes" else ""),
        ("body", text_of(info["body"])),
    ]
    say_fields(rows)
    say()
    heads = ("started", "took", "client", "cause", "error")
    print_table(heads, map(_attempt, message.history), "no history", prose=True)
    if dropped := message.info.get("history_dropped"):
        say(f"(not kept: {count_text(dropped, 'attempt')} between the first and the last)")


def _attempt(entry: dict[str, Any]) -> Sequence[object]:
    took_ms = entry["ended_unix_ms"] - entry["started_unix_ms"]
    return (
        _when(entry["started_unix_ms"]) if entry["started_unix_ms"] else "never",
        duration_text(took_ms) if entry["started_unix_ms"] else "",
        entry["client"],
        entry["cause"],
        error_of(entry),
    )


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(" ", "milliseconds")[:-6] + " UTC"
