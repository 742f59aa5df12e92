"""The order of a bench as a value: which call is due when, and what the books say in the end."""

from __future__ import annotations

from minibrokerd.load.ledger import Ledger
from minibrokerd.load.payload import payload_of
from minibrokerd.load.plan import Plan, Schedule

SECOND_NS = 1_000_000_000


def test_an_open_loop_plans_its_times_before_the_start() -> None:
    """However late a call is asked for, it was due when it was due."""
    schedule = Schedule(Plan(rate=10, count=3), start_ns=100)
    late_ns = 100 + 5 * SECOND_NS
    assert schedule.take(100) == (0, 1, 100)
    assert schedule.take(late_ns) == (1, 1, 100 + SECOND_NS // 10)
    assert schedule.take(late_ns) == (2, 1, 100 + SECOND_NS // 5)
    assert schedule.take(late_ns) is None


def test_the_messages_of_a_batch_are_due_together() -> None:
    """The next batch comes when all of its places in the rate have passed; the last may be short."""
    schedule = Schedule(Plan(rate=100, batch=50, count=60), start_ns=0)
    assert [schedule.take(0), schedule.take(0)] == [(0, 50, 0), (50, 10, SECOND_NS // 2)]


def test_an_open_loop_says_what_it_did_not_send() -> None:
    """When its time is over, the rest of the plan stays."""
    schedule = Schedule(Plan(rate=10, duration=2), start_ns=0)
    schedule.take(0)
    assert schedule.take(2 * SECOND_NS) is None
    assert schedule.unsent == 19


def test_a_closed_loop_is_due_when_it_is_asked() -> None:
    """Until the time is over; nothing was promised that could be left."""
    schedule = Schedule(Plan(duration=1), start_ns=0)
    assert schedule.take(7) == (0, 1, 7)
    assert schedule.take(SECOND_NS) is None
    assert schedule.unsent == 0


def test_the_books_tell_missing_from_duplicate() -> None:
    """In any order: a consumer may see a message before its publisher hears of it."""
    ledger = Ledger()
    ledger.see(1)
    ledger.confirm(0, 3)
    ledger.see(0)
    ledger.see(0)
    ledger.complete = True
    assert (ledger.confirmed, ledger.distinct, ledger.duplicates) == (3, 2, 1)
    assert (ledger.waiting, ledger.balanced) == (1, False)
    ledger.see(2)
    assert ledger.balanced
    ledger.see(200_000)  # stored, though its publisher was told that the outcome is not known
    assert (ledger.distinct, ledger.waiting) == (4, 0)


def test_a_body_is_read_by_the_bench_that_made_it_only() -> None:
    """Messages of others must not be ended."""
    for body_type in ("bytes", "json"):
        plan = Plan(body_type=body_type, body_size=100)
        ours, theirs = payload_of(plan), payload_of(plan)
        assert ours.read(ours.make(3, 4)) == (3, 4)
        assert ours.read(theirs.make(3, 4)) is None
        assert ours.read(b"") is None
        assert ours.read({"to": "bob"}) is None
