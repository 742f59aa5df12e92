"""The books of the retained logs of a world: what was published, what readers saw, what came to the groups.

Pure, as the checker is, and its violations are the checker's. What came to a group is judged by a checker of that
group, for each time that it was moved: what the log has is what was published to it. So leases, attempts, acks and
what is lost on the way are judged as those of a queue are. Beside them:

O1 an offset names one message, and a message has one offset; what one process published ascends
O2 what was confirmed is read, unless somebody let it be taken; nothing is read that was not published
O3 a reader gets what he asked for in ascending order, and nothing in front of it
G1 a group gets everything that its log has behind its position; G2 and nothing in front of it
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise

from checker import OK, REFUSED, UNKNOWN, Checker, Handed, History, Id, Intent

from minibroker.contract.limits import MAX_OFFSET

OFFSET_BITS = MAX_OFFSET.bit_length()


@dataclass(slots=True, eq=False)
class Sent:
    """One message that a client wants in a log; `name` is what it is known by, wherever it comes."""

    name: bytes
    log: str
    client: str
    key: str
    sent_us: int
    outcome: str = UNKNOWN
    confirmed_us: int = 0
    id: Id | None = None  # known from its confirm
    offset: int = -1  # known from that, or from whoever got it


@dataclass(slots=True, eq=False)
class Group:
    """A group of a log, by the names of both: what came to it since each of its moves."""

    log: str
    name: str
    checkers: dict[tuple[int, int], Checker] = field(default_factory=dict)  # by origin, generation

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return f"{self.log}@{self.name}"


class Books:
    """What is known of all logs of a world."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self.sent: dict[bytes, Sent] = {}
        self._places: dict[tuple[str, int], Sent] = {}
        self._of_client: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        self.standing: set[str] = set()  # logs of which somebody heard that they are there
        self.groups: dict[str, Group] = {}  # by the names of their queues
        self.judged = 0

    # -- publishing -----------------------------------------------------------------------------

    def intend(self, sent: Sent) -> None:
        """A client is about to publish."""
        assert sent.name not in self.sent, "names are unlike each other"
        self.sent[sent.name] = sent
        self._of_client[sent.log, sent.client].append(sent)

    def stored(self, sent: Sent, id: Id, now_us: int) -> None:
        """The confirm came."""
        sent.outcome, sent.confirmed_us, sent.id = OK, now_us, id
        self._checker.confirmed += 1
        self._place(sent, id[1])

    def refused(self, sent: Sent) -> None:
        """The server said that it stored nothing."""
        sent.outcome = REFUSED
        if sent.offset >= 0:
            self._violation("I2", f"{sent.name!r} was refused, and stored all the same")

    def _place(self, sent: Sent, offset: int) -> None:
        other = self._places.setdefault((sent.log, offset), sent)
        if other is not sent:
            text = f"offset {offset} of {sent.log} names {other.name!r} and {sent.name!r}"
            self._violation("O1", text)
        if sent.offset not in (-1, offset):
            self._violation("O1", f"{sent.name!r} has the offsets {sent.offset} and {offset}")
        sent.offset = offset

    # -- reading --------------------------------------------------------------------------------

    def read(self, log: str, start: int, offsets: Collection[tuple[int, bytes]]) -> None:
        """A reader got these, (offset, name), from an offset on."""
        before = start - 1
        for offset, name in offsets:
            if offset <= before:
                self._violation("O3", f"{log} was read from {start}: {offset} behind {before}")
            before = offset
            self._seen(log, offset, name)

    def _seen(self, log: str, offset: int, name: bytes) -> Sent | None:
        sent = self.sent.get(name)
        if sent is None or sent.log != log:
            self._violation("O2", f"offset {offset} of {log} is {name!r}, which nobody published")
            return None
        if sent.outcome == REFUSED:
            self._violation("I2", f"{name!r} was refused, and is offset {offset} of {log}")
        self._place(sent, offset)
        self.judged += 1
        return sent

    # -- groups ---------------------------------------------------------------------------------

    def checker_of(self, group: Group, origin: int, generation: int) -> Checker:
        """Return who judges what comes to a group between two moves, as of now."""
        checker = group.checkers.get((origin, generation))
        if checker is None:
            checker = group.checkers[origin, generation] = Checker()
            checker.violations = self._checker.violations
        main = self._checker
        checker.crashes, checker.deaths, checker.troubles = main.crashes, main.deaths, main.troubles
        checker.epoch, checker.started_us, checker.crashed_us = (
            main.epoch, main.started_us, main.crashed_us,
        )  # fmt: skip
        return checker

    def delivered(
        self, handed: Handed, id: Id, name: bytes, now_us: int
    ) -> tuple[Checker, History] | None:
        """A message came to somebody who works for a group."""
        group = self.groups[handed.queue.removesuffix(".dlq")]
        generation, offset = id[1] >> OFFSET_BITS, id[1] & MAX_OFFSET
        sent = self._seen(group.log, offset, name)
        if sent is None:
            return None
        checker = self.checker_of(group, id[0], generation)
        if name not in checker.intents:
            intent = Intent(
                name, sent.client, group.queue, sent.sent_us, 0, plain=False, outcome=OK
            )
            checker.intend(intent)
        history = checker.delivered(handed, id, name, now_us)
        return None if history is None else (checker, history)

    # -- the end --------------------------------------------------------------------------------

    def judge(
        self,
        log: str,
        found: Collection[tuple[int, bytes]],
        moves: dict[str, tuple[int, int]],
        suspects: Collection[Id],
    ) -> None:
        """Everything has come: `found` is all that the log has, `moves` origin and generation of each group."""
        self.read(log, 0, found)
        names = {name for _, name in found}
        for sent in self.sent.values():
            is_missing = sent.log == log and sent.outcome == OK and sent.name not in names
            if is_missing and sent.id not in suspects:
                self._violation("O2", f"{sent.id} of {log} was confirmed, and is lost")
        for queue, (origin, generation) in moves.items():
            group = self.groups[queue]
            checker = self.checker_of(group, origin, generation)
            for offset, name in found:
                id = origin, generation << OFFSET_BITS | offset
                if name not in checker.intents and id not in suspects:
                    self._violation("G1", f"offset {offset} never came to {queue}")
            checker.finish(lambda intent: False, suspects)
        self._judge_order(log)

    def _judge_order(self, log: str) -> None:
        for (name, client), all_sent in self._of_client.items():
            stored = [sent for sent in all_sent if sent.outcome == OK]
            for one, other in pairwise(stored):
                if name == log and one.offset > other.offset:
                    text = f"{client} published {one.offset} of {log} before {other.offset}"
                    self._violation("O1", text)

    def _violation(self, law: str, text: str) -> None:
        self._checker.violation(law, text)
