"""The figures of a finished bench: one value for programs, tables for people, and what to be careful about.

A load generator is a program on the same machine, so it can be the slower of the two, and its figures then say
little about the server. Whatever speaks for that is a warning that stands beside them.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

from minibroker.contract.limits import PROTOCOL_VERSION
from minibrokerd import __version__
from minibrokerd.load.generator import Generator
from minibrokerd.load.histogram import Histogram

PERCENTILES: Final = (50, 90, 99, 99.9)
BUSY: Final = 0.9  # of a core: one Python process has no more to give
LATE_MS: Final = 10.0  # a wake-up that comes this late was kept waiting by other programs
BEHIND_S: Final = 0.05  # less is the latency of the last call, not a backlog
BEHIND: Final = 0.01  # of the time that the run took

LATENCY_TITLES: Final = {
    "publish": "publish",
    "end_to_end": "end to end",
    "send_lag": "send lag",
}


def results(bench: Generator) -> dict[str, Any]:
    """Return parameters, counts, rates, percentiles in ms, versions and warnings."""
    plan, meter = bench.plan, bench.meter
    before, after = bench.servers
    made: dict[str, Any] = {
        "queue": bench.name,
        "loop": "closed" if plan.rate is None else "open",
        "plan": {**asdict(plan), "durability": bench.durability},
        "versions": {
            "minibroker": __version__,
            "protocol": PROTOCOL_VERSION,
            "server": bench.server_version,
            "python": platform.python_version(),
            "uvloop": version("uvloop"),
        },
        "server": {**after, "restarted": before["epoch"] != after["epoch"]},
        "messages": _messages(bench),
        "rates": _rates(bench),
        "latency_ms": {
            "publish": latency(meter.publish),
            "end_to_end": latency(meter.end_to_end),
            "send_lag": latency(meter.woken),
        },
        "generator": {
            "cpu_share": round(_busy(bench), 3),
            "calls": meter.calls,
            "calls_held_up": meter.held_up,
        },
    }
    made["warnings"] = list(_warnings(made, bench))
    return made


def latency(histogram: Histogram) -> dict[str, float]:
    """Return count, percentiles and maximum of a histogram of nanoseconds, in ms."""
    return {
        "count": histogram.count,
        **{f"p{percent:g}": _ms(histogram.percentile(percent)) for percent in PERCENTILES},
        "max": _ms(histogram.max),
    }


def tables(made: dict[str, Any]) -> Iterator[tuple[Sequence[str], list[list[Any]]]]:
    """Yield heads and rows of each table, from what `results` returned."""
    rates, counts = made["rates"], made["messages"]
    rows = [
        [name, counts[name], rates[name]["seconds"], rates[name]["per_second"]]
        for name in ("published", "consumed", "acked")
        if counts[name]
    ]
    yield ("", "messages", "seconds", "messages/s"), rows
    shown = {name: row for name, row in made["latency_ms"].items() if row["count"]}
    heads = [head for head in next(iter(shown.values()), {}) if head != "count"]
    rows = [[LATENCY_TITLES[name], *(row[head] for head in heads)] for name, row in shown.items()]
    yield ("latency in ms", *heads), rows


def title(made: dict[str, Any]) -> str:
    """Return one line with the parameters."""
    plan = made["plan"]
    pace = f"open loop at {plan['rate']:,.10g} messages/s" if plan["rate"] else "closed loop"
    return (
        f"{made['queue']}, {plan['durability']}: {pace}, "
        f"{plan['producers']} producers x {plan['window']} publishes of {plan['batch']}, "
        f"{plan['consumers']} consumers x prefetch {plan['prefetch']}, "
        f"{plan['body_size']:,} bytes ({plan['body_type']}), {plan['keys'] or 'no'} keys"
    )


def verdict(made: dict[str, Any]) -> str:
    """Return one line that says what became of the confirmed messages."""
    counts = made["messages"]
    if not made["plan"]["consumers"]:
        return f"{counts['published']:,} confirmed, {counts['stored']:,} found in the queue"
    return (
        f"{counts['published']:,} confirmed: {counts['missing']:,} missing, "
        f"{counts['duplicates']:,} delivered again"
    )


def _messages(bench: Generator) -> dict[str, int]:
    ledger = bench.ledger
    stored = bench.stored()
    return {
        "published": ledger.confirmed,
        "refused": bench.meter.refused,
        "unsent": bench.schedule.unsent,
        "consumed": bench.meter.end_to_end.count,
        "acked": bench.meter.acked,
        "stored": stored,
        "missing": ledger.waiting if bench.plan.consumers else max(ledger.confirmed - stored, 0),
        "duplicates": ledger.duplicates,
    }


def _rates(bench: Generator) -> dict[str, Any]:
    plan, meter = bench.plan, bench.meter
    rates: dict[str, Any] = {
        "published": _rate(bench.ledger.confirmed, meter.seconds(meter.last_confirm_ns)),
        "consumed": _rate(meter.end_to_end.count, meter.seconds(meter.last_seen_ns)),
        "acked": _rate(meter.acked, meter.seconds(meter.acked_ns)),
    }
    if plan.rate is not None:
        # The last call stands for the time until the next would have been due.
        seconds = meter.seconds(meter.last_send_ns) + plan.batch / plan.rate
        if bench.schedule.unsent:  # nothing left after the last call, until the time was over
            seconds = max(seconds, plan.duration or 0)
        rates["offered"] = {"per_second": plan.rate}
        rates["sent"] = _rate(bench.schedule.taken, seconds)
    return rates


def _rate(count: int, seconds: float) -> dict[str, float]:
    per_second = round(count / seconds) if seconds else 0
    return {"seconds": round(seconds, 3), "per_second": per_second}


def _busy(bench: Generator) -> float:
    seconds = bench.meter.seconds(bench.meter.last_confirm_ns)
    return bench.meter.busy_s / seconds if seconds else 0.0


def _warnings(made: dict[str, Any], bench: Generator) -> Iterator[str]:
    counts, share = made["messages"], made["generator"]["cpu_share"]
    late_ms = made["latency_ms"]["send_lag"]["p99"]
    if _is_behind(bench):
        yield _behind(made)
    if share >= BUSY:
        yield (
            f"the load generator used {share:.0%} of a core: it was the limit, not the server. "
            "Larger batches cost it less, and several benches can run at once"
        )
    elif late_ms > LATE_MS:
        yield (
            f"the load generator began calls late (p99 {late_ms} ms): other programs kept it "
            "waiting, and the latencies contain that"
        )
    if made["server"]["restarted"]:
        yield "the server was restarted meanwhile"
    if counts["refused"]:
        yield f"the server was busy and refused {counts['refused']:,} messages"
    if counts["duplicates"]:
        yield f"{counts['duplicates']:,} deliveries were of messages that had come before"


def _is_behind(bench: Generator) -> bool:
    meter = bench.meter
    late_s = (meter.last_send_ns - meter.last_due_ns) / 1e9
    took_s = meter.seconds(meter.last_send_ns)
    return bench.schedule.unsent > 0 or late_s > max(BEHIND_S, BEHIND * took_s)


def _behind(made: dict[str, Any]) -> str:
    rates, counts, generator = made["rates"], made["messages"], made["generator"]
    unsent = counts["unsent"]
    never = f"; {unsent:,} were never sent, and are in no latency" if unsent else ""
    return (
        f"fell behind: {rates['offered']['per_second']:,.10g} messages/s offered, "
        f"{rates['sent']['per_second']:,} sent{never}. At {generator['calls_held_up']:,} of "
        f"{generator['calls']:,} calls the whole --window was under way"
    )


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
