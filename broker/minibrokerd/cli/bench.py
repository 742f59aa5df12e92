"""`minibroker bench`: how fast is the server that runs there, and how late is what it delivers?"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

import click
import uvloop

import minibroker
from minibroker.contract import limits
from minibroker.contract.settings import DURABILITIES
from minibrokerd.cli.options import FiniteRange, json_option, option, url_option
from minibrokerd.cli.printing import fail, note, print_json, print_table, say
from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.cli.talking import talk
from minibrokerd.load.consumers import Stranger
from minibrokerd.load.generator import Generator, Unusable
from minibrokerd.load.payload import BODY_TYPES
from minibrokerd.load.plan import Plan
from minibrokerd.load.report import results, tables, title, verdict
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

DURATION_S: Final = 10.0
MAX_TASKS: Final = 1_000


@click.command()
@option("--producers", type=click.IntRange(1, MAX_TASKS), default=4, help="Tasks that publish.")
@option(
    "--consumers",
    type=click.IntRange(0, MAX_TASKS),
    default=4,
    help="Tasks that consume; 0: only publish.",
)
@option(
    "--connections",
    type=click.IntRange(1, MAX_TASKS),
    default=1,
    help="Connections that the producers share, and as many for the consumers.",
)
@option(
    "--window",
    type=click.IntRange(1, 10_000),
    default=16,
    help="Publishes that each producer has under way at most.",
)
@option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=1,
    help="Messages of one publish; more than 1: publish_many.",
)
@option(
    "--prefetch",
    type=click.IntRange(1, limits.MAX_PREFETCH),
    default=32,
    help="Messages that each consumer holds at most.",
)
@option(
    "--body-size",
    type=Size(1, limits.MAX_MESSAGE_BYTES),
    default="100B",
    help="Size of a body.",
)
@option(
    "--body-type",
    type=click.Choice(list(BODY_TYPES)),
    default="bytes",
    help="bytes: as they are. json: a value that the client library packs and unpacks.",
)
@option(
    "--keys",
    type=click.IntRange(0),
    default=0,
    help="How many keys take turns; 0: no message has one.",
)
@option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=DURABILITIES[0],
    help="Of the queue, if the bench makes it.",
)
@option(
    "--rate",
    type=FiniteRange(0, 10**9, min_open=True),
    help="Open loop: messages a second of all producers. Without it: closed loop, as fast as confirms come.",
)
@option("--count", type=click.IntRange(1), help="Publish so many messages.")
@option(
    "--duration",
    type=Duration(1),
    help=f"Publish for so long; {DURATION_S:g}s, if there is no --count.",
)
@option("--queue", help="The queue; a new one with a name by chance, if not given.")
@option("--keep", is_flag=True, help="Leave the queue there; it may exist already, if it is empty.")
@option(
    "--timeout",
    type=Duration(1),
    default="10s",
    help="How long a call may take; when the server is away for longer, the bench ends.",
)
@url_option
@json_option
def bench(
    queue: str | None, keep: bool, timeout: float, url: str, as_json: bool, **flags: Any
) -> None:
    """Load a running server; show its throughput and latency.

    It also counts whether every message came, and came once.

    Closed loop: each publish is timed from its call. Open loop (--rate): messages are due at times planned before
    the start, and all latencies count from then, however late the server or the bench itself is.
    End to end is until a handler begins with the message.
    """
    plan = _plan(flags)
    made: list[Generator] = []
    # What the client would log on standard error is in the report, or in the one error that ends the bench.
    logging.getLogger("minibroker").addHandler(logging.NullHandler())

    async def work(broker: minibroker.Broker) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        name = queue or f"bench-{secrets.token_hex(4)}"
        with _progress() as show:
            made.append(Generator(broker, url, name, plan, timeout, show))
            await made[0].run(keep)

    try:
        talk(url, work, loop_factory=uvloop.new_event_loop)
    except (Unusable, Stranger) as error:
        fail(str(error), exits.REFUSED)
    except asyncio.CancelledError:  # by SIGTERM; talk knows Ctrl-C
        sys.exit(exits.INTERRUPTED)
    finally:
        if made and made[0].left:
            note(f"queue {made[0].name} could not be deleted; see `minibroker queue delete`")
    _print(results(made[0]), as_json)


def _plan(flags: dict[str, Any]) -> Plan:
    least = BODY_TYPES[flags["body_type"]]
    if flags["body_size"] < least:
        raise click.BadParameter(
            f"a body of type {flags['body_type']} has at least {least} bytes: its number and its time",
            param_hint="--body-size",
        )
    if flags["count"] is None and flags["duration"] is None:
        flags["duration"] = DURATION_S
    return Plan(**flags)


def _print(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        say(title(made))
        for heads, rows in tables(made):
            say()
            print_table(heads, rows, "nothing was measured")
        say()
        say(verdict(made))
        for warning in made["warnings"]:
            note(f"warning: {warning}")
    if missing := made["messages"]["missing"]:
        fail(f"{count_text(missing, 'confirmed message')} never came", exits.REFUSED)


@contextmanager
def _progress() -> Iterator[Callable[[Generator], None]]:
    """Yield what shows the state of a bench on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    before = (perf_counter(), 0, 0)

    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(bench: Generator) -> None:
            # One line of plain text: laying out a table takes milliseconds, which would be measured.
            nonlocal before
            now = (perf_counter(), bench.ledger.confirmed, bench.meter.end_to_end.count)
            seconds = now[0] - before[0]
            published, consumed = ((now[at] - before[at]) / seconds for at in (1, 2))
            waiting = "draining, " if bench.ledger.complete else ""
            live.update(
                Text(
                    f"{waiting}{now[1]:,} published, {published:,.0f}/s; "
                    f"{now[2]:,} consumed, {consumed:,.0f}/s; {bench.stored():,} in the queue"
                ),
                refresh=True,
            )
            before = now

        yield show
