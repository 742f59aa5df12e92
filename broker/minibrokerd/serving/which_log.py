"""Which log a broker has: files in its data directory, or a stream that several machines keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic
from typing import Final

from minibroker.contract.settings import DURABILITIES, REPLICATED
from minibrokerd.bodies.store import BodyStore
from minibrokerd.log.failures import ReadAgain
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.replication import Replication
from minibrokerd.log.seam import Batch, Log
from minibrokerd.monitoring.view import View
from minibrokerd.net.addresses import host_of, is_loopback
from minibrokerd.process import memory
from minibrokerd.process.logs import OwnText, events
from minibrokerd.process.stopping import StopSignals
from minibrokerd.replicated.stream import Stream
from minibrokerd.replicated.stream_address import StreamAddress
from minibrokerd.serving.configuration import ServeOptions

TURN_S: Final = 0.02  # between two turns of the loop, while much is read
TIDY_MS: Final = 60_000  # of what is followed, between two looks for what is over
ADVERTISE: Final = OwnText(
    "clients that come to another broker of this log are sent there while this one leads, and find nobody: listen "
    "where they reach this machine (--host), or say where they do (--advertise HOST:PORT)"
)


def log_of(options: ServeOptions, address: str) -> Log:
    """Return the log that `serve` was asked for; nothing is opened yet. Clients find this broker at `address`."""
    servers = options.log
    if servers is None:
        return FileLog(options.data_dir, segment_bytes=options.segment_bytes, digests=True)
    _look_at_advertised(servers, address)
    # Here: who has a log of files imports neither.
    from minibrokerd.replicated.log import JetStreamLog
    from minibrokerd.replicated.nats_stream import NatsStream
    from minibrokerd.replicated.spool import Spool

    async def open_stream() -> Stream:
        stream = NatsStream(servers)
        await stream.open()
        return stream

    spool = Spool(options.data_dir)
    return JetStreamLog(str(servers), open_stream, address=address, spool=spool)


def _look_at_advertised(log: StreamAddress, address: str) -> None:
    """Warn where others that may lead the same log would send clients to an address of this machine alone."""
    if is_loopback(host_of(address)) and not all(
        is_loopback(host_of(each)) for each in log.servers
    ):
        events.warning("advertises_loopback", address=address, text=ADVERTISE)


def bodies_of(log: Log) -> BodyStore:
    """Return what makes extents of what stands in this log, and reads records that a start needs."""
    if log.segments is not None:
        return BodyStore(log.segments.read_one)
    from minibrokerd.replicated.log import JetStreamLog

    return BodyStore(log.back.read_one) if isinstance(log, JetStreamLog) else BodyStore()


def replication_of(log: Log) -> Callable[[], Replication] | None:
    """Return what says how a log on several machines is; None: it is on one."""
    return getattr(log, "replication", None)


async def stand_by(options: ServeOptions, signals: StopSignals, view: View) -> None:
    """Follow the log while another broker leads it; return when it is claimed, or a stop was asked for.

    `view.active` says who leads meanwhile.
    """
    # Here, as above; and a log that several may lead is of no other kind.
    from minibrokerd.replicated.log import JetStreamLog
    from minibrokerd.replicated.standing_by import Standing
    from minibrokerd.replicated.words import Word

    assert isinstance(view.log, JetStreamLog)
    told: tuple[str, str] | None = None

    def hears(word: Word) -> None:
        nonlocal told
        view.active = word.address
        if not word.is_last and told != (told := (word.run, word.address)):
            events.info(
                "standing_by", stream=OwnText(options.log), active=word.address or "unknown"
            )

    def begin_again() -> None:
        events.warning("begins_again", stream=OwnText(options.log))
        view.engine.begin_again()
        memory.collect_all()

    is_followed = False
    while not is_followed:
        try:
            batches = view.log.follow(Standing(hears), lambda: signals.asked)
            await _replay(view, batches, begin_again)
            is_followed = True
        except ReadAgain:  # a body that a record needs was given up by whoever leads
            begin_again()
    if signals.asked:
        view.log.back.close()
    else:
        before = view.active or "unknown"
        events.warning("takes_over", stream=OwnText(options.log), why=view.log.why, before=before)
    view.active = ""


async def _replay(
    view: View,
    batches: AsyncIterator[list[Batch] | None],
    begin_again: Callable[[], object],
) -> None:
    """Replay what is followed; ReadAgain: it is to be followed anew."""
    turned_s, tidied_unix_ms = monotonic(), 0
    async for found in batches:
        if found is None:
            begin_again()
        for batch in found or ():
            view.engine.replay(batch)
            if batch.unix_ms - tidied_unix_ms > TIDY_MS:
                tidied_unix_ms = batch.unix_ms
                view.core.tidy(tidied_unix_ms)
            if monotonic() - turned_s > TURN_S:
                await asyncio.sleep(0)
                turned_s = monotonic()


def told_of(options: ServeOptions) -> Sequence[str]:
    """Return what confirms call each durability."""
    if options.log is None:
        return DURABILITIES
    return tuple(REPLICATED if name == "sync" else name for name in DURABILITIES)


def no_retained_logs(options: ServeOptions) -> str:
    """Return why no queue can be a retained log; empty: it can."""
    return (
        ""
        if options.log is None
        else "its files would be on one machine, and the log is on several"
    )
