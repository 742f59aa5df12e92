"""The result of `make bench-replicated`: rows, and one table as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from benchmarks.peers.contestant import Sample
from benchmarks.peers.ratios import compare, shortened
from benchmarks.peers.tables import number, table_line
from benchmarks.peers.works import Work

OURS: Final = "stream"
SIDES: Final = {
    "stream": "minibroker, stream of three",
    "files": "minibroker, files",
    "rabbitmq": "RabbitMQ, quorum of three",
    "jetstream": "JetStream, three replicas",
    "append, nats-py": "bare append by nats-py",
    "append, own": "bare append, as the broker does it",
}


def row_of(
    work: Work,
    samples: Mapping[str, Sequence[Sample]],
    counts: Mapping[str, int],
    gauges: Mapping[str, float],
) -> dict[str, Any]:
    """Return the medians of a work on each side, and the ratios, taken within the rounds.

    A ratio says how many times better the stream of three was: more messages, or fewer microseconds.
    """
    ours = [sample.value for sample in samples[OURS]]
    sides: dict[str, dict[str, Any]] = {}
    for name, some in samples.items():
        values = [sample.value for sample in some]
        side = sides[name] = {"median": shortened(median(values)), "messages": counts[name]}
        if "p99_us" in some[0].beside:
            side["p99"] = shortened(median(sample.beside["p99_us"] for sample in some))
        if name != OURS:
            ratio = compare(list(zip(ours, values, strict=True)), work.unit)
            side["ratio"] = [ratio.ratio_min, ratio.ratio_median, ratio.ratio_max]
    return {"work": work.name, "title": work.title, "unit": work.unit, "sides": sides, **gauges}


def markdown(told: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page."""
    headings = ["work", "unit", *SIDES.values(), "fdatasync us", "loop M/s"]
    lines = [
        "# Replicated queues",
        "",
        ", ".join(f"{name} {value}" for name, value in told.items()) + ".",
        "",
        "Medians of the rounds (p99 of lone calls in brackets), and behind them how many times better the stream",
        "of three was: lowest - median - highest, each ratio taken within its round. All servers run always.",
        "",
        table_line(headings),
        table_line(["---"] * len(headings)),
    ]
    return "\n".join([*lines, *(table_line(cells(row)) for row in rows)]) + "\n"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row."""
    return [
        f"{row['work']}: {row['title']}",
        row["unit"],
        *(cell(row["sides"].get(name)) for name in SIDES),
        number(row["sync_p50_us"]),
        number(row["loop_per_second"] / 1e6),
    ]


def cell(side: Mapping[str, Any] | None) -> str:
    """Return one figure, with what stands beside it."""
    if side is None:
        return "-"
    p99 = f" (p99 {number(side['p99'])})" if "p99" in side else ""
    ratio = side.get("ratio")
    times = f"; {' - '.join(map(number, ratio))} x" if ratio else ""
    return f"{number(side['median'])}{p99}{times}"
