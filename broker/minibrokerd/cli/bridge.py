"""`minibroker bridge`: messages of another broker into a queue, or out of one, while both go on working."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, Final

import click
import uvloop

import minibroker
from minibroker.contract import wire
from minibroker.contract.bodies import encode_headers
from minibrokerd.bridges import addresses
from minibrokerd.bridges.here import ExchangeSink, QueueSink, QueueSource
from minibrokerd.bridges.passing import Bridge, Plan, Unplaced
from minibrokerd.bridges.seam import Away, Parcel, Refused, Sink, Source
from minibrokerd.cli import carrying
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, note, print_json, say
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import CONNECT_S, talk
from minibrokerd.process import exits
from minibrokerd.process.stopping import Asking, ignore
from minibrokerd.text.counts import count_text

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
EXCHANGE: Final = "exchange "  # before the name of one, where a queue may stand too
PRIVATE: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND
URLS: Final = "\n".join(
    f"      {peer.scheme}://HOST:{peer.port}?{next(iter(peer.source))}=NAME"
    for peer in addresses.PEERS
)


@click.command()
@option("--from", "origin", required=True, metavar="QUEUE|URL", help="Where messages are taken.")
@option("--to", "target", required=True, metavar="QUEUE|URL", help="Where they are put.")
@option(
    "--routing-key",
    help="To an exchange: of all messages. Without it that of the header amqp-routing-key, or nats-subject.",
)
@option("--count", type=click.IntRange(min=1), help="End when so many are handed over.")
@option(
    "--until-empty",
    is_flag=True,
    help="End when nothing is left to take, for a move that is made once.",
)
@option(
    "--batch",
    type=click.IntRange(1, 1_000),
    default=500,
    help="How many are on their way at a time; as many again are taken ahead.",
)
@option(
    "--aside",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append messages that fit nowhere to this file, as `import` reads them, and go on. Without it those of a "
    "queue go to its dead-letter queue, and one of another broker ends the bridge and stays there.",
)
@option(
    "--dedupe-window",
    type=Duration(1),
    help="How long the queue knows what came; as it says, if not given.",
)
@option(
    "--terms",
    is_flag=True,
    help="Out of a queue: with priority and time to live, for one more look each.",
)
@option(
    "--wait",
    type=Duration(1),
    default="3s",
    help="How long both sides may take to be there at the start.",
)
@option(
    "--progress-every",
    type=Duration(100),
    default="10s",
    help="How often a line says how far it is.",
)
@option(
    "--drain-timeout",
    type=Duration(0, 86_400_000),
    default="30s",
    help="How long a stop waits for a batch.",
)
@client_options
def bridge(
    origin: str,
    target: str,
    url: str,
    as_json: bool,
    wait: float,
    **flags: Any,
) -> None:
    """Hand messages over from another broker to a queue here, or from a queue to another broker.

    One of --from and --to is the name of a queue, the other a url. Into an exchange: --to "exchange NAME". Out of
    a retained log: --from LOG@GROUP, which has the position.

    \b
      amqp://USER:PASSWORD@HOST:5672/VHOST?queue=NAME      RabbitMQ
      redis://HOST:6379/0?stream=NAME&group=NAME           Redis Streams
      kafka://HOST:9092,HOST:9092?topic=NAME&group=NAME    Kafka
      nats://HOST:4222?stream=NAME (--to: ?subject=NAME)   NATS JetStream

    amqps, rediss, kafkas and natss are the same over TLS; docs/guide/bridges.md has all options.

    At least once: a message is done where it came from when the other side has confirmed it, and not before. The
    bridge keeps nothing itself, so it can be killed and started anywhere. A broker that is away is waited for. It
    ends at SIGTERM or Ctrl-C, when what is on its way has arrived.
    """
    exchange = target.removeprefix(EXCHANGE) if target.startswith(EXCHANGE) else None
    if flags["routing_key"] is not None and exchange is None:
        raise click.UsageError('--routing-key goes with --to "exchange NAME"')
    is_inward = "://" in origin
    if is_inward == ("://" in target):
        raise click.UsageError(
            "one of --from and --to is the url of another broker, the other the name of a queue"
        )
    address, far = _far_end(origin if is_inward else target, is_inward, flags["batch"])
    _silence(address.peer.package)
    aside = flags["aside"]

    async def work(broker: minibroker.Broker) -> None:
        source: Source
        sink: Sink
        if isinstance(far, Source):
            source = far
            if exchange is None:
                sink = QueueSink(broker, target, flags["dedupe_window"])
            else:
                sink = ExchangeSink(broker, exchange, flags["routing_key"])
        else:
            source, sink = QueueSource(broker, origin, terms=flags["terms"]), far
        plan = Plan(
            flags["batch"], flags["count"], flags["until_empty"], aside and partial(_append, aside)
        )
        said = _Said(as_json)
        made = Bridge(source, sink, plan, said.event)
        await _open(made, wait)
        await _run(made, said, flags["progress_every"], flags["drain_timeout"])

    try:
        talk(url, work, max(wait, CONNECT_S), uvloop.new_event_loop)
    finally:
        ignore(SIGNALS)


def _far_end(url: str, is_source: bool, batch: int) -> tuple[addresses.Address, Source | Sink]:
    """Return what a url names, and that end of the bridge; UsageError if it is none, or its package is missing."""
    try:
        address = addresses.read(url, is_source=is_source)
        if find_spec(address.peer.package) is None:
            peer = address.peer
            raise click.UsageError(
                f'{peer.title} needs {peer.package}: pip install "minibroker[{peer.extra}]"'
            )
        made = addresses.source_of(address, batch) if is_source else addresses.sink_of(address)
    except ValueError as error:
        raise click.BadParameter(
            str(error), param_hint="--from" if is_source else "--to"
        ) from error
    return address, made


async def _open(made: Bridge, wait_s: float) -> None:
    """Connect to the other broker, or end the command."""
    by = monotonic() + wait_s
    while True:
        try:
            await made.open()
        except Away as error:
            if monotonic() < by:
                await asyncio.sleep(0.1)
                continue
            fail(f"cannot reach it: {str(error).rstrip('.')}.", exits.UNREACHABLE)
        except Refused as error:
            fail(f"{str(error).rstrip('.')}.", exits.REFUSED)
        return


async def _run(made: Bridge, said: _Said, every_s: float, drain_s: float) -> None:
    """Run until the end, or a signal, and say how it went."""
    loop = asyncio.get_running_loop()
    running = loop.create_task(made.run())
    asking, stopping = Asking(), False

    def stop() -> None:
        nonlocal stopping
        if stopping and asking.is_second():
            running.cancel()
        elif not stopping:
            stopping = True
            asking.first()
            made.stop()
            loop.call_later(drain_s, running.cancel)

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    said.event("started", source=made.source.name, sink=made.sink.name)
    telling = loop.create_task(said.progress(made, every_s))
    try:
        await running
    except Unplaced as error:
        said.total(made)
        fail(f"{error}. It is still there; --aside FILE would keep it and go on.", exits.REFUSED)
    except asyncio.CancelledError:
        if not stopping:
            raise
        said.total(made)
        fail(
            "what was on its way did not arrive in time, and is still where it came from.",
            exits.DRAIN,
        )
    finally:
        telling.cancel()
    said.total(made)


class _Said:
    """What the command prints: events as they come, and how far it is every few seconds."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def event(self, name: str, **fields: Any) -> None:
        """Say that something happened; never for a message that passes."""
        if self._as_json:
            print_json({"event": name, **fields})
        else:
            note(WORDS[name].format(**fields))

    async def progress(self, made: Bridge, every_s: float) -> None:
        """Say every few seconds how far it is."""
        before, at = made.counts.passed, monotonic()
        while True:
            await asyncio.sleep(every_s)
            now = monotonic()
            rate = (made.counts.passed - before) / (now - at)
            before, at = made.counts.passed, now
            if self._as_json:
                print_json(
                    {
                        "event": "progress",
                        **_numbers(made),
                        "per_second": round(rate),
                        "waits_for": made.waits_for,
                    }
                )
            else:
                say(f"{made.counts.passed:,} handed over, {rate:,.0f} a second{_more(made)}")

    def total(self, made: Bridge) -> None:
        """Say what was done in all."""
        if self._as_json:
            print_json({"event": "ended", **_numbers(made)})
        else:
            way = f"from {made.source.name} to {made.sink.name}"
            say(f"handed over {count_text(made.counts.passed, 'message')} {way}{_more(made)}")


