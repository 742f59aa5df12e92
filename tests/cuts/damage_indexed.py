"""Damage to what a start by side indexes does not read: the indexes themselves, and the bodies of sealed segments.

A damaged index is ignored from there on: the same messages, never a refusal. A damaged body never leaves the
broker: its frame is set aside (counted, recorded, its bytes kept beside the log) and those around it are
delivered, or the start is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from damage import SEGMENT_BYTES, Victim, flipped
from disk_world import Id, StraightLog
from judge import Violation, start
from portraits import Portrait, Recovered, difference
from states import State, disk_of, whole

from minibrokerd.core.model.records import DamagedMeta, decode
from minibrokerd.log.failures import DamagedLog
from minibrokerd.log.seam import Digested
from support.simulated_disk import SimulatedDisk


def recovered(disk: SimulatedDisk, *, digests: bool = True) -> tuple[Recovered, bool]:
    """Return a broker out of these files, and whether a side index stood for some batches.

    Raises:
        DamagedLog: the start is refused.
    """
    log = StraightLog(disk, SEGMENT_BYTES, digests=digests)
    parts = list(log.recover())
    try:
        return Recovered(log, parts), any(isinstance(part, Digested) for part in parts)
    except BaseException:
        log.abandon()
        raise


class Indexed:
    """A log at rest, and what a start that reads no index makes of it."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim
        self.indexes = sorted(name for name in victim.state if name.endswith(".index"))
        world, _ = recovered(disk_of(victim.state), digests=False)
        self.portrait = world.portrait()
        world, by_index = recovered(disk_of(victim.state))
        assert by_index, "without a whole index there is nothing to damage"
        assert world.portrait() == self.portrait

    @property
    def sealed(self) -> list[str]:
        """The sealed segments that have an index."""
        names = [f"{name.removesuffix('.index')}.log" for name in self.indexes]
        return [name for name in names if name != self.victim.last and name in self.victim.state]

    # -- the indexes ------------------------------------------------------------------------------

    def try_index(self, name: str, data: bytes | None) -> str:
        """Put these bytes in the place of an index (None: it is missing): nothing may be different.

        Raises:
            Violation: a start is refused, or has other messages.
        """
        state = {key: file for key, file in self.victim.state.items() if key != name}
        if data is not None:
            state[name] = data, len(data)
        return self.same(state)

    def same(self, state: State) -> str:
        """Start by indexes: the messages must be those of the undamaged log.

        Raises:
            Violation: it is refused, or has others.
        """
        try:
            world, _ = recovered(disk_of(state))
        except Exception as error:
            raise Violation(
                "refused", f"for an index that can be ignored: {type(error).__name__}: {error}"
            ) from error
        if what := difference(self.portrait, world.portrait()):
            raise Violation("wrong", f"a damaged index changes what is there: {what}")
        return "right"

    def flip_index(self, name: str, bit: int) -> str:
        """Turn one bit of an index over."""
        changed = bytearray(self.victim.state[name][0])
        changed[bit // 8] ^= 1 << bit % 8
        return self.try_index(name, bytes(changed))

    def cut_index(self, name: str, offset: int, *, shortened: bool) -> str:
        """End an index at a byte, with zeros behind it or with the end of the file."""
        data = self.victim.state[name][0]
        return self.try_index(
            name, data[:offset] if shortened else data[:offset] + bytes(len(data) - offset)
        )

    # -- the bodies -------------------------------------------------------------------------------

    def flip_body(self, name: str, bit: int) -> str:
        """Turn one bit of a sealed segment over, of which a start reads the index.

        Raises:
            Violation: a wrong body comes out, or a message is gone without a record, a count and its bytes.
        """
        disk = flipped(self.victim, name, bit)
        try:
            world, _ = recovered(disk)
        except DamagedLog:
            return "refused"
        except Exception as error:
            raise Violation("wrong", f"{type(error).__name__}: {error}") from error
        found = world.portrait()
        if found == self.portrait:
            return "right"  # nothing that lives stands there
        self._judge_gone(found, world, disk)
        return "set_aside"

    def _judge_gone(self, found: Portrait, world: Recovered, disk: SimulatedDisk) -> None:
        gone = {id for _, id in self.portrait.described.keys() - found.described.keys()}
        rest = Portrait(
            self.portrait.queues,
            self.portrait.outcomes,
            {key: said for key, said in self.portrait.described.items() if key[1] not in gone},
            {
                queue: [each for each in delivered if each.id not in gone]
                for queue, delivered in self.portrait.delivered.items()
            },
            len(gone),
        )
        if what := difference(rest, found):
            raise Violation("wrong", f"{len(gone)} messages were set aside, and also: {what}")
        recorded, files = _set_aside(world)
        if recorded != gone:
            raise Violation("lost", f"{gone ^ recorded} were set aside, or recorded, and not both")
        kept = {name for name in disk.entries if name.startswith("damaged-")}
        if not files or kept != files or not all(disk.entries[name].data for name in kept):
            raise Violation("lost", f"the bytes of {files} are kept as {kept}")


def _set_aside(world: Recovered) -> tuple[set[Id], set[str]]:
    """Return the messages that DAMAGED records name, and the side files that should be there."""
    ids: set[Id] = set()
    files: set[str] = set()
    for batch in world.log:
        for record in batch.records:
            says = decode(record)
            if isinstance(says, DamagedMeta):
                ids |= {(says.queue, says.first + at) for at in range(says.count)}
                files.add(f"damaged-{says.segment}-{says.offset}.bin")
    return ids, files


Named = tuple[str, Callable[[], str]]


def index_trials(indexed: Indexed, stranger: Victim) -> Iterator[Named]:
    """Yield (name, trial) for each index that is missing, another's, or older than its segment."""
    victim, names = indexed.victim, indexed.indexes
    others = sorted(name for name in stranger.state if name.endswith(".index"))
    for index, name in enumerate(names):
        made: dict[str, bytes | None] = {
            "missing": None,
            "empty": b"",
            "foreign": stranger.state[others[index % len(others)]][0],
            "doubled": victim.state[names[index - 1]][0],
            "behind": victim.state[name][0] + victim.state[names[index - 1]][0],
        }
        for what, data in made.items():
            yield f"index {what} {name}", partial(indexed.try_index, name, data)
    yield "index all missing", lambda: indexed.same(_without(victim.state))
    yield "index other generation", lambda: _older_index(indexed)


def _without(state: State) -> State:
    return {name: file for name, file in state.items() if not name.endswith(".index")}


def _older_index(indexed: Indexed) -> str:
    """An index from before the rewrite of its segment, under the name of the new one."""
    victim = indexed.victim
    old = f"{victim.last.removesuffix('.log')}.index"
    disk = disk_of(_without(victim.state))
    log = StraightLog(disk, SEGMENT_BYTES)
    list(log.recover())
    start(log)
    log.abandon()
    state = whole(disk)
    newest = max(name for name in state if name.startswith("segment-"))
    data = victim.state.get(old, victim.state[indexed.indexes[-1]])[0]
    plain, _ = recovered(disk_of(state), digests=False)
    state[f"{newest.removesuffix('.log')}.index"] = data, len(data)
    world, by_index = recovered(disk_of(state))
    if what := difference(plain.portrait(), world.portrait()):
        raise Violation("wrong", f"an index from before a rewrite was believed: {what}")
    if by_index and not victim.closed:
        raise Violation("wrong", "an index from before a rewrite was believed")
    return "right"
