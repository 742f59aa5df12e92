"""What a crash or damage may leave on the disk, a sample of it: `make cuts` has all."""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom
from zlib import crc32

import pytest
from cuts_campaign import Damages
from damage import outcome_of, victim
from disk_world import Recording
from recorder import Player, RecordingOps
from states import disk_of, whole
from sweep import Source, Sweep, Tally
from workloads import WORKLOADS, record

from minibrokerd.core.durable.digest import Digest
from minibrokerd.core.model.records import AckMeta, Meta
from minibrokerd.log import format as layout
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Record
from support.simulated_disk import SimulatedDisk

pytestmark = pytest.mark.timeout(300)  # one point may have very many states
SEED = int(os.environ.get("SEED") or SystemRandom().randrange(2**32))
SMALL = 4096
INDEXED = ("indexes", "bodies")
SPARE_BYTES = 2 * 1024 * 1024


def swept(sweep: Sweep, part: int, parts: int) -> Tally:
    """Return what one part of the points of a recording gave."""
    total = Tally()
    for tally in sweep.run(range(1 + part % parts, len(sweep.recording.steps) + 1, parts)):
        total.add(tally)
    return total


@pytest.mark.parametrize("name", WORKLOADS)
def test_nothing_confirmed_is_lost_in_any_state_that_a_crash_leaves(name: str) -> None:
    """C2-C13: one point of a recording, another one in each run, and of the lengths of a torn write each eighth.

    `make cuts` takes all, of many recordings.
    """
    sweep = Sweep(Source(name, SMALL, SEED), each_cut=8)
    tally = swept(sweep, SEED, len(sweep.recording.steps))
    assert not tally.faults, f"SEED={SEED}\n" + "\n".join(tally.faults)
    assert tally.states
    assert tally.chains


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_damage_is_refused_or_kept_aside_or_changes_nothing(closed: bool) -> None:
    """M1-M4, M6-M8: a sample of the flipped bits and cuts, and all that concerns whole files."""
    damages, total = Damages(SEED, closed=closed), Tally()
    some = [trial for trial in damages.trials(SEED % 400, 400) if trial.kind not in INDEXED]
    rest = [trial for trial in damages.trials(SEED % 9000, 9000) if trial.kind in INDEXED]
    for trial in (*damages.trials(0, 10**9), *some, *rest):
        total.add(damages.attempt(trial))
    assert not total.faults, f"SEED={SEED}\n" + "\n".join(total.faults)
    assert total.files > 100
    assert total.indexes > 20
    assert total.bodies > 10
    assert total.flips > 600
    assert total.refused > total.right
    assert bool(total.torn) is not closed


# -- the judge can fail: bugs that are planted in a recording -----------------------------------------


