"""`minibroker consume`: print messages, or run a command for each: a worker without a line of Python."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import click

import minibroker
from minibroker.contract import limits
from minibrokerd.cli.executing import Executor
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.peeking import body_fields, body_of, headers_of
from minibrokerd.cli.printing import print_json, print_text
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.process.stopping import Asking, ignore
from minibrokerd.text.values import text_of

SHOWN: Final = 1_000  # messages that are kept at most to be given back in the end
PREFETCH: Final = 32  # what printing with --ack asks for ahead
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@click.command()
@queue_argument()
@option("--count", type=click.IntRange(min=1), help="Stop after so many.")
@option(
    "--ack",
    is_flag=True,
    help="Ack what is printed, which ends it; without it all of it, at most 1,000, goes back in the end.",
)
@option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run CMD by the shell for each message, with its body as standard input.",
)
@option(
    "--concurrency",
    type=click.IntRange(1, limits.MAX_PREFETCH),
    default=1,
    help="How many commands run at a time.",
)
@option(
    "--lease",
    type=Duration(10, limits.MAX_LEASE_MS),
    help="How long until a worker that went silent loses its message; the queue's, if not given.",
)
@create_option
@client_options
def consume(
    queue: str,
    count: int | None,
    ack: bool,
    command: str | None,
    concurrency: int,
    lease: float | None,
    url: str,
    as_json: bool,
) -> None:
    """Print messages as they come, or run a command for each.

    Ends after --count messages, or at SIGTERM or Ctrl-C.

    \b
    With --exec the command's exit code settles the message:
      0      ack: done
      65     reject: it can never succeed, to the dead-letter queue
      other  nack: it comes again after the queue's retry delay

    The last line that it wrote to standard error goes into the history. Its environment has MINIBROKER_QUEUE,
    MINIBROKER_ID, MINIBROKER_TOKEN, MINIBROKER_ATTEMPT, MINIBROKER_KEY, and MINIBROKER_HEADERS as JSON; where the
    message has a header traceparent, TRACEPARENT, TRACESTATE and BAGGAGE as well.

    At a signal the commands that run are waited for; a second one ends them and gives their messages back.
    """
    if command is not None and ack:
        raise click.UsageError("--exec settles by exit code; leave --ack out")

    if command is None and not ack:
        if count is not None and count > SHOWN:
            raise click.UsageError(f"without --ack at most {SHOWN:,} messages can be shown")
        count = count or SHOWN
    at_once = concurrency if command is not None else 1
    prefetch = at_once if command is not None else PREFETCH if ack else SHOWN

    async def work(broker: minibroker.Broker) -> None:
        handler = Executor(command, as_json) if command is not None else _Printer(ack, as_json)
        made = await Made.look(broker, queue)
        try:
            async with broker.queue(queue).consume(
                min(count or prefetch, prefetch), lease
            ) as messages:
                made.tell()
                crew = _Crew(aiter(messages), handler, count)
                await crew.work(at_once)
        finally:
            await handler.finish()
        if crew.hurried:
            sys.exit(exits.INTERRUPTED)

    try:
        talk(url, work)
    finally:
        ignore(SIGNALS)  # one more would be how the process ended


class Handler(Protocol):
    """What is done with each message."""

    async def handle(self, message: minibroker.Message[Any]) -> None:
        """Handle one message and settle it."""

    async def finish(self) -> None:
        """End the work, after the last message, when no more are delivered."""


class _Printer:
    """Prints messages; what is not acked is kept until the end, so that nothing is printed twice."""

    def __init__(self, ack: bool, as_json: bool) -> None:
        self._ack = ack
        self._as_json = as_json
        self._shown: list[minibroker.Message[Any]] = []

    async def handle(self, message: minibroker.Message[Any]) -> None:
        self._shown.append(message)  # before it is printed: that may fail
        if self._as_json:
            about = {"id": str(message.id), "attempt": message.attempt, "key": message.key}
            if message.offset is not None:
                about["offset"] = message.offset
            print_json({**about, "headers": headers_of(message), **body_fields(message)})
        else:
            print_text(text_of(body_of(message)))
        if self._ack:
            await self._shown.pop().ack()

    async def finish(self) -> None:
        for message in self._shown:
            await message.release()


class _Crew:
    """Some tasks that share the messages of one consumer, until a count or a signal."""

    def __init__(
        self, messages: AsyncIterator[minibroker.Message[Any]], handler: Handler, count: int | None
    ) -> None:
        self.hurried = False  # a second signal came
        self._messages = messages
        self._handler = handler
        self._left = math.inf if count is None else count
        self._stopping = False
        self._asking = Asking()
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: set[asyncio.Task[Any] | None] = set()

    async def work(self, size: int) -> None:
        """Return when the count is reached, or after a signal when what runs has ended."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop)
        self._tasks = [loop.create_task(self._one()) for _ in range(size)]
        try:
            await asyncio.gather(*self._tasks)
        except asyncio.CancelledError:
            if not self.hurried:
                raise
        finally:
            for task in self._tasks:
                task.cancel()
            # The handlers stay: what was not begun still has to go back, within the time-out of the connection.
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop(self) -> None:
        if self._stopping and not self._asking.is_second():
            return
        self._asking.first()
        self.hurried = self._stopping
        for task in self._tasks if self._stopping else self._idle:
            if task is not None:
                task.cancel()
        self._stopping = True

    async def _one(self) -> None:
        while self._left > 0 and not self._stopping:
            self._left -= 1  # before the wait: the others must not begin more than the count
            message = await self._next()
            if message is None:
                return
            await self._handler.handle(message)

    async def _next(self) -> minibroker.Message[Any] | None:
        task = asyncio.current_task()
        self._idle.add(task)
        try:
            return await anext(self._messages, None)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return None
        finally:
            self._idle.discard(task)
