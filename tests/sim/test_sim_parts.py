"""What a world itself owes to be just: each of these once accused a broker, or a client, that had done nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sim_world
from checker import UNKNOWN, Checker, Handed, History, Intent, Removal
from sim_client import Work
from sim_disk import FaultyDisk
from sim_impatient import ImpatientClient
from sim_ledger import Ledger
from sim_log_books import Books
from sim_log_bounds import Bounds, Sent
from sim_loop import Life, SimulatedLoop
from sim_steps import Step
from sim_tap import Tap
from sim_world import World

from minibroker.contract import wire
from minibroker.session.session import Session
from minibrokerd.process import memory


def test_a_lost_sector_that_is_written_anew_can_be_read() -> None:
    """A file is recycled by writing zeros over it; its lost sector came along, to messages that had none."""
    disk = FaultyDisk(1, lambda text: None)
    descriptor = disk.open("/log/segment", os.O_RDWR | os.O_CREAT)
    disk.write(descriptor, b"a" * 100, 0)
    assert disk.rot.turn("segment", disk.entries["segment"], unreadable=True)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disk.read(descriptor, 100, 0)
    disk.write(descriptor, b"b" * 100, 0)
    assert disk.read(descriptor, 100, 0) == b"b" * 100
    assert not disk.rotten


class SilentAtTheEnd(World):
    """When the faults end, the connections of the clients who change their minds are silent."""

    def _heal(self) -> None:
        for client in self.clients:
            if isinstance(client, ImpatientClient) and client.link is not None:
                client.link.half_open = client.link.troubled = True
                self.checker.troubles += 1
        super()._heal()


def test_what_a_client_left_is_judged_when_its_silent_connection_was_noticed() -> None:
    """What it says meanwhile does not arrive; two signs of life later it says so on another connection."""
    assert SilentAtTheEnd(74, borders=True).run().checker.violations == []


def test_the_lease_of_what_was_received_runs_while_its_answer_is_on_its_way() -> None:
    """It may have begun when it was asked for: nobody else who has the message later has it too early."""
    world = World(
        8, borders=True
    ).run()  # with a client who receives, and whose consumers get nothing
    handed = [
        handed
        for intent in world.checker.intents.values()
        if intent.history is not None
        for handed in intent.history.handed.values()
        if handed.client.startswith("i") and handed.leased_us is not None
    ]
    assert handed
    assert all(each.leased_us < each.received_us for each in handed if each.leased_us)


def test_a_world_is_the_same_in_a_process_that_has_grown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its broker went by the resident size of the test, so a seed alone was another world than behind others."""
    digests = set()
    for pages in (1, 10**6):
        statm = tmp_path / "statm"
        statm.write_text(f"{pages} {pages}")
        monkeypatch.setattr(memory, "_STATM", statm)
        digests.add(World(20282425, borders=True).run().digest)
    assert len(digests) == 1


