"""What `minibroker top` shows, at widths from 40 to 200 columns."""

from __future__ import annotations

from typing import Any

import pytest

from minibrokerd.cli.layout import width_of
from minibrokerd.cli.top_screen import COLUMNS, Look, header, rate, table

ZEROS = {column.number: 0 for column in COLUMNS}


def look(now_ms: int, published: int) -> Look:
    """Return a look at two queues, one with a long name."""
    counts = {**ZEROS, "ready": 1_234_567, "published": published}
    overview: dict[str, Any] = {
        "version": "0.1.0",
        "phase": "ready",
        "now_unix_ms": now_ms,
        "started_unix_ms": 0,
        "queues": 2,
        "connections": 3,
        "memory_bytes": 5 << 20,
        "memory_limit_bytes": 512 << 20,
        "messages": counts,
        "counted": counts,
        "log": {"disk_bytes": 64 << 20, "free_bytes": -1, "sync_p99_ms": 1.25},
    }
    names = ("mail", "東京" * 20)
    rows = [{"name": name, "oldest_ready_ms": 61_500, "counts": counts} for name in names]
    return Look(overview, rows)


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (40, "queue ready begun in/s"),
        (60, "queue ready begun consumers in/s done/s"),
        (100, "queue ready begun held delayed consumers in/s done/s failed/s dead/s oldest"),
        (200, "queue ready begun held delayed consumers in/s done/s failed/s dead/s oldest"),
    ],
)
def test_what_matters_least_goes_first(width: int, heads: str) -> None:
    """No line is wider than the terminal; a name that is cut says so."""
    head, mail, long = table(look(3_000, 700), look(1_000, 500), width, "...")
    assert head.split() == heads.split()
    assert mail.split()[:2] == ["mail", "1,234,567"]
    assert mail.split()[heads.split().index("in/s")] == "100"
    assert ("..." in long) == (width < 200)
    above = header(look(3_000, 700), look(1_000, 500), width, "", "...")
    assert max(map(width_of, [head, mail, long, *above])) <= width
    assert "in 100/s" in "  ".join(above)


def test_a_broker_that_is_away_is_named_first() -> None:
    """Behind the version, in the first line, on a narrow terminal too."""
    assert "AWAY for 5s" in header(look(1, 1), None, 40, "for 5s", "...")[0]


def test_counters_that_begin_anew() -> None:
    """After a restart they count from zero, and no rate is negative."""
    assert rate("acked", None, {"acked": 9}, 1_000) == 0
    assert rate("acked", {"acked": 100}, {"acked": 6}, 2_000) == 3
