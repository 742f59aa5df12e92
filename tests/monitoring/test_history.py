"""What the broker remembers of the last hour, with times that the test says."""

from __future__ import annotations

from minibrokerd.core.model.histogram import Histogram, quantile
from minibrokerd.monitoring.history import KEPT_S, MOST_QUEUES, History

NOTHING = (0,) * 65


def test_only_what_died_within_the_window_counts() -> None:
    """To a slice of ten seconds; and it is known since when."""
    history = History(0.0, NOTHING)
    for second in range(0, 600, 2):
        dead = {100: {"mail": 3}, 400: {"mail": 1, "photo": 2}}.get(second, {})
        history.note(float(second), dead, NOTHING)
    recent = history.within(300, 600, NOTHING)
    assert (recent.dead, recent.dead_since_s) == ({"mail": 1, "photo": 2}, 400)
    assert 300 <= recent.covers_s <= 310
    assert history.within(550, 600, NOTHING).dead == {"mail": 4, "photo": 2}
    assert history.within(300, 600, NOTHING, lambda name: name == "photo").dead == {"photo": 2}
    assert history.within(100, 600, NOTHING).dead_since_s is None


def test_a_window_is_no_longer_than_the_broker_has_run() -> None:
    """What it says of the rest is nothing."""
    history = History(1_000.0, NOTHING)
    history.note(1_004.0, {"mail": 1}, NOTHING)
    recent = history.within(300, 1_005, NOTHING)
    assert (recent.covers_s, recent.dead) == (5, {"mail": 1})


def test_it_is_bounded_in_time_and_in_names() -> None:
    """An hour is kept; of very many queues there is a sum."""
    history = History(0.0, NOTHING)
    history.note(1.0, {f"q{number}": 1 for number in range(MOST_QUEUES + 7)}, NOTHING)
    recent = history.within(60, 2, NOTHING)
    assert (len(recent.dead), recent.dead_elsewhere) == (MOST_QUEUES, 7)
    for second in range(10, 3 * round(KEPT_S), 10):
        history.note(float(second), {}, NOTHING)
    assert history.within(10 * KEPT_S, 3 * KEPT_S, NOTHING).covers_s <= KEPT_S + 20


def test_syncs_are_those_of_the_window() -> None:
    """Slow ones of an hour ago are no reason to wake somebody up."""
    syncs = Histogram()
    history = History(0.0, syncs.counts)
    syncs.note(1_000_000, 500)
    for second in range(10, 600, 10):
        history.note(float(second), {}, syncs.counts)
    syncs.note(3_000, 100)
    assert quantile(history.within(5_000, 600, syncs.counts).syncs, 0.99) > 500_000
    assert 2_048 < quantile(history.within(60, 600, syncs.counts).syncs, 0.99) <= 4_096
    assert quantile(NOTHING, 0.99) == 0
