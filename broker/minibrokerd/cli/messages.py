"""`minibroker message show|delete|move` and `queue move`: messages by their ids, or all that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import click

import minibroker
from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.address import masked
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.group import Group
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, ids_argument, option, queue_argument
from minibrokerd.cli.peeking import find, show_messages
from minibrokerd.cli.printing import fail, print_json, progress, say
from minibrokerd.cli.queues import STATES, confirm
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

MOVE_STEP: Final = 10_000  # messages in one request, so that progress can be shown
target_option = option(
    "--to", "target", required=True, metavar="TARGET", shell_complete=complete_queue,
    help="The queue that gets them; made if it is not there.",
)  # fmt: skip


@click.group(cls=Group)
def message() -> None:
    """Show, delete or move single messages of a queue, by the IDs that lists print."""


@message.command()
@queue_argument()
@ids_argument()
@client_options
def show(queue: str, ids: Sequence[MessageId], url: str, as_json: bool) -> None:
    """Show messages of QUEUE, whatever state they are in, and their attempts."""

    async def work(broker: minibroker.Broker) -> None:
        await show_messages(broker, queue, ids, as_json)

    talk(url, work)


@message.command()
@queue_argument()
@ids_argument()
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def delete(queue: str, ids: Sequence[MessageId], yes: bool, url: str, as_json: bool) -> None:
    """Remove messages of QUEUE that wait. Those that a worker has are left, and named."""
    confirm(f"Remove {len(ids)} of the messages of {queue} at {masked(url)}?", yes)

    async def work(broker: minibroker.Broker) -> None:
        await _do(broker, queue, ids, "deleted", as_json, broker.queue(queue).purge)

    talk(url, work)


@message.command()
@queue_argument()
@ids_argument()
@target_option
@create_option
@client_options
def move(queue: str, ids: Sequence[MessageId], target: str, url: str, as_json: bool) -> None:
    """Move messages of QUEUE that wait to another queue. Those that a worker has are left, and named."""

    async def work(broker: minibroker.Broker) -> None:
        async def some(chunk: Sequence[MessageId]) -> int:
            return await broker.queue(queue).move(target, chunk)

        made = await Made.look(broker, target)
        await _do(broker, queue, ids, "moved", as_json, some, made)

    talk(url, work)


@click.command("move")
@queue_argument()
@target_option
@option(
    "--count",
    type=click.IntRange(min=1),
    help="Most messages to move, the oldest; all, if not given.",
)
@create_option
@client_options
def move_queue(queue: str, target: str, count: int | None, url: str, as_json: bool) -> None:
    """Move the messages of QUEUE that wait to another queue. Those that workers have are left, and told."""

    async def work(broker: minibroker.Broker) -> None:
        made = await Made.look(broker, target)
        moved = await _move_all(broker, queue, target, count)
        if moved:
            made.tell()
        counters = (await broker.queue(queue).stats())["queues"][queue]
        left = {state: counters[state] for state in STATES if counters[state] and count is None}
        if as_json:
            print_json({"moved": moved} | ({"left": left} if left else {}))
        else:
            others = ", ".join(f"{number:,} {state}" for state, number in left.items())
            say(f"moved {moved:,}" + (f"; left in {queue}: {others}" if left else ""))

    talk(url, work)


async def _move_all(broker: minibroker.Broker, queue: str, target: str, count: int | None) -> int:
    """Move what waits now: what comes meanwhile is left for the next call."""
    counters = (await broker.queue(queue).stats())["queues"][queue]
    waiting = counters["ready"] + counters["delayed"]
    left = waiting if count is None else min(count, waiting)
    moved = 0
    with progress(f"moving {queue}", left, prints=False) as advance:
        while left > 0:
            step = await broker.queue(queue).move(target, count=min(left, MOVE_STEP))
            if not step:
                break
            moved += step
            left -= step
            advance(step)
    return moved


async def _do(
    broker: minibroker.Broker,
    queue: str,
    ids: Sequence[MessageId],
    word: str,
    as_json: bool,
    some: Callable[[Sequence[MessageId]], Awaitable[int]],
    made: Made | None = None,
) -> None:
    """Do something with messages, say with how many, and name those that were left, and why."""
    wanted = list(dict.fromkeys(ids))
    done = 0
    for at in range(0, len(wanted), limits.MAX_RUNS_PER_FRAME):
        done += await some(wanted[at : at + limits.MAX_RUNS_PER_FRAME])
        if made is not None:
            made.tell()
    left: dict[str, str] = {}
    if done < len(wanted):
        left = {
            str(each.id): each.info["state"].lower() for each in await find(broker, queue, wanted)
        }
    result: dict[str, Any] = {word: done}
    if as_json:
        print_json(result | ({"left": left} if left else {}))
    else:
        say(f"{word} {done:,}")
    if done < len(wanted):
        reasons = [f"{name} is {state}" for name, state in left.items()]
        gone = len(wanted) - done - len(left)
        if gone > 0:
            reasons.append(f"{count_text(gone, 'id')} not in {queue}")
        fail(f"left: {', '.join(reasons)}", exits.REFUSED)