def test_a_slow_application_drains_for_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog behind keys that go one at a time took it longer than a world lived: all of it was called lost."""
    monkeypatch.setattr(sim_world, "STALLED_US", 20 * sim_world.SECOND_US)
    world = World(135, borders=True, capabilities=None).run()
    assert world.checker.violations == []
    assert world.loop.now_us > world.length_us + 30 * sim_world.SECOND_US, "it was not slow"


class HangsAtTheEnd(World):
    """When the faults end, the disk is in the middle of a sync that takes half a minute."""

    def _heal(self) -> None:
        self.hang_us = 30 * sim_world.SECOND_US
        self._live(self.loop.now_us + 2 * sim_world.SECOND_US, lambda: not self.hang_us)
        super()._heal()


def test_jobs_are_looked_for_when_the_disk_has_followed() -> None:
    """What was published meanwhile is not shown before it is safe: a schedule seemed to have published nothing."""
    world = HangsAtTheEnd(143, borders=True, capabilities=())
    assert world.timekeeper is not None
    assert world.run().checker.violations == []
    assert world.timekeeper.ticks


class NobodyTakes(World):
    """When the faults end, nobody comes for what is left."""

    def _heal(self) -> None:
        super()._heal()
        self.consumable = []


def test_what_nobody_gets_does_not_drain() -> None:
    """However long a world takes: what does not become less is held."""
    violations = NobodyTakes(3, borders=True, capabilities=None).run().checker.violations
    assert "I9" in {text.partition(":")[0] for text in violations}


def test_all_say_the_same_settings_of_a_queue() -> None:
    """A limit that was drawn after the administrator had said what it wants came and went with its connections."""
    world = World(31000735, borders=True, capabilities=("limit",))
    assert world.settings["q0"]["max_messages"] == 3
    declared = world.clients[0].machine.declarations.declare("q0", {}, overwrite=False)
    assert declared.settings == world.settings["q0"]


def test_a_step_may_be_done_whose_messages_a_purge_took() -> None:
    """Nobody heard its answer, and nothing is left that tells: what it acked was taken for lost."""
    world = World(15, borders=True, capabilities=("step",))
    acked, published = (Intent(body, "p0.1", "q0", 0, 0, True) for body in (b"1", b"2"))
    work = SimpleNamespace(history=SimpleNamespace(intent=acked))
    world.laws.steps.append(Step(cast("Work", work), 0, [published]))
    published.outcome = UNKNOWN
    assert not world.laws.may_have_ended(acked)
    world.checker.removals.append(Removal("q0", 1))
    assert world.laws.may_have_ended(acked)


def test_what_gave_way_is_known_behind_a_deletion_that_came_to_nothing() -> None:
    """Its queue went on as it was, with the settings that let the oldest go."""
    world = World(15, borders=True, capabilities=("limit",))
    assert world.settings["q0"]["overflow"] == "drop-oldest"
    intent = Intent(b"1", "p0.1", "q0", 0, 0, True)
    world.laws.stands("q0", world.settings["q0"], 1)
    world.laws.falls("q0")
    assert world.laws.may_have_ended(intent)
    world.laws.judge_the_end()
    assert [text.partition(":")[0] for text in world.checker.violations] == ["L2"], (
        "none is counted"
    )


@pytest.mark.parametrize(("begun_us", "found"), [(20_000, ["I5"]), (299_000, [])])
def test_what_dies_of_its_time_while_its_begin_is_on_its_way_is_nobodys_work(
    begun_us: int, found: list[str]
) -> None:
    """A client had begun a message that it was about to be told it has no more; begun earlier it was its own."""
    checker = Checker()
    checker.intend(Intent(b"1:", "p0.1", "q0", 0, 0, False, ttl_ms=300))
    handed = Handed("c0.1", 1, "q0", 1, 1, 5_000, 10_000, 0)
    assert checker.delivered(handed, (1, 0), b"1:", 10_000) is not None
    handed.leased_us = begun_us
    dead = Handed("c1.1", 2, "q0.dlq", 2, 1, 5_000, 301_000, 0)
    history = checker.delivered(dead, (1, 0), b"1:", 301_000)
    assert history is not None
    checker.early(history, dead, {1, 2}, 301_000)
    assert [text.partition(":")[0] for text in checker.violations] == found


def test_a_frame_that_is_said_to_be_answered_is_not_sent_again_on_another_connection() -> None:
    """A session without answers ends with its connection: of the frame that came again nothing was known."""
    session = Session("c", None, lambda settlements: None)
    tap = Tap(session, lambda code, text: None)
    for sequence, op in ((1, "confirm"), (2, "error")):
        header = {"parts": [], "sequence": sequence, "answered_below": sequence}
        session.window.add(wire.pack_frame(header), [], 0)
        answer = {"op": op, "sequence": sequence, "code": "queue_full", "text": ""}
        tap.came(wire.pack_frame(answer))
        session.window.answer(sequence)
        assert len(tap.confirmed) == 1
    tap.opened()
    assert not tap.confirmed


@pytest.mark.parametrize("ttl_ms", [30, 0])
def test_a_step_of_which_nothing_is_left_may_have_been_done(ttl_ms: int) -> None:
    """Its client did not hear of it, and what it published expired: the message that it acked was called lost."""
    world = World(15, borders=True, capabilities=("ttl", "step"))
    world.checker.drops_expired.add("q0")
    acked = Intent(b"1:", "p0.1", "q0", 0, 0, True)
    follower = Intent(b"c0.1-step-1:", "c0.1", "q0", 1_000, 0, False, ttl_ms=ttl_ms)
    work = Work(cast("Any", None), History(acked), cast("Any", None), world.checker)
    world.laws.steps.append(Step(work, 1_000, [follower]))
    world.laws.end(100_000)
    assert world.laws.may_have_ended(acked) == bool(ttl_ms)


@pytest.mark.parametrize("spoilt", [True, False])
def test_what_only_a_sibling_tells_of_may_be_what_the_disk_spoilt(spoilt: bool) -> None:
    """An exchange led it to two queues, and one of them had it: the id in the other was nobody's yet."""
    checker = Checker()
    checker.home_of = {1: "q0", 2: "q1"}.get
    one, other = (Intent(b"1:", "p", queue, 0, 0, False, siblings=()) for queue in ("q0", "q1"))
    one.siblings, other.siblings = (other,), (one,)
    for intent in (one, other):
        checker.intend(intent)
    handed = Handed("c", 1, "q1", 1, 1, 5_000, 10, 0)
    history = checker.delivered(handed, (2, 0), b"1:", 10)
    assert history is not None
    checker.drained(history, handed, fresh=True)
    checker.finish(lambda intent: False, {(1, 7), (2, 0)} if spoilt else {(2, 0), (2, 1)})
    assert bool(checker.violations) != spoilt