WORDS: Final = {
    "started": "from {source} to {sink}",
    "waits": "minibroker: waiting for {end}: {reason}",
    "goes_on": "minibroker: it goes on",
    "aside": "minibroker: message {id} of {bytes} bytes was set aside: {reason}",
}


def _numbers(made: Bridge) -> dict[str, int]:
    counts = made.counts
    return {
        "handed_over": counts.passed,
        "known": counts.known,
        "unsure": counts.unsure,
        "aside": counts.aside,
        "reused_ids": getattr(made.sink, "reused", 0),
    }


def _more(made: Bridge) -> str:
    """Return what else is worth saying."""
    words = {
        "known": "{:,} of them were there already",
        "unsure": "{:,} may be there twice",
        "aside": "{:,} set aside",
        "reused_ids": "{:,} had the id of another one",
    }
    numbers = _numbers(made)
    return "".join(
        f"; {text.format(numbers[name])}" for name, text in words.items() if numbers[name]
    )


def _append(path: Path, parcel: Parcel, reason: str) -> None:
    """Add a message to the file of those that fit nowhere, safe on the disk."""
    fields: dict[str, Any] = {
        "encoding": wire.ENCODING_MSGPACK if parcel.is_value else wire.ENCODING_BYTES,
        "body": parcel.body,
        "headers": encode_headers(parcel.headers),
        "key": parcel.key or "",
        "bridge_id": parcel.id,
        "reason": reason,
    }
    if parcel.priority:
        fields["priority"] = parcel.priority
    with os.fdopen(os.open(path, PRIVATE, 0o600), "ab") as stream:
        stream.write(
            carrying.line(
                {
                    name: value
                    for name, value in fields.items()
                    if value not in ("", b"") or name == "body"
                }
            )
        )
        stream.flush()
        os.fsync(stream.fileno())


def _silence(package: str) -> None:
    """Let the libraries print nothing by themselves: what matters is said here, and they may name urls."""
    for name in {package, package.partition("_")[0], "aiormq", "asyncio"}:
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