def silent(recording: Recording, *calls: str) -> Recording:
    """Return a recording in which the disk ignores these calls; what clients were told stays."""
    kept = [step.call not in calls for step in recording.steps]
    before = [sum(kept[:at]) for at in range(len(kept) + 1)]
    return replace(
        recording,
        steps=[step for step, there in zip(recording.steps, kept, strict=True) if there],
        begun=[before[at] for at in recording.begun],
        synced=[before[at] for at in recording.synced],
        starts=[(before[at], start) for at, start in recording.starts],
        freed=[(before[at], start) for at, start in recording.freed],
        told=[told._replace(step=before[told.step]) for told in recording.told],
    )


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("mixed", ["sync_range"]),  # a confirm before the sync
        ("mixed", ["sync_directory"]),  # a new segment whose name is not on the disk
        ("killed", ["sync"]),  # a rename before the sync of what it names
        ("killed", ["sync_directory"]),
    ],
)
def test_a_sync_that_is_left_out_is_found(name: str, calls: list[str]) -> None:
    """The judge is worth nothing if it takes these."""
    source = Source(name, SMALL, 1)
    recording = silent(record(name, 1, SMALL), *calls)
    total = Tally()
    for tally in Sweep(source, recording).run(range(len(recording.steps) // 2, 10**9, 7)):
        total.add(tally)
        if tally.lost:
            return
    pytest.fail(f"nothing was found without {calls}: {total}")


def test_a_message_that_is_forgotten_is_found() -> None:
    """The messages are judged, not only the batches: a client was told of one that no batch has."""
    recording = record("mixed", 1, SMALL)
    recording.told[3] = recording.told[3]._replace(id=(1, 2**19))
    last = len(recording.steps)
    (tally,) = Sweep(Source("mixed", SMALL, 1), recording).run(range(last, last + 1))
    assert tally.lost
    assert "is gone" in tally.faults[0]


def test_an_index_that_forgets_a_message_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both starts are compared: indexes that say one ack too many differ from the batches."""
    add = Digest.add

    def forgetful(digest: Digest, record: Record, says: Meta, offset: int) -> None:
        if not isinstance(says, AckMeta):
            add(digest, record, says, offset)

    monkeypatch.setattr(Digest, "add", forgetful)
    recording = record("everything", 1, SMALL)
    points = range(100, len(recording.steps) + 1, 150)
    for tally in Sweep(Source("everything", SMALL, 1), recording).run(points):
        if any("side indexes say something else" in fault for fault in tally.faults):
            return
    pytest.fail("nobody saw it")


# -- the disk in memory is like a real one ------------------------------------------------------------


def test_what_stands_in_for_a_disk_has_every_call_of_one() -> None:
    """A call that is not passed on would ask the real disk about a descriptor of the other."""
    calls = {name for name in vars(FileOps) if not name.startswith("_")}
    for stand_in in (RecordingOps, SimulatedDisk):
        assert calls - vars(stand_in).keys() == set(), stand_in


@pytest.mark.parametrize("name", ["killed", "freeing", "resized"])
def test_a_real_disk_is_given_the_same_calls(name: str, tmp_path: Path) -> None:
    """What the log does does not depend on which disk it is, and both hold the same files in the end."""

    real = record(name, 5, SMALL, Seeded(5), str(tmp_path / "d"))
    simulated = record(name, 5, SMALL)
    ours, other = bytes(tmp_path / "d"), b"/log"  # the lock has the path in it
    assert [s._replace(data=s.data.replace(ours, other)) for s in real.steps] == simulated.steps
    player = Player(SimulatedDisk())
    for step in simulated.steps:
        player.play(step)
    files = {p.name: p.read_bytes().replace(ours, other) for p in (tmp_path / "d").iterdir()}
    assert files == {file: data for file, (data, _) in whole(player.disk).items()}


class Seeded(FileOps):
    """The real disk, with random bytes from a seed, and one number for every file."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def random_bytes(self, size_bytes: int) -> bytes:
        """Return what the seed gives."""
        return self._random.randbytes(size_bytes)

    def file_number(self, descriptor: int) -> int:
        """Return what the disk in memory says."""
        return 1


# -- lengths that claim too much ----------------------------------------------------------------------


@pytest.mark.parametrize("claim", [2**16, 2**24, 2**31, 2**32 - 1])
@pytest.mark.parametrize("where", ["body", "payload", "meta", "count"])
def test_a_length_that_is_huge_allocates_nothing(claim: int, where: str) -> None:
    """M6, worse than a flipped bit: the checksums of what lies hold."""
    log = victim(SEED, closed=False)
    data = bytearray(log.state[log.last][0])
    begin, _ = log.extents[log.last][-1]
    header = layout.decode_header(bytes(data), begin)
    assert header is not None
    at = begin + layout.BATCH_HEADER_BYTES
    if where == "payload":
        data[at : at + 4] = claim.to_bytes(4, "little")
    elif where == "meta":
        data[at + 4 : at + 8] = claim.to_bytes(4, "little")
    header = replace(
        header,
        body_bytes=claim if where == "body" else header.body_bytes,
        record_count=claim if where == "count" else header.record_count,
        heads_checksum=crc32(data[at : at + layout.RECORD_HEAD_BYTES]),
    )
    data[begin:at] = layout.encode_header(header)
    disk = disk_of({**log.state, log.last: (bytes(data), len(data))})
    tracemalloc.start()
    try:
        outcome = outcome_of(disk)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.torn_offset == begin, "what does not verify is the torn end of an open log"
    assert peak_bytes < SPARE_BYTES
