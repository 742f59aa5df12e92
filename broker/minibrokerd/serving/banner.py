"""What an operator sees at a start: where the server listens, on which data, and what it found there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minibroker.contract.settings import REPLICATED, default_settings
from minibrokerd import __version__
from minibrokerd.core.model.state import Store
from minibrokerd.log.recovery import RecoveryReport
from minibrokerd.log.seam import Log
from minibrokerd.replicated.stream_address import StreamAddress
from minibrokerd.text.counts import count_text


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a start found in the data directory, and how long it took until the log was open again.

    `after` is `nothing` (a new directory), `stop` or `crash`; `torn_bytes` are of an append that a crash cut
    short, `torn_kept` is the file that keeps them.
    """

    after: str
    queues: int
    messages: int
    leases: int
    sessions: int
    segments: int
    batches: int
    torn_bytes: int
    torn_kept: str | None
    ms: int

    def fields(self) -> dict[str, Any]:
        """Return it as the fields of an event."""
        return asdict(self)


def look(store: Store, log: Log, ms: int) -> Recovered:
    """Return what stands in `store` after a replay of `log`."""
    report = getattr(log, "report", RecoveryReport())
    after = "nothing" if not report.segments else "stop" if report.clean else "crash"
    return Recovered(
        after,
        len(store.queues),
        sum(queue.count() for queue in store.queues.values()),
        sum(queue.group.begun for queue in store.queues.values()),
        len(store.sessions),
        report.segments,
        report.batches,
        report.torn_bytes,
        report.torn_kept,
        ms,
    )


def banner(
    address: str,
    data_dir: Path,
    recovered: Recovered,
    page: str = "",
    log: StreamAddress | None = None,
) -> str:
    """Return the block that is printed when clients can come; its first line ends with the address.

    `page` is the address of the HTTP port; empty: there is none. `log` is that of a replicated log.
    """
    durability = default_settings()["durability"] if log is None else REPLICATED
    how = {
        "nothing": "a new data directory" if log is None else "a new stream",
        "stop": "after a clean stop",
        "crash": "after a crash or a power cut",
    }[recovered.after]
    messages = count_text(recovered.messages, "message")
    torn = ""
    if recovered.torn_bytes:
        kept = f", kept in {recovered.torn_kept}" if recovered.torn_kept else ""
        torn = f"; {count_text(recovered.torn_bytes, 'byte')} of an unfinished write cut off{kept}"
    return "\n".join(
        (
            f"minibroker {__version__} listening on {address}",
            *((f"  http       {page}",) if page else ()),
            f"  data       {data_dir.absolute()}",
            *((f"  log        {log}, {_servers(log.replicas)} of NATS",) if log else ()),
            f"  durability {durability} (the default of a queue)",
            f"  recovered  {messages} in {count_text(recovered.queues, 'queue')}, "
            f"{count_text(recovered.leases, 'lease')}, "
            f"{count_text(recovered.sessions, 'session')} in {recovered.ms} ms",
            f"  started    {how}{torn}",
        )
    )


def _servers(count: int) -> str:
    return f"on {count_text(count, 'server')}"
