"""The result as Markdown: one table a durability and peer, and beside each figure what made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
HEADINGS = (
    "work", "minibroker", "peer", "unit", "times better", "min - max", "prefetch", "window", "batch",
    "frame", "body", "fdatasync us", "loop M/s", "how the peer does it",
)  # fmt: skip
LEVELS = {"sync": "On the disk before the confirm", "lazy": "On the disk a little later"}


def markdown(header: Mapping[str, Any], rows: Sequence[Row], skipped: Sequence[str]) -> str:
    """Return the whole page."""
    lines = ["# minibroker and its peers", "", *opening(header), ""]
    for level, title in LEVELS.items():
        against = dict.fromkeys(row["against"] for row in rows if row["durability"] == level)
        if against:
            lines += [f"## {title}: minibroker `{level}`", ""]
        for name in against:
            lines += section(name, [row for row in rows if row["against"] == name])
    lines += [f"- {line}" for line in skipped]
    return "\n".join(lines).rstrip() + "\n"


def opening(header: Mapping[str, Any]) -> list[str]:
    """Return what the figures were measured on, and how to read them."""
    told = ", ".join(f"{name} {value}" for name, value in header.items())
    return [
        f"{told}.",
        "",
        "Medians; a ratio above 1 says how many times better minibroker was, taken within each pair (A B A B).",
        "Both servers run all the time, each side has a client process of its own on uvloop. Rates are",
        "compared: a slow side gets fewer messages.",
    ]


def section(name: str, rows: Sequence[Row]) -> list[str]:
    """Return the table of one side."""
    versions = ", ".join(f"{what} {which}" for what, which in rows[0]["versions"].items())
    tuned = f" Tuned: {rows[0]['tuned']}." if rows[0]["tuned"] else ""
    lines = [f"### {name}: {rows[0]['their_durability']}", "", f"{versions}.{tuned}", ""]
    lines += [table_line(HEADINGS), table_line(["---"] * len(HEADINGS))]
    return [*lines, *(table_line(cells(row)) for row in rows), ""]


def cells(row: Row) -> list[str]:
    """Return the cells of a row, in the order of the headings."""
    return [
        f"{row['work']}: {row['title']}",
        figure(row, "ours", "our"),
        figure(row, "theirs", "their"),
        row["unit"],
        number(row["ratio_median"]),
        f"{number(row['ratio_min'])} - {number(row['ratio_max'])}",
        row["prefetch"],
        number(row["window"]),
        number(row["batch"]),
        row["frame"],
        row["body"],
        number(row["sync_p50_us"]),
        number(row["loop_per_second"] / 1e6),
        row["how"],
    ]


def figure(row: Row, name: str, whose: str) -> str:
    """Return a figure, with its p99 where there is one."""
    p99 = row.get(f"{whose}_p99_us")
    return number(row[name]) + (f" (p99 {number(p99)})" if p99 is not None else "")


def number(value: float) -> str:
    """Return three digits that count, and thousands set apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table_line(cells: Iterable[str]) -> str:
    """Return one line of a table; a bar within a cell would end it."""
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
