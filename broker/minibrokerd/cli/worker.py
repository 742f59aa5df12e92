"""`minibroker worker`: the flags of a worker. The app, and what runs it, are imported when it starts."""

from __future__ import annotations

import sys
from typing import Any

import click

from minibrokerd.cli.options import option, shared_option
from minibrokerd.cli.units import Duration
from minibrokerd.stopping import StopSignals


@click.command()
@click.argument("app")
@shared_option(
    "--url", help="Address of the server; default: the app's, else as for other commands."
)
@option(
    "--queues",
    multiple=True,
    metavar="QUEUE[,QUEUE...]",
    help="Work on these queues only, of those that have a handler.",
)
@option("--burst", is_flag=True, help="End when nothing is ready; what is delayed is left.")
@option(
    "--drain-timeout",
    type=Duration(0, 86_400_000),
    default="30s",
    help="How long a stop waits for handlers that run; then they are cancelled.",
)
@shared_option(
    "--loop",
    type=click.Choice(["uvloop", "asyncio"]),
    default="uvloop",
    help="The event loop to run on.",
)
@shared_option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How events are written to standard error.",
)
@shared_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The least important events that are written; each success is `info`.",
)
def worker(queues: tuple[str, ...], **flags: Any) -> None:
    """Run the handlers of APP, a minibroker.App written as module:name.

    At SIGTERM or Ctrl-C it takes nothing new, gives back what has not begun, and waits for the handlers that run;
    a second signal cancels them.
    """
    signals = StopSignals()
    signals.catch()
    from minibrokerd.workers.single import WorkerOptions, run

    names = tuple(name for each in queues for name in each.split(",") if name)
    sys.exit(run(WorkerOptions(queues=names, **flags), signals))
