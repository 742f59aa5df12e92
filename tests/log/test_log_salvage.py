"""Damage of every kind: a check finds and locates it, a salvage loses nothing that was not touched."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from damaged_world import (
    Id,
    bodies,
    carried,
    foreign_story,
    origin_of,
    places,
    segments,
    start_of,
    story,
    touched,
    write,
)

from minibrokerd.core.model.records import TYPE_OF, QueueMeta
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import NotWritable
from minibrokerd.log.fileops import FileOps
from minibrokerd.rescue.checking import Checked, check
from minibrokerd.rescue.pieces import pieces
from minibrokerd.rescue.pinning import Usage
from minibrokerd.rescue.salvage import Salvaged, salvage

FLIPS = int(os.environ.get("FLIPS", "60"))  # of each log; EVERY_BIT=1: all, half an hour
SEED = int(os.environ.get("SEED", "1"))
EVERY_BIT = bool(os.environ.get("EVERY_BIT"))
PATIENCE_S = 300


@pytest.fixture(params=["closed", "open"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A data directory with the story in one segment, closed or as after a crash."""
    path = tmp_path / "log"
    asyncio.run(write(path, story(), segment_bytes=16_384, closed=request.param == "closed"))
    return path


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A closed data directory with the story in at least three segments."""
    path = tmp_path / "log"
    asyncio.run(write(path, story(fillers=12), segment_bytes=4_096, closed=True))
    assert len(segments(path)) >= 3
    return path


class Unsynced(FileOps):
    """Leaves the syncs out: these tests read what is in the page cache."""

    def sync(self, descriptor: int) -> None:
        """Do nothing."""

    def sync_directory(self, descriptor: int) -> None:
        """Do nothing."""


def checked(path: Path) -> Checked:
    """Check a data directory."""
    return check(DataDirectory(path, FileOps()), FileOps())


def salvaged(path: Path) -> tuple[Salvaged, dict[str, dict[Id, bytes]]]:
    """Salvage a data directory; return the report and the messages of the result, which must be whole."""
    out = path.with_name("new")
    report = salvage(path, out, Unsynced())
    again = checked(out)
    assert (again.whole, again.clean, again.torn, again.foreign) == (True, True, [], [])
    found = bodies(out)
    shutil.rmtree(out)
    return report, found


def everything(found: dict[str, dict[Id, bytes]]) -> dict[Id, bytes]:
    """Return the messages of all queues by id."""
    merged: dict[Id, bytes] = {}
    for messages in found.values():
        assert not merged.keys() & messages.keys(), "a message in two queues"
        merged |= messages
    return merged


@pytest.mark.timeout(0 if EVERY_BIT or FLIPS > 60 else PATIENCE_S)
def test_every_flipped_bit_is_found_and_costs_what_it_touched(log: Path) -> None:
    """Reliability M1 to M3: located to the batch, and each message whose record is not touched is there again."""
    (file,) = segments(log)
    data = file.read_bytes()
    whole = list(pieces(data, origin_of(data)))
    before = everything(bodies(log))
    end = whole[-1].end
    bits = range(8 * end) if EVERY_BIT else random.Random(SEED).sample(range(8 * end), FLIPS)
    for bit in bits:
        at = bit // 8
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit % 8
        file.write_bytes(flipped)
        found = checked(log)
        (damage,) = [*found.damages, *found.torn]
        assert damage.start <= at < damage.end, f"bit {bit}"
        assert found.whole == (damage.torn and at >= whole[-1].start), f"bit {bit}"
        _, after = salvaged(log)
        kept, lost = everything(after), touched(whole, at)
        assert kept.keys() >= before.keys() - lost, (
            f"bit {bit}: {before.keys() - lost - kept.keys()}"
        )
        assert all(kept[each] == before[each] for each in before.keys() & kept.keys()), f"bit {bit}"


@pytest.mark.timeout(0 if "CASES" in os.environ else PATIENCE_S)
def test_whatever_is_spoilt_the_rest_is_served(chain: Path) -> None:
    """Reliability M2: sectors zeroed, overwritten or swapped, files cut, several at once.

    Nothing that was never published appears, no message changes, and what is left can be started.
    """
    chance = random.Random(SEED)
    content = {path: path.read_bytes() for path in segments(chain)}
    published = {**everything(bodies(chain)), (1, 0): b"one"}
    for case in range(int(os.environ.get("CASES", "25"))):
        for path, data in content.items():
            path.write_bytes(data)
        for _ in range(chance.randrange(1, 4)):
            _spoil(chance, segments(chain))
        report, after = salvaged(chain)
        kept = everything(after)
        assert kept.items() <= published.items(), f"SEED={SEED}, case {case}"
        assert sum(risk.live for risk in report.risks) == len(kept), f"SEED={SEED}, case {case}"


def _spoil(chance: random.Random, files: list[Path]) -> None:
    path = chance.choice(files)
    data = bytearray(path.read_bytes())
    at, size = chance.randrange(len(data)), chance.choice((1, 8, 88, 512, 4096))
    with_what = chance.randrange(4)
    if with_what == 0:
        data[at : at + size] = bytes(min(size, len(data) - at))
    elif with_what == 1:
        data[at : at + size] = chance.randbytes(min(size, len(data) - at))
    elif with_what == 2:  # a sector that was written to another place
        other = chance.randrange(0, len(data), 512)
        data[at // 512 * 512 : at // 512 * 512 + 512] = data[other : other + 512]
    else:
        del data[max(at, 1) :]
    path.write_bytes(data)


def test_a_whole_log_is_salvaged_as_it_is(log: Path) -> None:
    """Nothing is added and nothing dropped, and the original is not touched."""
    content = {path: path.read_bytes() for path in log.iterdir()}
    report, after = salvaged(log)
    assert (after, report.dropped_records) == (bodies(log), 0)
    assert {path: path.read_bytes() for path in log.iterdir()} == content


@pytest.mark.parametrize("index", [0, 1, -1])
def test_a_missing_segment_is_named_and_the_others_are_kept(chain: Path, index: int) -> None:
    """Reliability M4: also the newest, of which only the state file knows."""
    before = everything(bodies(chain))
    gone = segments(chain)[index]
    number = int(gone.name[8:18])
    data = gone.read_bytes()
    gone.unlink()
    found = checked(chain)
    assert not found.whole
    assert number in found.survey.missing
    report, after = salvaged(chain)
    lost = {
        each
        for place in places(list(pieces(data, origin_of(data))))
        for each in carried(place.record)
    }
    assert everything(after).keys() >= before.keys() - lost
    assert report.epoch > found.survey.epoch


def test_swapped_segments_are_told_and_put_in_order(chain: Path) -> None:
    """Their headers say what they are, so nothing is lost."""
    before = bodies(chain)
    first, second = segments(chain)[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    found = checked(chain)
    assert not found.whole
    assert [file.misnamed for file in found.survey.order][:2] == [True, True]
    assert salvaged(chain)[1] == before


def test_a_segment_of_another_log_is_left_out(chain: Path, tmp_path: Path) -> None:
    """Reliability M4: a stranger's messages never get in."""
    other = tmp_path / "other"
    asyncio.run(write(other, foreign_story(), segment_bytes=4_096, closed=True))
    victim = segments(chain)[1]
    before = everything(bodies(chain))
    shutil.copy(segments(other)[0], victim)
    found = checked(chain)
    assert (found.whole, found.survey.strangers) == (False, [victim.name])
    after = everything(salvaged(chain)[1])
    assert after.items() <= {**before, (1, 0): b"one"}.items()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_file_keeps_what_stands_before_the_cut(log: Path, share: float) -> None:
    """A torn append where a crash can have left it, else damage; what is whole before it stays."""
    (file,) = segments(log)
    data = file.read_bytes()
    whole = list(pieces(data, origin_of(data)))
    cut = int(whole[-1].end * share)
    cut -= 16 if any(piece.end in range(cut - 8, cut + 1) for piece in whole) else 0  # in one
    file.write_bytes(data[:cut])
    found = checked(log)
    closed = (log / "state").read_text().startswith("clean")
    assert found.whole != closed
    assert len(found.survey.damages) == 1
    before = {
        each
        for place in places([piece for piece in whole if piece.end <= cut])
        for each in carried(place.record)
    }
    ended = {(1, 0)}  # "one" was acked
    assert everything(salvaged(log)[1]).keys() >= before - ended


