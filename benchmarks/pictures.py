"""Pictures of results: the same figures make the same file, and without matplotlib there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plotting() -> Any:
    """Return matplotlib's pyplot, set to write SVG; None, with a word of it, where it is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not there: pip install '.[peers]'")
        return None
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "minibroker"  # or ids in the file would be drawn anew each time
    from matplotlib import pyplot

    return pyplot


def save(pyplot: Any, figure: Any, path: Path) -> None:
    """Write a figure and let go of it."""
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
