"""The figures of a bench run as a table for people; programs read bench.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADS = (
    "row",
    "prefetch",
    "in flight",
    "frame",
    "msg/s min",
    "median",
    "max",
    "target",
    "S us",
    "S bytes",
    "loop/s",
)


def print_report(report: dict[str, Any]) -> None:
    """Print the machine, one line for each row, and the latencies."""
    print("\n" + "  ".join(f"{name} {value}" for name, value in report["machine"].items()))
    print("broker and client: one process each; bodies: 100 bytes; durability: sync")
    print("S: p50 of writing and fdatasync of one record into a zero-filled file, same run\n")
    lines = [HEADS, *(cells(row) for row in report["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]))
    for row in report["rows"]:
        if row["max_ratio"]:
            print(
                f"\n{row['title']}: p50 {row['p50_us']} us, p99 {row['p99_us']} us, "
                f"p50 / S = {row['ratio']} (target <= {row['max_ratio']}: {verdict(row)})"
            )


def cells(row: dict[str, Any]) -> Sequence[str]:
    """Return one line of the table."""
    return (
        f"{row['name']}: {row['title']}",
        str(row["prefetch"] or "-"),
        str(row["prefetch"] or row["calls"] * row["batch"]),
        row["frame"],
        f"{row['min']:,}",
        f"{row['median']:,}",
        f"{row['max']:,}",
        f"{row['target']:,} {verdict(row)}" if row["target"] else "-",
        f"{row['sync_p50_us']:.0f}",
        f"{row['sync_bytes']:,}",
        f"{row['loop_per_second'] / 1e6:.1f} M",
    )


def verdict(row: dict[str, Any]) -> str:
    """Return whether the median reached what the row asks for."""
    if row["max_ratio"]:
        return "ok" if row["ratio"] <= row["max_ratio"] else "MISSED"
    return "ok" if row["median"] >= row["target"] else "MISSED"
