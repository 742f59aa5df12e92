"""`benchmarks.counted`: its workload, without valgrind, and its table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from benchmarks import counted


class Named(counted.Meter):
    """A meter that makes no children; it only has the names of the rows that came to their ends."""

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """Note a row."""
        yield
        self.rows.append((name, 0, 0))


def test_every_row_does_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker of today knows all settings and terms; what does not come raises."""
    monkeypatch.setattr(counted, "MESSAGES", 1_600)
    meter = Named()
    counted.run_all(meter)
    names = [name for name, _, _ in meter.rows]
    assert len(names) == len(set(names))
    for name, *_ in counted.CONSUMED:
        assert f"publish, 100 a frame: {name}" in names
        assert f"deliver and ack, prefetch 32: {name}" in names


def test_frames_settle_so_many_messages_of_a_delivery() -> None:
    """A run is cut where a frame is full."""
    runs = [(7, 1, 10, 3), (7, 1, 20, 1)]
    assert list(counted.frames_of(runs, 2)) == [
        [(7, 1, 10, 2)],
        [(7, 1, 12, 1), (7, 1, 20, 1)],
    ]


def test_a_row_that_one_side_has_not_is_no_ratio() -> None:
    """An old commit knows fewer settings."""
    assert counted.lines({"old": 4.0, "both": 1_000.0}, {"both": 1_250.0, "new": 3.0}) == [
        ("both", "1,000", "1,250", "1.250"),
        ("new", "-", "3", "-"),
        ("old", "4", "-", "-"),
    ]
