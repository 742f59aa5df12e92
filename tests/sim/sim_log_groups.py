"""The groups of retained logs in the books of a world: where each was moved to, and what came to it since.

A group has a checker for each place that it was moved to, of which the ids of its messages tell: what the log has
behind that place is what was published to it. So leases, attempts, acks and losses are judged as those of a queue.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from checker import OK, Checker, Handed, History, Id, Intent
from sim_ledger import Ledger
from sim_log_bounds import Sent

from minibroker.contract.limits import MAX_OFFSET

OFFSET_BITS: Final = MAX_OFFSET.bit_length()
Found = Collection[tuple[int, bytes]]  # offset and name of each message that a reader got


@dataclass(frozen=True, slots=True)
class Start:
    """Where a group went on at, as its answer said; None: at a time. With a key it gets only that again."""

    offset: int | None
    key: str
    done_us: int


@dataclass(slots=True, eq=False)
class Group:
    """A group of a log, by the names of both."""

    log: str
    name: str
    starts: dict[int, Start] = field(default_factory=dict)  # by generation, those that are known
    is_new: bool = False  # it was deleted and made again: what `starts` says is of an older one
    checkers: dict[tuple[int, int], Checker] = field(default_factory=dict)  # by origin, generation
    # Of each generation the lowest offset that came, and by which it was handed out.
    lowest: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return f"{self.log}@{self.name}"

    def moved(self, generation: int, start: Start) -> None:
        """Somebody heard that it stands there now."""
        self.starts[generation] = start

    def ended(self) -> None:
        """Somebody asks for its end, and makes it again from the first message on."""
        self.is_new = True
        self.starts.clear()

    def checker_of(self, main: Checker, origin: int, generation: int) -> Checker:
        """Return who judges what comes between two moves, as of now; `main` is that of the world."""
        checker = self.checkers.get((origin, generation))
        if checker is None:
            checker = self.checkers[origin, generation] = Checker()
            checker.violations = main.violations
        checker.crashes, checker.deaths, checker.troubles = main.crashes, main.deaths, main.troubles
        checker.epoch, checker.started_us, checker.crashed_us = (
            main.epoch, main.started_us, main.crashed_us,
        )  # fmt: skip
        return checker

    def delivered(
        self,
        main: Checker,
        ledger: Ledger,
        handed: Handed,
        id: Id,
        name: bytes,
        client: str,
        now_us: int,
    ) -> tuple[Checker, History] | None:
        """A message of it came to somebody; `client` published it."""
        generation, offset = id[1] >> OFFSET_BITS, id[1] & MAX_OFFSET
        is_dead = handed.queue.endswith(".dlq")  # these stay where they are
        next_start = self.starts.get(generation + 1)
        moved_us = None if next_start is None or is_dead else next_start.done_us
        if moved_us is not None and ledger.handed_us(handed.token) > moved_us:
            main.violation("G3", f"{offset} of {self.queue} was handed out after it was moved")
        if not is_dead:
            place = id[0], generation
            self.lowest[place] = min(offset, self.lowest.get(place, offset))
        checker = self.checker_of(main, id[0], generation)
        if name not in checker.intents:
            intent = Intent(name, client, self.queue, 0, 0, plain=False, outcome=OK)
            checker.intend(intent)
        history = checker.delivered(handed, id, name, now_us)
        return None if history is None else (checker, history)

    # -- the end --------------------------------------------------------------------------------

    def judge(
        self,
        main: Checker,
        place: tuple[int, int],
        found: Found,
        sent: dict[bytes, Sent],
        suspects: Collection[Id],
    ) -> None:
        """Everything has come: `place` is its number and generation, `found` all that its log has."""
        for (origin, generation), lowest in self.lowest.items():
            start = self._start(origin, generation, place[0])
            if start is not None and not start.key and lowest < (start.offset or 0):
                text = f"{lowest} came to {self.queue}, which had been moved to {start.offset}"
                main.violation("G2", text)
        checker = self.checker_of(main, *place)
        checker.finish(lambda intent: False, suspects)
        start = self._start(*place, place[0])
        if start is None or start.offset is None:
            return
        for offset, name in found:
            id = place[0], place[1] << OFFSET_BITS | offset
            if offset < start.offset or name in checker.intents or id in suspects:
                continue
            # Of others, what was behind it before the move comes, and what it had been moved over does not.
            if start.key and sent[name].key != start.key and sent[name].sent_us < start.done_us:
                continue
            main.violation("G1", f"offset {offset} never came to {self.queue}")

    def _start(self, origin: int, generation: int, newest: int) -> Start | None:
        if generation == 0:
            return Start(0, "", 0)  # all are made to begin at the first message
        return None if self.is_new or origin != newest else self.starts.get(generation)
