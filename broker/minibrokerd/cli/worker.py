"""`minibroker worker`: the flags of a worker. The app, and what runs it, are imported when it starts."""

from __future__ import annotations

import sys
from typing import Any

import click

from minibrokerd.cli.options import log_options, option, shared_option
from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.cli.whole_file import WholeFile
from minibrokerd.process.stopping import StopSignals
from minibrokerd.workers.place import Place


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
    "--processes",
    type=click.IntRange(1, 1_000),
    default=1,
    help="How many processes work, each with the concurrency of the handlers; more than one are supervised.",
)
@option(
    "--max-messages",
    type=click.IntRange(1),
    help="Replace a process after so many messages.",
)
@option(
    "--max-memory",
    type=Size(16 * 1024 * 1024),
    help="Replace a process that takes more memory.",
)
@option("--reload", is_flag=True, help="Restart when a Python file changes here; needs watchfiles.")
@option(
    "--health-file",
    type=WholeFile(dir_okay=False),
    help="A file to write while the broker answers; `ping --worker FILE` looks at its age.",
)
@option(
    "--health-port",
    type=click.IntRange(0, 65_535),
    envvar="MINIBROKER_WORKER_HEALTH",  # with _PORT it would be that of a Service of Kubernetes
    help="A port of this machine that answers HTTP: 200 while the broker answers, else 503.",
)
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
@log_options("; each success is `info`")
def worker(queues: tuple[str, ...], processes: int, reload: bool, **flags: Any) -> None:
    """Run the handlers of APP, a minibroker.App written as module:name.

    At SIGTERM or Ctrl-C it takes nothing new, gives back what has not begun, and waits for the handlers that run;
    a second signal cancels them. SIGHUP replaces supervised processes one by one.
    """
    signals = StopSignals()
    signals.catch()
    names = tuple(name for each in queues for name in each.split(",") if name)
    if queues and not names:
        raise click.UsageError("--queues names no queue; leave it out to work on all.")
    place = Place.taken()
    if place is not None:
        # Of a group that is signalled each gets a signal, and some time later one from the supervisor: he says
        # when it is a second asking.
        signals.is_second = place.is_hurried
    bounded = flags["max_messages"] is not None or flags["max_memory"] is not None
    if place is None and (processes > 1 or reload or bounded):
        sys.exit(_supervise(processes, reload, flags, signals))
    from minibrokerd.workers.single import WorkerOptions, run

    sys.exit(run(WorkerOptions(queues=names, **flags), signals, place))


def _supervise(processes: int, reload: bool, flags: dict[str, Any], signals: StopSignals) -> int:
    from minibrokerd.workers import reloading
    from minibrokerd.workers.supervisor import SupervisorOptions, supervise

    if reload and not reloading.is_available():
        raise click.UsageError('--reload needs watchfiles: pip install "minibroker[reload]"')
    names = ("burst", "drain_timeout", "health_file", "health_port", "log_format", "log_level")
    chosen = {name: flags[name] for name in names}
    return supervise(SupervisorOptions(processes=processes, reload=reload, **chosen), signals)
