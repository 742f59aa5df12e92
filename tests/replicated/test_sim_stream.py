"""The simulated stream does what a replicated one was seen to do, at its worst."""

from __future__ import annotations

from random import Random

import pytest
from sim_stream import NO_FAULTS, SERVERS, Connection, Faults, SimStream
from sim_turns import run, turn

from minibrokerd.replicated.stream import Acked, EntriesGone, Entry, Refused, StreamAway, Unknown


def led(faults: Faults = NO_FAULTS, seed: int = 1) -> tuple[SimStream, Connection]:
    """Return a stream, and a connection to it."""
    stream = SimStream(Random(seed), faults)
    return stream, stream.connect(turn)


def test_an_append_behind_the_last_entry_is_acked_and_any_other_refused() -> None:
    stream, one = led()
    assert run(stream, one.append([b"a"], 0)) == Acked(1)
    assert run(stream, one.append([b"b", b"c"], 1)) == Acked(3)
    for expected in (0, 2, 4):
        assert run(stream, one.append([b"x"], expected)) == Refused(3)
    assert stream.entries == [Entry(1, False, b"a"), Entry(2, False, b"b"), Entry(3, False, b"c")]


def test_a_refusal_names_what_is_proposed_and_not_committed_yet() -> None:
    stream, one = led(Faults(slow=1))
    stream.send([b"a"], 0, one.number, is_epoch=False)
    for _ in range(4):
        stream.tick()
    assert (stream.last, stream.proposed) == (0, 1)
    assert run(stream, one.append([b"b"], 0)) == Refused(1)


def test_an_append_without_an_answer_may_be_stored_later() -> None:
    stream, one = led(Faults(slow=1))
    assert run(stream, one.append([b"a"], 0)) == Unknown("timed out")
    assert stream.last == 0
    for _ in range(60):
        stream.tick()
    assert [entry.body for entry in stream.entries] == [b"a"]


def test_a_late_message_of_a_chain_fits_behind_whatever_came_before_it() -> None:
    """Numbers are compared: so a chain of two in flight is no fence."""
    stream, one = led(Faults(late=1))
    stream.send([b"second of the old leader"], 1, one.number, is_epoch=False)
    stream.faults = NO_FAULTS
    claim = run(stream, stream.connect(turn).append([b"of the new one"], 0, is_epoch=True))
    assert claim == Acked(1)
    for _ in range(60):
        stream.tick()
    assert [entry.body for entry in stream.entries] == [
        b"of the new one",
        b"second of the old leader",
    ]


def test_while_nobody_leads_nobody_takes_an_append() -> None:
    stream, one = led()
    stream._lose_leader()
    outcome = run(stream, one.append([b"a"], 0))
    assert outcome == Unknown("no responders", is_led=False)
    for _ in range(60):
        stream.tick()
    assert (stream.entries, bool(stream.leader)) == ([], True)


def test_an_append_of_several_parts_outlives_no_leader_in_part() -> None:
    for seed in range(20):
        stream, one = led(Faults(slow=1), seed)
        stream.send([b"a", b"b"], 0, one.number, is_epoch=False)
        for _ in range(4):
            stream.tick()
        stream._lose_leader()
        for _ in range(60):
            stream.tick()
        assert len(stream.entries) in (0, 2)


def test_of_what_was_proposed_a_new_leader_may_have_some() -> None:
    kept = set()
    for seed in range(20):
        stream, one = led(Faults(slow=1), seed)
        stream.send([b"a"], 0, one.number, is_epoch=False)
        for _ in range(4):
            stream.tick()
        stream._lose_leader()
        for _ in range(60):
            stream.tick()
        kept.add(len(stream.entries))
    assert kept == {0, 1}


def test_a_leader_that_is_cut_off_acks_nothing_and_answers_questions() -> None:
    stream, one = led()
    assert run(stream, one.append([b"a"], 0)) == Acked(1)
    stream.cut, stream._cut_ticks, stream.cut_off = stream.leader, 200, {one.number}
    stream._lose_leader()
    for _ in range(60):
        stream.tick()
    other = stream.connect(turn)
    assert run(stream, other.append([b"b"], 1)) == Acked(2)
    info = run(stream, one.info())
    assert (info.leader, info.last) == (stream.cut, 1), "it believes that it leads"
    assert run(stream, one.read(1, 100)) == [Entry(1, False, b"a")]
    assert run(stream, one.append([b"x"], 1)) == Unknown("timed out")
    for _ in range(200):
        stream.tick()
    assert [entry.body for entry in stream.entries] == [b"a", b"b"], "what it took is dropped"
    assert not stream.cut


def test_a_server_that_is_behind_is_believed_by_nobody_who_looks() -> None:
    stream, one = led()
    for number in range(5):
        run(stream, one.append([b"%d" % number], number))
    late = next(name for name in SERVERS if name != stream.leader)
    stream.has[late], stream.behind[late] = 2, 1_000
    ends = {len(run(stream, one.read(2, 100))) for _ in range(100)}
    assert ends == {1, 2, 3, 4}, "a part of what there is, from whichever server"
    assert {run(stream, one.info()).last for _ in range(50)} == {2, 5}
    assert run(stream, one.info()).behind == (late,)
    assert [] in [run(stream, one.read(4, 100)) for _ in range(50)]


def test_a_purge_beyond_the_end_empties_the_stream_and_moves_its_numbers() -> None:
    stream, one = led()
    for number in range(4):
        run(stream, one.append([b"x"], number))
    run(stream, one.purge(3))
    assert [entry.sequence for entry in stream.entries] == [3, 4]
    with pytest.raises(EntriesGone) as gone:
        run(stream, one.read(1, 100))
    assert (gone.value.wanted, gone.value.first) == (1, 3)
    run(stream, one.purge(5))
    assert (stream.entries, stream.last, stream.jumps) == ([], 4, 0), "up to the end is no jump"
    run(stream, one.purge(100))
    assert (stream.last, stream.jumps) == (99, 1)
    assert run(stream, one.append([b"y"], 4)) == Refused(99)


def test_a_leader_steps_down_in_good_order() -> None:
    stream, one = led(Faults(slow=1))
    stream.send([b"a"], 0, one.number, is_epoch=False)
    for _ in range(4):
        stream.tick()
    run(stream, one.step_down("s3"))
    assert (stream.leader, [entry.body for entry in stream.entries]) == ("s3", [b"a"])


def test_a_question_may_have_no_answer() -> None:
    stream, one = led(Faults(away=1, lost=1))
    for ask in (one.info(), one.read(1, 1), one.purge(1)):
        with pytest.raises(StreamAway):
            run(stream, ask)  # type: ignore[arg-type]
