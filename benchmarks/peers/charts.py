"""Charts of the result: how many times better, a bar a work and peer, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pictures import plotting, save

Row = Mapping[str, Any]
BAR_INCHES = 0.18


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Write one chart for each durability; none where matplotlib is missing."""
    pyplot = plotting()
    if pyplot is None:
        return
    for level in dict.fromkeys(row["durability"] for row in rows):
        draw_level(pyplot, level, [row for row in rows if row["durability"] == level], folder)


def draw_level(pyplot: Any, level: str, rows: Sequence[Row], folder: Path) -> None:
    """Write the chart of one durability: works from the top down, a colour for each peer."""
    works = list(dict.fromkeys(row["work"] for row in rows))
    names = list(dict.fromkeys(row["against"] for row in rows))
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + BAR_INCHES * len(works) * (len(names) + 1)))
    height = 1 / (len(names) + 1)
    for index, name in enumerate(names):
        mine = [row for row in rows if row["against"] == name]
        middles = [row["ratio_median"] for row in mine]
        axes.barh(
            [works.index(row["work"]) + index * height for row in mine],
            [middle - 1 for middle in middles],
            height,
            left=1,
            label=name,
            xerr=[
                [row["ratio_median"] - row["ratio_min"] for row in mine],
                [row["ratio_max"] - row["ratio_median"] for row in mine],
            ],
            error_kw={"elinewidth": 0.8},
        )
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([index + height * (len(names) - 1) / 2 for index in range(len(works))], works)
    axes.invert_yaxis()
    axes.set_xlabel(f"times better than the peer (right of 1: minibroker), durability {level}")
    axes.legend(fontsize="small")
    save(pyplot, figure, folder / f"peers-{level}.svg")
