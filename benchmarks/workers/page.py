"""The page of a run, for people; its table stands in docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.workers.settings import MINIBROKER

HEADINGS = (
    "| worker | how | jobs/s: median (range) | fastest minibroker is | CPU us a job, server and worker |\n"
    "| --- | --- | --- | --- | --- |\n"
)


def markdown(made: dict[str, Any]) -> str:
    """Return the page."""
    ours = best([row for row in made["rows"] if row["framework"] == MINIBROKER])
    theirs = best([row for row in made["rows"] if row["framework"] != MINIBROKER])
    lines = [f"# A job that does nothing\n\n{machine(made)}\n\n{HEADINGS}"]
    for row in made["rows"]:
        times = f"{ratio(ours, row)} x" if ours and row["framework"] != MINIBROKER else "-"
        lines.append(
            f"| {row['name']} | {row['how']} | {spread(row['rates'])} | {times} | {cost(row)} |\n"
        )
    lines.append("\n")
    if ours and theirs:
        lines.append(
            f"{ours['name']} beside {theirs['name']}, the fastest of the others: {ratio(ours, theirs)} times.\n\n"
        )
    lines.append(
        f"`consume-1000` of the same rounds: {spread(made['consume'])} messages/s. Of it:\n\n"
    )
    lines += [
        f"- {row['name']}: {shares(row['rates'], made['consume'])}\n"
        for row in made["rows"]
        if row["framework"] == MINIBROKER
    ]
    lines += [f"\nFailed: {name}: {text}\n" for name, text in made["failed"].items()]
    return "".join(lines)


def machine(made: dict[str, Any]) -> str:
    """Return what it was measured on, with both gauges."""
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"{made['date']}, commit {made['commit']}, Python {made['python']}, {made['cores']} cores, "
        f"{made['system']}; fdatasync p50 {made['fdatasync_p50_us']} us, "
        f"loop {made['loop_per_second'] / 1e6:.0f} M/s.\n\n"
        f"{versions}."
    )


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the row with the highest median; None if there is none."""
    return max(
        (row for row in rows if row["rates"]), key=lambda row: median(row["rates"]), default=None
    )


def spread(rates: Sequence[float]) -> str:
    """Return median and range of rates."""
    return f"{median(rates):,.0f} ({min(rates):,.0f} - {max(rates):,.0f})"


def cost(row: dict[str, Any]) -> str:
    """Return the median of the CPU time of a job; that of processes which have ended is not known."""
    return "-" if row["name"] == "rq" else f"{median(row['cpu_us']):.3g}"


def ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return how many times the rate of one row is that of another, within each round: median and range."""
    return shares(ours["rates"], theirs["rates"])


def shares(above: Sequence[float], below: Sequence[float]) -> str:
    """Return the quotients of two rows of figures: median and range."""
    quotients = [a / b for a, b in zip(above, below, strict=True)]
    return f"{median(quotients):.3g} ({min(quotients):.3g} - {max(quotients):.3g})"
