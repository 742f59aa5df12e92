"""All trials of a log at rest: each damage with a name, by which it can be tried again alone."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

from damage import SEGMENT_BYTES, Victim, outcome_of, try_cut, try_flip
from damage_indexed import Indexed, index_trials
from judge import Violation
from states import State, disk_of

from minibrokerd.log.failures import DamagedLog, NotWritable
from support.simulated_disk import SimulatedDisk

SECTOR_BYTES: Final = 512


class Trial(NamedTuple):
    """One damage: its kind and name, and what tries it and returns refused, torn or right."""

    kind: str
    name: str
    run: Callable[[], str]


def trials(victim: Victim, stranger: Victim, part: int = 0, parts: int = 1) -> Iterator[Trial]:
    """Yield one part in so many of the flips and cuts of a log, and in part 0 all that concerns whole files."""
    bits = [(name, bit) for name in (*victim.segments, "state") for bit in _bits(victim, name)]
    for name, bit in bits[part::parts]:
        yield Trial("flips", f"flip:{name}:{bit}", partial(try_flip, victim, name, bit))
    places = [(name, at) for name in victim.segments for at in range(1, SEGMENT_BYTES)]
    for name, at in places[part::parts]:
        for shortened in (False, True):
            what = "end" if shortened else "zeros"
            run = partial(try_cut, victim, name, at, shortened=shortened)
            yield Trial("cuts", f"{what}:{name}:{at}", run)
    yield from _indexed(victim, stranger, part, parts)
    if part == 0:
        whole = (unreadable(victim), damaged_files(victim, stranger), strangers(victim))
        for label, trial in chain(*whole):
            yield Trial("files", label.replace(" ", ":"), trial)


def _indexed(victim: Victim, stranger: Victim, part: int, parts: int) -> Iterator[Trial]:
    """Yield one part of what can happen to the indexes, and to the bodies of segments that have one."""
    indexed = Indexed(victim)
    bits = [(name, bit) for name in indexed.indexes for bit in _bits(victim, name)]
    for name, bit in bits[part::parts]:
        yield Trial("indexes", f"index:{name}:{bit}", partial(indexed.flip_index, name, bit))
        if bit % 8 == part % 8:
            for shortened in (False, True):
                what = "end" if shortened else "zeros"
                run = partial(indexed.cut_index, name, bit // 8, shortened=shortened)
                yield Trial("indexes", f"index-{what}:{name}:{bit // 8}", run)
    bits = [(name, bit) for name in indexed.sealed for bit in _bits(victim, name)]
    for name, bit in bits[part::parts]:
        yield Trial("bodies", f"body:{name}:{bit}", partial(indexed.flip_body, name, bit))
    if part == 0:
        for label, trial in index_trials(indexed, stranger):
            yield Trial("indexes", label.replace(" ", ":"), trial)


def _bits(victim: Victim, name: str) -> range:
    return range(len(victim.state[name][0]) * 8)


class Unreadable(SimulatedDisk):
    """A disk with one sector of one file that cannot be read."""

    def __init__(self, whole_disk: SimulatedDisk, name: str, sector: int) -> None:
        super().__init__(whole_disk.entries)
        self._bad = self.entries[name]
        self._sector = sector

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Read, or fail if the sector is part of it."""
        at = self._sector * SECTOR_BYTES
        if self._open[descriptor] is self._bad and offset <= at < offset + size_bytes:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(descriptor, size_bytes, offset)


def unreadable(victim: Victim) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield (name, trial) for every sector of every segment that cannot be read: a refusal with the path."""
    for name in victim.segments:
        for sector in range(SEGMENT_BYTES // SECTOR_BYTES):

            def trial(name: str = name, sector: int = sector) -> str:
                outcome = outcome_of(Unreadable(disk_of(victim.state), name, sector))
                refusal = outcome.refusal
                if refusal is None and outcome.contents == victim.contents:
                    return "right"  # that sector is not read: nothing was ever written to it
                if not isinstance(refusal, NotWritable) or name not in refusal.path:
                    raise Violation("wrong", f"sector {sector} of {name} is unreadable: {refusal}")
                return "refused"

            yield f"EIO {name}:{sector}", trial


def damaged_files(victim: Victim, stranger: Victim) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield (name, trial) for each segment missing, emptied, renamed, swapped, doubled, or of another log."""
    names = victim.segments
    for index, name in enumerate(names):
        other = names[index - 1]
        number, generation = name[8:18], name[19:24]
        made: dict[str, State] = {
            "missing": {key: file for key, file in victim.state.items() if key != name},
            "empty": {**victim.state, name: (b"", 0)},
            "zeros": {**victim.state, name: (bytes(SEGMENT_BYTES), SEGMENT_BYTES)},
            "foreign": {**victim.state, name: stranger.state[stranger.segments[index]]},
            "doubled": {**victim.state, name: victim.state[other]},
            "swapped": {**victim.state, name: victim.state[other], other: victim.state[name]},
            "generation": _renamed(
                victim.state, name, f"segment-{number}-{int(generation) + 7:05d}.log"
            ),
            "number": _renamed(
                victim.state, name, f"segment-{int(number) + 50:010d}-{generation}.log"
            ),
            "doubled higher": {
                **victim.state,
                f"segment-{number}-{int(generation) + 1:05d}.log": victim.state[name],
            },
        }
        for what, state in made.items():
            yield f"{what} {name}", lambda state=state: _must_refuse(victim, state)  # type: ignore[misc]


def _renamed(state: State, old: str, new: str) -> State:
    return {**{name: file for name, file in state.items() if name != old}, new: state[old]}


def _must_refuse(victim: Victim, state: State) -> str:
    outcome = outcome_of(disk_of(state))
    if not isinstance(outcome.refusal, DamagedLog):
        raise Violation("wrong", f"it started, with {len(outcome.contents)} batches")
    return "refused"


def strangers(victim: Victim) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield (name, trial) for files that are not the log's, and for leftovers of ours: they change nothing."""
    some = bytes(range(256)) * 16
    for name in (
        "core.123", "segment-1.log", "segment-0000000001-00001.log.bak", "notes.txt",
        "next.tmp", "reserve.tmp", "key.tmp", "reserve-9.log", "torn-1-96.bin", "state.old",
    ):  # fmt: skip
        for data in (b"", some, victim.state[victim.segments[0]][0]):

            def trial(name: str = name, data: bytes = data) -> str:
                disk = disk_of({**victim.state, name: (data, len(data))})
                outcome = outcome_of(disk)
                if outcome.refusal or outcome.contents != victim.contents:
                    raise Violation("wrong", f"{name} of {len(data)} bytes: {outcome.refusal}")
                ours = name.endswith(".tmp") or name.startswith("reserve-")
                if not ours and bytes(disk.entries[name].data) != data:
                    raise Violation("wrong", f"{name} is not ours, and was touched")
                return "right"

            yield f"stranger {name} of {len(data)} bytes", trial
