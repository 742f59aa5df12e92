"""The counting of the demo: it must see a loss and a duplicate, or its last line proves nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from database import Analytics
from journal import Journal
from ledger import Job, Summary, World, mails_delivered, median, running, served
from photo import make_avatar, make_photo

ANSWERED = [1, 2, 3]


def world(mails: dict[int, int], avatars: dict[int, int], analytics: dict[int, int]) -> World:
    return World(Counter(mails), Counter(avatars), Counter(analytics))


def everything() -> dict[int, int]:
    return dict.fromkeys(ANSWERED, 1)


def entry(event: str, user_id: int, pid: int = 7, at: float = 0.0) -> dict[str, Any]:
    return {"event": event, "queue": "mails", "user_id": user_id, "pid": pid, "at": at}


def test_nothing_is_lost_when_everybody_has_everything() -> None:
    """One of each for each answered signup: no loss, no duplicate."""
    complete = world(everything(), everything(), everything())
    assert (complete.lost(ANSWERED), complete.duplicates()) == ([], 0)


@pytest.mark.parametrize("thing", ["mails", "avatars", "analytics"])
def test_each_missing_thing_is_a_loss(thing: str) -> None:
    """An answered signup without its mail, avatar or analytics row is lost, and named."""
    things = {name: everything() for name in ("mails", "avatars", "analytics")}
    del things[thing][2]
    (loss,) = world(**things).lost(ANSWERED)
    assert loss == f"{thing.removesuffix('s') if thing != 'analytics' else thing} of user 2"


def test_a_signup_that_was_not_answered_cannot_be_lost() -> None:
    """Users that were told nothing are promised nothing; what they got all the same is no fault."""
    assert world(everything(), everything(), everything()).lost([1]) == []


def test_duplicates_are_what_came_beyond_the_first() -> None:
    """Three mails to one user are two duplicates."""
    assert world({1: 3, 2: 1, 3: 1}, everything(), everything()).duplicates() == 2


def test_served_counts_users_and_not_things() -> None:
    """mails=20 in the last line means 20 users, however many mails."""
    assert served(Counter({1: 3, 2: 1, 9: 1}), ANSWERED) == 2


def test_a_refused_mail_is_not_a_delivered_one() -> None:
    """Only what the mail server took counts."""
    record: list[dict[str, Any]] = [
        {"event": "refused", "address": "a@b"},
        {"event": "delivered", "user_id": 4},
    ]
    assert mails_delivered(record) == Counter({4: 1})


def test_running_jobs_are_those_without_an_end() -> None:
    """A killed worker leaves a start without an end; done and failed ones are not in hand."""
    journal = [
        {"event": "ready", "queue": "mails", "pid": 7},
        entry("started", 1),
        entry("started", 2, at=5.0),
        entry("done", 1),
        entry("started", 3),
        entry("failed", 3),
    ]
    assert running(journal) == {Job(7, "mails", 2): 5.0}


def test_a_second_attempt_runs_although_the_first_has_failed() -> None:
    """The same worker may get the same message again."""
    journal = [entry("started", 1), entry("failed", 1), entry("started", 1, at=2.0)]
    assert running(journal) == {Job(7, "mails", 1): 2.0}


def test_two_workers_can_hold_the_same_user() -> None:
    """After a lease has ended, the old worker may still be at it."""
    assert len(running([entry("started", 1, pid=7), entry("started", 1, pid=8)])) == 2


@pytest.mark.parametrize(
    ("values", "p50"), [([5.0], 5.0), ([1.0, 9.0], 9.0), ([3.0, 1.0, 2.0], 2.0)]
)
def test_p50_is_the_upper_median(values: list[float], p50: float) -> None:
    """It never flatters: of two values it is the larger."""
    assert median(values) == p50


def test_the_world_is_read_from_record_files_and_rows(tmp_path: Path) -> None:
    """A half-made avatar does not count, a mail counts as often as it was delivered."""
    record = Journal(tmp_path / "mail.jsonl")
    record.write(event="delivered", user_id=1, to="a@b")
    record.write(event="delivered", user_id=1, to="a@b")
    analytics = Analytics(tmp_path)
    analytics.create()
    analytics.count_signup(1)
    analytics.count_signup(1)
    photo = tmp_path / "photo.jpg"
    make_photo(photo, (640, 480))
    make_avatar(photo, tmp_path / "avatars", 1)
    make_avatar(photo, tmp_path / "avatars", 1)
    make_avatar(photo, tmp_path / "avatars", 2).unlink()
    seen = World.read(tmp_path)
    assert (seen.mails, seen.avatars, seen.analytics) == (
        Counter({1: 2}),
        Counter({1: 1}),
        Counter({1: 1}),
    )
    assert seen.lost([1, 2]) == ["mail of user 2", "avatar of user 2", "analytics of user 2"]


def test_the_last_line_names_every_figure_in_order() -> None:
    """Other tools read this line; its fields and their order stay."""
    assert str(Summary(20, 2570, 13, 20, 20, 1, 1, 1, 1, 0, 1)) == (
        "demo: signups=20 request_ms=2570 queued_ms=13 mails=20 avatars=20 dead_letters=1 "
        "redriven=1 worker_kills=1 broker_kills=1 lost=0 duplicates=1"
    )
