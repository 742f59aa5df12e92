"""`minibroker export`: the messages of a queue as lines, for `import`, for other programs, or to be kept."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibrokerd.cli.carrying import as_fields, line, logged_fields, packed
from minibrokerd.cli.log_reading import log_pages
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.peeking import find, pages
from minibrokerd.cli.printing import note, print_json, progress
from minibrokerd.cli.talking import talk
from minibrokerd.cli.whole_file import WholeFile
from minibrokerd.log.fileops import FileOps, sync_entries
from minibrokerd.text.counts import count_text

TAKEN_AT_ONCE: Final = 500
PRIVATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
FORMATS: Final[dict[str, Callable[[dict[str, Any]], bytes]]] = {"json": line, "msgpack": packed}


@click.command()
@queue_argument()
@option(
    "--out",
    type=WholeFile(dir_okay=False, path_type=Path),
    help="Write to this file instead of standard output; it has its name when it is whole, and only its owner "
    "may read it, unless it was there and others may.",
)
@option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    default="json",
    help="json: one object a line. msgpack: one map after another, bodies as their bytes.",
)
@option(
    "--state",
    type=click.Choice(["ready", "delayed", "held", "begun"]),
    help="Only messages in this state.",
)
@option(
    "--take",
    is_flag=True,
    help="Take the ready ones out of the queue: each is acked when it is written. Delayed ones stay.",
)
@option("--count", type=click.IntRange(min=1), help="Stop after so many.")
@client_options
def export(
    queue: str,
    out: Path | None,
    form: str,
    state: str | None,
    take: bool,
    count: int | None,
    url: str,
    as_json: bool,
) -> None:
    """Write the messages of QUEUE as lines that `minibroker import` takes.

    Nothing is changed, unless with --take. What comes or goes meanwhile may be in it or not; no message is in it
    twice. The dead-letter queue of a queue is one of its own: NAME.dlq. Of a retained log it is all that is kept.
    """
    if take and state not in (None, "ready"):
        raise click.UsageError("--take takes ready messages; leave --state out")
    counted: Counter[str] = Counter()

    async def work(broker: minibroker.Broker) -> None:
        most = count if count is not None else sys.maxsize
        try:
            with (
                _target(out, keeps=take) as stream,
                progress(f"exporting {queue}", None, prints=out is None) as advance,
            ):
                if take:
                    found = _taken(broker, queue, most, stream, FORMATS[form])
                elif not state and await _is_log(broker, queue):
                    found = _logged(broker, queue, most, stream, FORMATS[form])
                else:
                    found = _looked(
                        broker, queue, most, (state or "").upper(), stream, FORMATS[form]
                    )
                async for each in found:
                    counted[each] += 1
                    advance(1)
        except BaseException:
            if counted:  # else nothing was done, and the error says why
                _tell(queue, counted, take, as_json and out is not None)
            raise
        _tell(queue, counted, take, as_json and out is not None)

    talk(url, work)


async def _is_log(broker: minibroker.Broker, queue: str) -> bool:
    return "offsets" in (await broker.queue(queue).stats())["queues"].get(queue, {})


async def _looked(
    broker: minibroker.Broker,
    queue: str,
    most: int,
    state: str,
    stream: BinaryIO,
    form: Callable[[dict[str, Any]], bytes],
) -> AsyncIterator[str]:
    """Write what lies in the queue; yield the state of each message."""
    seen = _Seen()
    async for page in pages(broker, queue, most, state=state):
        for message in page:
            if message.info.get("damaged"):
                yield "damaged"
            elif seen.first_time(message.id):
                stream.write(form(as_fields(message)))
                there = message.info["state"].lower()
                yield "waiting for others" if "after" in message.info else there
        stream.flush()


async def _logged(
    broker: minibroker.Broker,
    log: str,
    most: int,
    stream: BinaryIO,
    form: Callable[[dict[str, Any]], bytes],
) -> AsyncIterator[str]:
    """Write what a retained log keeps; yield `retained` for each message."""
    async for page in log_pages(broker, log, "first"):
        for _ in range(page.damaged):
            yield "damaged"
        for message in page[:most]:
            stream.write(form(logged_fields(message)))
            yield "retained"
        stream.flush()
        most -= len(page)
        if most <= 0:
            return


async def _taken(
    broker: minibroker.Broker,
    queue: str,
    most: int,
    stream: BinaryIO,
    form: Callable[[dict[str, Any]], bytes],
) -> AsyncIterator[str]:
    """Write what is ready, and ack it when it is on the disk, or with whoever reads the pipe."""
    while most > 0:
        messages = await broker.queue(queue).receive(min(most, TAKEN_AT_ONCE))
        if not messages:
            return
        try:
            ids = [message.id for message in messages]
            found = {each.id: each for each in await find(broker, queue, ids)}
            for id in ids:
                stream.write(form(as_fields(found[id]) | {"state": "taken"}))
            _make_safe(stream)
        except BaseException:
            await asyncio.gather(*(message.release() for message in messages))
            raise
        await asyncio.gather(*(message.ack(confirmed=True) for message in messages))
        most -= len(messages)
        for _ in messages:
            yield "taken"


class _Seen:
    """The ids that were written, as runs: a message that is handed out while it is read is shown twice."""

    def __init__(self) -> None:
        self._runs: dict[int, list[list[int]]] = {}  # by origin: [first, stop] in their order

    def first_time(self, id: MessageId) -> bool:
        """Whether this one was not written yet; from now on it was."""
        runs = self._runs.setdefault(id.origin, [])
        at = bisect_right(runs, id.sequence, key=lambda run: run[0])
        before = runs[at - 1] if at else None
        if before is not None and id.sequence < before[1]:
            return False
        if before is not None and id.sequence == before[1]:
            before[1] += 1
        else:
            runs.insert(at, [id.sequence, id.sequence + 1])
        return True


@contextmanager
def _target(out: Path | None, *, keeps: bool) -> Iterator[BinaryIO]:
    """Yield what is written to; `keeps`: what was written stays although the rest failed: it is nowhere else."""
    if out is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    building = out.with_name(f"{out.name}.tmp")
    if keeps and (out.exists() or building.exists()):
        there = out if out.exists() else building
        raise click.UsageError(
            f"{there} is there, and may have the only copy of messages; name another file"
        )
    building.unlink(missing_ok=True)  # left by one that was killed
    with os.fdopen(os.open(building, PRIVATE, 0o600), "wb") as stream:
        if out.exists():  # whoever made it has said who may read
            os.fchmod(stream.fileno(), stat.S_IMODE(out.stat().st_mode))
        try:
            yield stream
        except BaseException:
            if not keeps:
                building.unlink()
            else:
                note(f"minibroker: what was taken so far is in {building}")
            raise
        _make_safe(stream)
    building.rename(out)
    sync_entries(FileOps(), out.absolute().parent)


def _make_safe(stream: BinaryIO) -> None:
    stream.flush()
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        os.fsync(stream.fileno())


def _tell(queue: str, counted: Counter[str], take: bool, as_json: bool) -> None:
    written = counted.total() - counted["damaged"]
    if as_json:
        print_json({"queue": queue, "exported": written, "by_state": dict(counted)})
        return
    by_state = ", ".join(f"{number:,} {state}" for state, number in counted.items())
    left = "they are no longer there" if take else "they are still there"
    note(
        f"exported {count_text(written, 'message')} of {queue}"
        + (f" ({by_state}); {left}" if counted else "")
    )
    if counted["damaged"]:
        note(f"minibroker: {count_text(counted['damaged'], 'damaged message')} left out")
