"""What is told when levels change: each change once, what gets better when it stays so, dead letters together."""

from __future__ import annotations

from minibrokerd.monitoring.changes import AGAIN_S, CALM_S, MOST_QUEUES, Changes, Notice
from minibrokerd.monitoring.readings import Reading


def levels(notices: list[Notice]) -> list[tuple[str, str]]:
    return [(each.data["before"], each.data["level"]) for each in notices]


def test_a_change_is_told_once_and_worse_at_once() -> None:
    changes = Changes()
    seen = [
        levels(changes.look(at, [Reading("memory", value)], {}))
        for at, value in enumerate((50, 81, 82, 96, 96))
    ]
    assert seen == [[], [("ok", "warning")], [], [("warning", "critical")], []]


def test_better_is_told_when_it_has_held() -> None:
    """A number at its bound does not call again and again; the worst meanwhile is what it is."""
    changes = Changes()
    changes.look(0, [Reading("memory", 96)], {})
    assert not changes.look(1, [Reading("memory", 10)], {})
    assert not changes.look(2, [Reading("memory", 96)], {})
    assert not changes.look(3, [Reading("memory", 10)], {})
    assert not changes.look(4, [Reading("memory", 85)], {})
    assert not changes.look(3 + CALM_S - 0.1, [Reading("memory", 10)], {})
    assert levels(changes.look(3 + CALM_S, [Reading("memory", 10)], {})) == [
        ("critical", "warning")
    ]
    assert not changes.look(4 + CALM_S, [Reading("memory", 10)], {})
    assert levels(changes.look(4 + 2 * CALM_S, [Reading("memory", 10)], {})) == [("warning", "ok")]


def test_trouble_is_critical_and_a_missing_reading_changes_nothing() -> None:
    changes = Changes()
    (told,) = changes.look(0, [Reading("disk-free", 90, trouble="it is full")], {})
    assert (told.data["level"], told.data["trouble"]) == ("critical", "it is full")
    assert not changes.look(1, [], {})


def test_dead_letters_of_a_queue_are_told_at_once_then_summed_up() -> None:
    changes = Changes()
    (first,) = changes.look(0, [], {"a": 2})
    assert (first.data["messages"], first.data["queues"]) == (2, {"a": 2})
    assert not changes.look(1, [], {"a": 3})
    (other,) = changes.look(2, [], {"a": 1, "b": 1})
    assert other.data["queues"] == {"b": 1}
    (later,) = changes.look(AGAIN_S, [], {})
    assert later.data["queues"] == {"a": 4}
    assert not changes.look(3 * AGAIN_S, [], {})


def test_ten_thousand_queues_are_one_notice() -> None:
    (told,) = Changes().look(0, [], {f"q{n}": 1 + n for n in range(10_000)})
    assert (len(told.data["queues"]), told.data["more_queues"]) == (
        MOST_QUEUES,
        10_000 - MOST_QUEUES,
    )
    assert told.data["messages"] == sum(range(10_001))
    assert "q9999" in told.data["queues"]
