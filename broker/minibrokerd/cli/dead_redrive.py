"""`minibroker dlq status|stop`, and how `dlq redrive` follows what the server does by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibroker.session.dead import Redrive, Where
from minibrokerd.cli.completing import complete_source
from minibrokerd.cli.dead_queue import counters_of, dlq_of
from minibrokerd.cli.options import client_options, queue_argument
from minibrokerd.cli.printing import fail, note, print_json, say
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits

LOOK_S: Final = 0.5  # how often its state is looked at
STOPPED: Final = "stopped"


@click.command()
@queue_argument(complete_source)
@client_options
def status(queue: str, url: str, as_json: bool) -> None:
    """Show how the redrive of QUEUE that was started with --rate or --canary stands, or ended within a day."""

    async def work(broker: minibroker.Broker) -> None:
        known = await counters_of(broker, queue) is not None
        _print(queue, await broker.queue(dlq_of(queue)).redrive_state() if known else None, as_json)

    talk(url, work)


@click.command()
@queue_argument(complete_source)
@client_options
def stop(queue: str, url: str, as_json: bool) -> None:
    """Let the redrive of QUEUE send no more messages back; those that went stay where they are."""

    async def work(broker: minibroker.Broker) -> None:
        known = await counters_of(broker, queue) is not None
        _print(queue, await broker.queue(dlq_of(queue)).stop_redrive() if known else None, as_json)

    talk(url, work)


async def begin(
    broker: minibroker.Broker,
    queue: str,
    ids: Sequence[MessageId],
    where: Where | None,
    rate: int,
    canary: int,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    """Let the server redrive by itself; unless `detach`, say what it does until it has ended."""
    dead = broker.queue(dlq_of(queue))
    await counters_of(broker, queue)  # raises if there is no such queue
    state = await dead.start_redrive(ids or None, where=where, rate=rate, canary=canary)
    said = ""
    try:
        while not (state.is_over or detach):
            now = _says(queue, state) if state.why else ""
            if now != said:
                note(now or f"{queue}: it goes on")
            said = now
            await asyncio.sleep(LOOK_S)
            state = await dead.redrive_state() or state
    except asyncio.CancelledError:
        note(f"the server goes on with it; `minibroker dlq stop {queue}` ends that")
        raise
    _print(queue, state, as_json)
    if state.state == STOPPED:
        fail(f"{queue}: {state.why}", exits.REFUSED)


def _print(queue: str, state: Redrive | None, as_json: bool) -> None:
    if as_json:
        print_json({} if state is None else _json(state))
    else:
        say(f"no redrive of {dlq_of(queue)} was started" if state is None else _says(queue, state))


def _says(queue: str, state: Redrive) -> str:
    why = f"; {state.why}" if state.why else ""
    return f"{queue}: {state.state}, redriven {state.redriven:,}{why}"


def _json(state: Redrive) -> dict[str, Any]:
    names = ("state", "why", "by", "rate", "canary", "redriven")
    values: dict[str, Any] = {name: getattr(state, name) for name in names}
    values["started"] = state.started.isoformat()
    values["ended"] = state.ended.isoformat() if state.ended is not None else None
    return values
