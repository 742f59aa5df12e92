"""Readers of a retained log without a group: a request from an offset on, answered with whole frames of its files.

Where there is nothing yet it waits for some, as a receive does.
"""

from __future__ import annotations

from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.log_commands import FIRST, LAST, NEXT, OFFSET, STARTS, TIME
from minibroker.contract.wire import DELIVERY_RUN, pack_strings
from minibrokerd.core.model.columns import read_columns
from minibrokerd.core.model.inputs import Fetched, Frame
from minibrokerd.core.model.messages import LAZY, Block, Span, alike
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.retained import Fetch, Piece, Reader, RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer

READ_AGAIN_MS: Final = 1_000
MOST_READERS: Final = 10_000  # of one log, that wait


def log_named(store: Store, name: str) -> RetainedLog:
    """Return a retained log by its name.

    Raises:
        Refused: `unknown_queue`; `bad_value`, it is no log.
    """
    queue = store.queue(name)
    log = queue.group.retained
    if isinstance(log, RetainedLog):
        return log
    raise Refused(
        "bad_value",
        f"{name!r} is no retained log; one is made with the setting kind=log, before anything is published to it",
    )


def start_of(log: RetainedLog, part: Any) -> tuple[int, int]:
    """Return the offset that a request names, and the time (unix ms) where it names one instead; 0: it does not.

    Raises:
        Refused: `bad_value`.
    """
    if part.start not in STARTS:
        raise Refused("bad_value", f"start is {part.start!r:.40}, none of {', '.join(STARTS)}")
    if part.at and part.start not in (OFFSET, TIME):
        raise Refused("bad_value", f"{part.start} has no `at`; offset and time have")
    if part.start == OFFSET and part.at > limits.MAX_OFFSET:
        raise Refused("bad_value", f"no offset is above {limits.MAX_OFFSET}")
    if part.start == TIME:
        return 0, max(part.at, 1)
    next_offset = log.queue.next_sequence
    starts = {FIRST: 0, LAST: max(log.has.stop - 1, 0), NEXT: next_offset, OFFSET: part.at}
    return starts[part.start], 0


def log_read(store: Store, frame: Frame, part: Any) -> None:
    """Ask the files for what a log has from a place on."""
    log = log_named(store, part.queue)
    assert frame.request is not None, "it was checked"
    offset, since_unix_ms = start_of(log, part)
    asked = Fetch(log.queue.number, offset, since_unix_ms, max(part.most_bytes, 1))
    asked.connection, asked.request = frame.connection, frame.request
    theirs = store.retained.readers.get(asked.connection, {})
    if asked.request in theirs:
        raise Broken(f"a read needs a request number of its own; {asked.request} waits already")
    if len(log.readers) >= MOST_READERS:
        raise Refused("limit_reached", f"{MOST_READERS} readers wait for {part.queue!r} already")
    reader = Reader(log, asked)
    if part.wait_ms:
        reader.timer = store.set_timer(_wait_over, reader, store.now_ms + part.wait_ms)
    theirs[asked.request] = log.readers[asked.connection, asked.request] = reader
    store.retained.readers[asked.connection] = theirs
    reader.ask(store)


def wake_readers(store: Store, log: RetainedLog) -> None:
    """There is more: whoever waits for it asks again."""
    stop = log.has.stop
    for reader in log.readers.values():
        if not reader.is_asking and reader.asked.offset < stop:
            reader.ask(store)


def answer(store: Store, command: Fetched) -> None:
    """Answer a reader, or let him wait for more; one that has gone meanwhile is not known."""
    asked = command.asked
    reader = store.retained.readers.get(asked.connection, {}).get(asked.request)
    if reader is None or reader.asked is not asked:
        return
    reader.is_asking = False
    if command.error:
        store.retained.leave(store, reader)
        text = f"the log {reader.log.queue.name!r} cannot be read now: {command.error}; try again"
        header = {"op": "error", "request": asked.request, "code": "busy", "text": text}
        store.send(asked.connection, 0, header | {"retryable": True, "retry_ms": READ_AGAIN_MS})
        return
    if reader.timer is None or command.pieces:
        store.retained.leave(store, reader)
        send(store, reader.log.queue, command)
        return
    asked.offset, asked.since_unix_ms = max(command.next_offset, asked.offset), 0
    if not command.is_at_end or reader.log.has.stop > asked.offset:
        reader.ask(store)


def _wait_over(store: Store, timer: Timer, reader: Reader) -> None:
    store.retained.leave(store, reader)
    asked, has = reader.asked, reader.log.has
    at = max(asked.offset, has.first)
    send(store, reader.log.queue, Fetched(asked, (), at, at, has, is_at_end=True))


def send(store: Store, queue: Queue, command: Fetched) -> None:
    """Answer a request with what was read: whole frames, be it that the first one begins before the offset."""
    blocks: list[tuple[Block, int, int]] = []
    runs: list[bytes] = []
    keys: list[bytes] = []
    for piece in command.pieces:
        _add(queue, piece, blocks, runs, keys)
    columns = b"".join(runs)
    header: dict[str, Any] = {
        "op": "log",
        "request": command.asked.request,
        "count": sum(piece.count for piece in command.pieces),
        "runs": len(runs),
        "start": command.start,
        "next": command.next_offset,
        "first": command.has.first,
        "stop": command.has.stop,
    }
    if command.damaged:
        header["damaged"] = command.damaged
    if any(keys):
        header["keyed"] = True
        columns += pack_strings(keys)
    store.send(command.asked.connection, 0, header, columns, blocks)


def _add(
    queue: Queue,
    piece: Piece,
    blocks: list[tuple[Block, int, int]],
    runs: list[bytes],
    keys: list[bytes],
) -> None:
    """Add a piece to what is sent: its bodies as they are, and runs of messages that have the same of all else."""
    extent = piece.extent
    columns = read_columns(piece, extent.columns(), piece.count)
    stop = piece.first + piece.count
    block = Block(
        queue.number,
        piece.first,
        piece.count,
        extent,
        extent.sizes(piece.count),
        piece.encoding,
        columns.get("encoding"),
        LAZY,
        0,
        piece.unix_ms,
        0,
        0,
    )
    blocks.append((block, piece.first, stop))
    names = columns.get("key")
    spans = [Span(block, piece.first, stop, piece.key, 0)]
    if names is not None:
        ats = range(piece.count)
        spans = [Span(block, piece.first + at, piece.first + at + 1, names[at], 0) for at in ats]
    for span in spans:
        for one, next_one, encoding in alike(block, span):
            runs.append(
                DELIVERY_RUN.pack(queue.number, one, next_one - one, 0, 0, encoding, piece.unix_ms)
            )
            keys.append(span.key.encode())
