"""Which log a broker has: files in its data directory, or a stream that several machines keep."""

from __future__ import annotations

from collections.abc import Sequence

from minibroker.contract.settings import DURABILITIES, REPLICATED
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.seam import Log
from minibrokerd.monitoring.view import View
from minibrokerd.process.stopping import StopSignals
from minibrokerd.replicated.stream import Stream
from minibrokerd.serving.configuration import ServeOptions


def log_of(options: ServeOptions, address: str) -> Log:
    """Return the log that `serve` was asked for; nothing is opened yet. Clients find this broker at `address`."""
    servers = options.log
    if servers is None:
        return FileLog(options.data_dir, segment_bytes=options.segment_bytes, digests=True)
    # Here: who has a log of files imports neither.
    from minibrokerd.replicated.log import JetStreamLog
    from minibrokerd.replicated.nats_stream import NatsStream

    async def open_stream() -> Stream:
        stream = NatsStream(servers)
        await stream.open()
        return stream

    return JetStreamLog(str(servers), open_stream, address=address)


async def stand_by(options: ServeOptions, signals: StopSignals, view: View) -> None:
    """Return when this broker may try to lead, or was asked to stop; `view.active` says who leads meanwhile."""
    if options.log is None or not options.standby:
        return
    from minibrokerd.replicated.standing_by import until_silent
    from minibrokerd.replicated.words import Word

    def hears(word: Word) -> None:
        view.active = word.address

    await until_silent(options.log, lambda: signals.asked, hears)
    view.active = ""


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