def test_ids_and_numbers_go_on_above_all_that_was_lost(log: Path) -> None:
    """Whatever stood in the damaged bytes, no id, no queue number and no epoch is ever given twice."""
    (file,) = segments(log)
    data = bytearray(file.read_bytes())
    whole = list(pieces(bytes(data), origin_of(bytes(data))))
    used = start_of(log)
    data[whole[2].start : whole[-2].start] = bytes(whole[-2].start - whole[2].start)
    file.write_bytes(data)
    salvage(log, log.with_name("new"), FileOps())
    after = start_of(log.with_name("new"))
    assert after.epoch > used.epoch
    assert after.next_queue_number >= used.next_queue_number
    for number, sequence in after.sequences.items():
        assert sequence >= used.sequences[number]


def test_a_queue_whose_name_is_lost_gets_one(log: Path) -> None:
    """Its messages are kept; a new dead-letter queue is found by the name of its source."""
    (file,) = segments(log)
    data = bytearray(file.read_bytes())
    whole = list(pieces(bytes(data), origin_of(bytes(data))))
    before = bodies(log)
    named = [place for place in places(whole) if place.record.type == TYPE_OF[QueueMeta]]
    for place in named:
        data[place.end - 1] ^= 1
    file.write_bytes(data)
    _, after = salvaged(log)
    assert everything(after) == everything(before)
    assert set(after) == {"salvaged-1", "salvaged-1.dlq", "salvaged-2"}
    assert after["salvaged-1.dlq"] == before["emails.dlq"]