@pytest.mark.parametrize("ttl_ms", [30, 0])
def test_what_was_begun_while_no_broker_ran_may_have_died_of_its_time_to_live(ttl_ms: int) -> None:
    """It was held when the broker died, and began when its time was over: then it is nobody's work."""
    checker = Checker()
    checker.crashes, checker.crashed_us, checker.started_us = 1, 500_000, 1_000_000
    intent = Intent(b"1:", "p", "q0", 0, 0, False, ttl_ms=ttl_ms)
    history = History(intent)
    history.handed[1] = Handed("c", 1, "q0", 1, 1, 20_000, 400_000, 0, leased_us=600_000)
    dead = Handed("drain", 2, "q0.dlq", 2, 1, 30_000, 1_010_000, 1)
    checker.taken_over(history, dead, {1}, 5_000_000, 1_010_000)
    assert bool(checker.violations) != bool(ttl_ms)


@pytest.mark.parametrize(
    ("spoilt", "answered_us", "is_told"),
    [(False, 200_000, True), (True, 200_000, False), (False, 900_000, False)],
    ids=["neither", "its file is spoilt", "its retention is over"],
)
def test_what_a_read_from_a_time_on_skips_went_before_its_answer_came(
    spoilt: bool, answered_us: int, is_told: bool
) -> None:
    """A read that a crash held up: the file lost a bit, or a message its retention, after somebody had asked."""
    checker = Checker()
    books = Books(checker, Ledger(lambda: answered_us))
    books.bounds["l0"] = Bounds({"retention_ms": 500})
    sent = [
        Sent(name, "l0", "p", "", at_us, at_us // 1_000)
        for name, at_us in ((b"1", 10_000), (b"2", 20_000))
    ]
    for offset, each in enumerate(sent):
        books.intend(each)
        books.stored(each, (1, offset), each.sent_us + 1_000)
    found = [(1, sent[1].name)]
    books.read_since("l0", 5, found, 100_000, answered_us, lambda skipped: spoilt)
    assert bool(checker.violations) == is_told


@pytest.mark.parametrize("again_us", [30, 300], ids=["for less", "for more"])
def test_what_comes_to_a_process_that_is_stopped_twice_comes_in_its_order(again_us: int) -> None:
    """The bytes of a connection, say; a second stop while the first one lasts ends no earlier than that."""
    came: list[int] = []
    loop, life = SimulatedLoop(), Life()
    for at_us in (10, 60, 150):
        loop.at(at_us, life, came.append, at_us)
    life.stop_until(100)
    loop.run_until(50)
    life.stop_until(50 + again_us)
    loop.run_until(99)
    assert came == []
    loop.run_until(1_000)
    assert came == [10, 60, 150]
