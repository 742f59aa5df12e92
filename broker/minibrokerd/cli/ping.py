"""`minibroker ping`: is the server there, and how far away? What a health check calls."""

from __future__ import annotations

import time

import click

import minibroker
from minibroker.session.address import masked, parse_url, url_of
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, print_json, say
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import CONNECT_S, talk
from minibrokerd.process.exits import UNREACHABLE
from minibrokerd.workers.health import STALE_S, age_s


@click.command()
@option("--count", type=click.IntRange(min=1), default=1, help="How many times to ask.")
@option(
    "--wait",
    type=Duration(100),
    default=f"{CONNECT_S:g}s",
    help="How long to wait for a server that is not there yet, or still recovers.",
)
@option(
    "--host",
    allow_from_autoenv=False,
    help="The address that `serve` was told to listen on, instead of --url.  [env var: MINIBROKER_HOST]",
)
@option(
    "--port",
    type=click.IntRange(1, 65_535),
    allow_from_autoenv=False,
    help="The port that `serve` was told to listen on, instead of --url.  [env var: MINIBROKER_PORT]",
)
@option(
    "--worker",
    type=click.Path(dir_okay=False),
    help="Look at the file of `minibroker worker --health-file` instead: did the broker answer of late?",
)
@client_options
def ping(
    count: int,
    wait: float,
    host: str | None,
    port: int | None,
    worker: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Ask the server for a sign of life.

    Without an address it asks the server that `serve` would start here, by the same variables.
    Exit code 0: it takes work, or the worker does. 69: it cannot be reached, or the worker heard nothing of late.
    """
    if worker is not None:
        _look_at(worker, as_json)
        return
    if host is not None or port is not None:
        near = parse_url(url)
        is_sealed = near.encryption is not None
        url = url_of(
            host if host is not None else near.host, port or near.port, is_sealed=is_sealed
        )

    async def work(broker: minibroker.Broker) -> None:
        for _ in range(count):
            began = time.perf_counter()
            await broker.ping()
            took_ms = round((time.perf_counter() - began) * 1_000, 3)
            if as_json:
                print_json({"url": masked(url), "version": broker.server_version, "ms": took_ms})
            else:
                say(f"{masked(url)} answered in {took_ms:.3f} ms")

    talk(url, work, wait)


def _look_at(path: str, as_json: bool) -> None:
    try:
        age = age_s(path)
    except OSError as error:
        fail(f"the worker's health file cannot be read: {error}", UNREACHABLE)
    if as_json:
        print_json({"file": path, "age_s": round(age, 3)})
    if age > STALE_S:
        fail(f"the worker had no answer of the broker for {age:.0f} s", UNREACHABLE)
    if not as_json:
        say(f"the worker had an answer of the broker {max(age, 0):.1f} s ago")