@pytest.mark.parametrize("where", ["inside", "full", "file", "half"])
def test_a_target_that_is_taken_is_refused(log: Path, tmp_path: Path, where: str) -> None:
    """Never anything is overwritten, and never the damaged directory itself."""
    out = {"inside": log / "new"}.get(where, tmp_path / "new")
    if where == "full":
        out.mkdir()
        (out / "mine").touch()
    elif where == "file":
        out.touch()
    elif where == "half":
        (tmp_path / "new.salvaging").mkdir()
    listed = sorted(tmp_path.rglob("*"))
    with pytest.raises(NotWritable, match=r"inside|not empty|cut short"):
        salvage(log, out, FileOps())
    assert sorted(tmp_path.rglob("*")) == listed


def test_each_segment_says_what_lives_in_it(chain: Path) -> None:
    """Live messages by segment add up to all, and each pin is something that stands in its segment."""
    usage = Usage()
    checked_chain = check(DataDirectory(chain, FileOps()), FileOps(), usage.take)
    rows = usage.segments()
    live = everything(bodies(chain))
    assert [row.number for row in rows] == list(range(1, len(checked_chain.survey.order) + 1))
    assert sum(row.live_messages for row in rows) == len(live)
    # Settings and outcomes of frames live, too.
    assert 0 < sum(row.live_bytes for row in rows) < usage.live_bytes()
    first = rows[0].pin
    assert first is not None
    assert (first.what, first.of) == ("message 1-1", "emails.dlq")
    for before, row in pairwise(rows):
        assert row.pin is not None
        assert before.upto < row.pin.batch <= row.upto
