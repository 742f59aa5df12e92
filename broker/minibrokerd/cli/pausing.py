"""`minibroker pause`, `resume`, `pauses`: a queue that hands nothing out for a while, workers that get nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

import minibroker
from minibroker.session.pause_wishes import Pause
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, print_json, print_table, say
from minibrokerd.cli.ranges import Duration, When
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

HEADS = ("paused", "since", "until", "by", "in hand")
queue_argument = click.argument("queue", required=False, default="", shell_complete=complete_queue)
worker_option = option(
    "--worker", help="Workers of this name (`minibroker connections` lists them)."
)


@click.command()
@queue_argument
@worker_option
@option("--below", default="", help="Workers of a lower version, of this --worker or of all.")
@option(
    "--deadline",
    type=Duration(1),
    help="Of workers: what they still have after this goes back, uncharged, to others.",
)
@option("--for", "for_", type=Duration(1), help="Go on after this; until `resume`, if not given.")
@option(
    "--until",
    type=When(),
    help="Go on at this time, like 2030-01-31T09:00+01:00, or after a duration.",
)
@client_options
def pause(
    queue: str,
    worker: str | None,
    below: str,
    deadline: float | None,
    for_: float | None,
    until: float | datetime | None,
    url: str,
    as_json: bool,
) -> None:
    """Hand out nothing of QUEUE, or nothing to workers; what they have in hand stays theirs.

    Publishes go on. It lasts until `minibroker resume`, or as --for or --until says, over restarts too.
    """
    _one_of(queue, worker is not None or bool(below))
    if queue and deadline is not None:
        raise click.UsageError("--deadline is one of workers.")
    if for_ is not None and until is not None:
        raise click.UsageError(
            "A pause ends after a time, or at one: give one of --for and --until."
        )
    if until == 0:
        raise click.UsageError("--until now is no pause.")
    for_ = until if isinstance(until, float) else for_
    at = until if isinstance(until, datetime) else None

    async def work(broker: minibroker.Broker) -> None:
        if queue:
            found = await broker.queue(queue).pause(for_=for_, until=at)
        else:
            found = await broker.pause_workers(
                worker or "", below=below, for_=for_, until=at, deadline=deadline
            )
        if as_json:
            print_json(_told(found))
        else:
            until = f" until {_time(found.until)}" if found.until else ""
            say(f"paused {_named(found)}{until}; in hand: {_in_hand(found)}")

    talk(url, work)


@click.command()
@queue_argument
@worker_option
@option("--workers", is_flag=True, help="Those that were paused by --below alone.")
@client_options
def resume(queue: str, worker: str | None, workers: bool, url: str, as_json: bool) -> None:
    """Let QUEUE, or workers, go on that were paused."""
    _one_of(queue, worker is not None or workers)

    async def work(broker: minibroker.Broker) -> None:
        if queue:
            done = await broker.queue(queue).resume()
        else:
            done = await broker.resume_workers(worker or "")
        name = queue or worker or "workers"
        if not done:
            fail(f"{name} is not paused", exits.REFUSED)
        if as_json:
            print_json({"resumed": name})
        else:
            say(f"resumed {name}")

    talk(url, work)


@click.command()
@client_options
def pauses(url: str, as_json: bool) -> None:
    """List what is paused: queues and workers."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.pauses()
        if as_json:
            for each in found:
                print_json(_told(each))
            return
        rows = (
            (
                _named(each),
                _time(each.since),
                _time(each.until),
                each.by,
                _in_hand(each),
            )
            for each in found
        )
        print_table(HEADS, rows, "nothing is paused")

    talk(url, work)


def _one_of(queue: str, workers: bool) -> None:
    if bool(queue) == workers:
        raise click.UsageError("Name a QUEUE, or which workers; not both.")


def _named(pause: Pause) -> str:
    if pause.queue:
        return f"queue {pause.queue}"
    names = f"workers called {pause.worker}" if pause.worker else "workers"
    return f"{names} below {pause.below}" if pause.below else names


def _in_hand(pause: Pause) -> str:
    if pause.queue:
        return f"{pause.begun} begun, {pause.held} held"
    return f"{pause.in_hand} of {count_text(pause.clients, 'client')}"


def _time(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone().isoformat(" ", "seconds")


def _told(pause: Pause) -> dict[str, Any]:
    told: dict[str, Any] = {
        "since": pause.since.isoformat(),
        "until": pause.until and pause.until.isoformat(),
        "by": pause.by,
    }
    if pause.queue:
        return {"queue": pause.queue, **told, "held": pause.held, "begun": pause.begun}
    named = {"worker": pause.worker or None, "below": pause.below or None}
    deadline = pause.deadline and pause.deadline.isoformat()
    in_hand = {"in_hand": pause.in_hand, "clients": pause.clients}
    return {**named, **told, "deadline": deadline, **in_hand}
