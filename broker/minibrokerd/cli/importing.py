"""`minibroker import`: publish what `export` wrote, or what a script of yours wrote in the same form."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgpack

import minibroker
from minibroker.contract.errors import BadValue, TooLarge
from minibrokerd.cli.carrying import (
    HISTORY,
    LONGEST_LINE,
    WRITTEN_ONLY,
    Carried,
    from_line,
    from_map,
)
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.printing import fail, note, print_json, progress, say
from minibrokerd.cli.reading import LineTooLong, chunks, lines
from minibrokerd.cli.talking import talk
from minibrokerd.cli.whole_file import WholeFile
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

BATCH: Final = 500
Placed = tuple[
    int, Carried
]  # with its place in the input, from 1: its line, or its number among maps
Make = Callable[[], Carried]
Read = Callable[[int], AsyncIterator[tuple[int, Make]]]


@click.command("import")
@queue_argument()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@option(
    "--format",
    "form",
    type=click.Choice(["json", "msgpack"]),
    default="json",
    help="json: one object a line. msgpack: one map after another.",
)
@option(
    "--progress",
    "progress_file",
    type=WholeFile(dir_okay=False, path_type=Path),
    help="Keep in this file how far it came: the same command goes on there.",
)
@option(
    "--skip",
    type=click.IntRange(min=0),
    default=0,
    help="Messages of the input to pass over first.",
)
@option(
    "--waiting",
    type=click.Choice(["refuse", "run", "skip"]),
    default="refuse",
    help="What becomes of messages that waited for others (`after`), which a new one cannot: they are run, or "
    "left out.",
)
@option("--check", is_flag=True, help="Only read and judge the input; nothing is published.")
@create_option
@client_options
def import_(
    queue: str,
    file: Path | None,
    form: str,
    progress_file: Path | None,
    skip: int,
    waiting: str,
    check: bool,
    url: str,
    as_json: bool,
) -> None:
    """Publish messages out of FILE, or out of standard input, to QUEUE.

    \b
    One JSON object a line:
      body          a value, as a Python program would publish it;
                    with "encoding": "bytes" the bytes of a text
      body_base64   the bytes instead; "encoding" says what they are:
                    bytes (if not given) or msgpack
      headers, key, max_attempts, lease_ms, priority, delay_ms or
      ready_unix_ms, and ttl_ms or expires_unix_ms, where they are wanted

    What else `minibroker export` writes (id, state, attempts, history)
    is not taken over: they are new messages. One that waited for others
    (`after`) is refused: it would run before they are done; --waiting
    says what is wanted.
    """
    if progress_file is not None and file is None:
        raise click.UsageError("--progress needs FILE: a pipe cannot be begun again")
    if progress_file is not None and skip:
        raise click.UsageError("--progress says what to skip; leave --skip out")
    importing = _Import(
        queue, Journal.of(progress_file, queue, file), skip, skips=waiting == "skip"
    )

    async def work(broker: minibroker.Broker | None) -> None:
        made = Made() if broker is None else await Made.look(broker, queue)
        try:
            with progress(f"importing to {queue}", None, prints=False) as advance:
                async for batch, wrong in _batches(
                    file, FORMATS[form], importing.upto, refuses=waiting == "refuse"
                ):
                    if batch:
                        await importing.publish(broker, batch)
                        made.tell()
                        advance(len(batch))
                    if wrong is not None:
                        fail(f"{wrong}; nothing from there on was imported", exits.USAGE)
        finally:
            importing.tell(as_json)

    if check:
        asyncio.run(work(None))
    else:
        talk(url, work)


class _Import:
    """One import under way: what is stored, and up to which place of the input all is."""

    def __init__(self, queue: str, journal: Journal, skip: int, *, skips: bool) -> None:
        self.upto = max(journal.done, skip)
        self._queue = queue
        self._journal = journal
        self._skips = skips  # what waited for others
        self._checks = False
        self._counted: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        if journal.under_way > journal.done:
            note(
                f"minibroker: {journal.done + 1:,} to {journal.under_way:,} were under way when the last run "
                "ended: they are published now, and may be there twice"
            )

    async def publish(self, broker: minibroker.Broker | None, batch: Sequence[Placed]) -> None:
        """Publish messages of one frame or a few, and note what became of them; the first error is raised."""
        self._checks = broker is None
        if broker is not None:
            self._journal.write(self.upto, batch[-1][0])
            now_ms = time.time_ns() // 1_000_000
            queue = broker.queue(self._queue)
            calls = [
                _nothing() if self._leaves_out(each) else _publish(queue, each, now_ms)
                for _, each in batch
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
        else:
            results = [None] * len(batch)
        wrong = next(
            (at for at, each in enumerate(results) if isinstance(each, BaseException)), None
        )
        for (_, message), result in zip(batch, results, strict=True):
            if not isinstance(result, BaseException):
                self._count(message)
        if wrong is None:
            self.upto = batch[-1][0]
            self._journal.write(self.upto, self.upto)
            return
        stored = sum(not isinstance(each, BaseException) for each in results[wrong:])
        self.upto = batch[wrong - 1][0] if wrong else self.upto
        self._journal.write(self.upto, batch[-1][0] if stored else self.upto)
        error = results[wrong]
        assert isinstance(error, BaseException)
        if stored:
            note(f"minibroker: of those behind it, up to {batch[-1][0]:,}, {stored:,} are stored")
        if isinstance(error, TypeError | BadValue | TooLarge):
            fail(
                f"message {batch[wrong][0]:,} of the input cannot be published: {error}",
                exits.USAGE,
            )
        raise error

    def tell(self, as_json: bool) -> None:
        """Say what was done, and where to go on."""
        counted, others = (
            self._counted,
            {name: n for name, n in self._others.items() if name not in WRITTEN_ONLY},
        )
        done = "checked" if self._checks else "imported"
        if as_json:
            print_json(
                {"queue": self._queue, done: counted["all"], "delayed": counted["delayed"], "upto": self.upto,
                 "with_history": counted["history"], "waited": counted["waited"],
                 "left_out": counted["left_out"], "unknown_fields": others}
            )  # fmt: skip
            return
        delayed = f", {counted['delayed']:,} of them delayed" if counted["delayed"] else ""
        messages = count_text(counted["all"], "message")
        say(f"{done} {messages} for {self._queue}{delayed}, up to {self.upto:,} of the input")
        if counted["history"]:
            note(f"{counted['history']:,} had attempts or a history: they begin anew")
        if counted["waited"]:
            note(f"{counted['waited']:,} had waited for others, and wait for nobody now")
        if counted["left_out"]:
            note(f"{counted['left_out']:,} had waited for others, and were left out")
        for name, number in others.items():
            note(
                f"minibroker: the field {name!r} ({count_text(number, 'time')}) is not known and was passed over"
            )

    def _leaves_out(self, message: Carried) -> bool:
        return self._skips and bool(message.after)

    def _count(self, message: Carried) -> None:
        if self._leaves_out(message):
            self._counted["left_out"] += 1
            return
        self._counted["all"] += 1
        self._counted["waited"] += bool(message.after)
        self._counted["delayed"] += bool(message.delay_ms or message.ready_unix_ms)
        self._counted["history"] += not message.others.isdisjoint(HISTORY)
        self._others.update(message.others)


async def _nothing() -> None:
    """Publish nothing."""


async def _publish(queue: minibroker.Queue[Any], message: Carried, now_ms: int) -> None:
    delay_ms, lease_ms = message.delay_at(now_ms), message.lease_ms
    ttl_ms = message.ttl_at(now_ms)
    await queue.publish(
        message.body,
        headers=message.headers,
        key=message.key,
        delay=timedelta(milliseconds=delay_ms) if delay_ms else None,
        max_attempts=message.max_attempts,
        lease=timedelta(milliseconds=lease_ms) if lease_ms else None,
        priority=message.priority,
        ttl=timedelta(milliseconds=ttl_ms) if ttl_ms else None,
    )


class Journal:
    """How far an import came, in a file that is synced before and after each batch; without a file, nowhere."""

    def __init__(self, path: Path | None, queue: str, source: str) -> None:
        self.done = self.under_way = 0
        self._path = path
        self._about = {"queue": queue, "input": source}

    @classmethod
    def of(cls, path: Path | None, queue: str, file: Path | None) -> Journal:
        """Return the journal of this import, as far as it came before; a journal of another one is refused."""
        journal = cls(path, queue, str(file.resolve()) if file else "")
        if path is None or not path.exists():
            return journal
        try:
            found = json.loads(path.read_bytes())
            journal.done, journal.under_way = int(found["done"]), int(found["under_way"])
            about = {name: found[name] for name in journal._about}
        except (ValueError, KeyError, TypeError) as error:
            raise click.UsageError(f"{path} is no progress of an import: {error!r}") from error
        if about != journal._about:
            raise click.UsageError(
                f"{path} is of another import: of {about['input']} to {about['queue']}"
            )
        return journal

    def write(self, done: int, under_way: int) -> None:
        """Note that all up to `done` is stored, and what follows up to `under_way` may be."""
        self.done, self.under_way = done, under_way
        if self._path is None:
            return
        text = json.dumps({**self._about, "done": done, "under_way": under_way}) + "\n"
        building = self._path.with_name(f"{self._path.name}.tmp")
        with building.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        building.rename(self._path)


async def _batches(
    file: Path | None, read: Read, skip: int, *, refuses: bool
) -> AsyncIterator[tuple[list[Placed], str | None]]:
    """Yield messages with their places in the input, and what is wrong with the one behind them."""
    with file.open("rb") if file is not None else nullcontext(sys.stdin.buffer) as stream:
        batch: list[Placed] = []
        try:
            async for place, make in read(stream.fileno()):
                if place <= skip:
                    continue
                try:
                    message = make()
                except ValueError as error:
                    yield batch, f"message {place:,} of the input is none: {error}"
                    return
                if refuses and message.after:
                    says = f"waited for others ({message.after}), which a new one cannot"
                    hint = (
                        "--waiting run lets such messages run now, --waiting skip leaves them out"
                    )
                    yield batch, f"message {place:,} of the input {says}; {hint}"
                    return
                batch.append((place, message))
                if len(batch) == BATCH:
                    yield batch, None
                    batch = []
        except (ValueError, LineTooLong, msgpack.UnpackException) as error:
            yield batch, f"the input cannot be read any further: {error}"
            return
        yield batch, None


async def _json(descriptor: int) -> AsyncIterator[tuple[int, Make]]:
    place = 0
    async for found in lines(descriptor, LONGEST_LINE):
        for text in found:
            place += 1
            if text.strip():
                yield place, partial(from_line, text)


async def _msgpack(descriptor: int) -> AsyncIterator[tuple[int, Make]]:
    unpacker = msgpack.Unpacker(max_buffer_size=LONGEST_LINE)
    place = size = end = 0
    async for chunk in chunks(descriptor):
        unpacker.feed(chunk)
        size += len(chunk)
        for fields in unpacker:
            place, end = place + 1, unpacker.tell()
            yield place, partial(from_map, fields)
    if end < size:
        raise ValueError(f"it ends in the middle of message {place + 1:,}")


FORMATS: Final[dict[str, Read]] = {"json": _json, "msgpack": _msgpack}
