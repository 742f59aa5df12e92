"""What an operator sees when a worker starts: its handlers, and for which broker."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, Protocol

from minibroker.session.address import default_url, masked
from minibroker.worker import App, Declared, Report
from minibrokerd import __version__
from minibrokerd.process.outlet import STDOUT, write_once
from minibrokerd.workers.place import Place

WHERE: Final = {"loop": "in the loop", "thread": "in threads", "process": "in processes"}


class Asked(Protocol):
    """What a greeting needs of the options of a worker."""

    @property
    def app(self) -> str:
        """The name of the app."""
        ...

    @property
    def url(self) -> str | None:
        """The broker, where the command line names one."""
        ...

    @property
    def queues(self) -> tuple[str, ...]:
        """Those that are worked on; empty: all that have a handler."""
        ...

    @property
    def log_format(self) -> str:
        """`text` or `json`."""
        ...


def introduce(app: App, options: Asked, report: Report, place: Place | None) -> None:
    """Say it as an event; print the banner as well, once for all workers of a command, unless lines are JSON."""
    url = masked(options.url or app.url or default_url(os.environ))
    rows = [each for each in app.handlers if not options.queues or each.queue in options.queues]
    report.event(
        "worker_started",
        version=__version__,
        app=options.app,
        broker=url,
        handlers=[
            f"{each.queue}={each.name} x{each.concurrency} ({each.executor})" for each in rows
        ],
        pid=os.getpid(),
        worker=place.number if place is not None else 1,
    )
    if options.log_format == "text" and (place is None or (place.number == 1 and place.is_first)):
        count = place.count if place is not None else 1
        write_once(
            STDOUT, banner(options.app, url, rows, count).encode("utf-8", "backslashreplace")
        )


def banner(app: str, url: str, rows: Iterable[Declared], processes: int) -> str:
    """Return the block that is printed before the first message is taken."""
    rows = list(rows)
    wide = max((len(each.queue) for each in rows), default=0)
    times = f", {processes} processes" if processes > 1 else ""
    lines = [f"minibroker {__version__} worker of {app} for {url}{times}"]
    lines += [f"  {each.queue:<{wide}}  {_row(each)}" for each in rows]
    return "\n".join(lines) + "\n"


def _row(each: Declared) -> str:
    body = f" of {each.takes.body_type}" if each.takes.body_type else ""
    bound = f", {each.timeout_s:g} s at most" if each.timeout_s else ""
    return f"{each.name}{body}, {each.concurrency} at a time {WHERE[each.executor]}{bound}"
