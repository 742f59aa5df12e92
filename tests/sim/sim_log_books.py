"""The books of the retained logs of a world: what was published, what readers saw, what came to the groups.

Pure, as the checker is, and its violations are the checker's:

O1 an offset names one message, and a message has one offset; what one process heard of ascends
O2 what was confirmed is read, unless somebody let it be taken; nothing is read that was not published
O3 a reader gets what he asked for in ascending order, and nothing else: all from an offset, or a time, on
O4 what was purged, or ended with its log, is read no more
O5 retention takes from the front, and leaves what it should
G1 a group gets everything that its log has behind its position, and G2 nothing in front of it
G3 nothing of where it stood before a move is handed out after that

With compaction the last message of each key stays, and all without a key: O2. What a group has been handed out and
has not acked comes again, whatever retention took: I1 of its checker (sim_log_groups.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise

from checker import OK, REFUSED, Checker, Handed, History, Id
from sim_ledger import Ledger
from sim_log_bounds import Bounds, Sent
from sim_log_groups import Found, Group

from minibroker.contract.limits import MAX_OFFSET


class Books:
    """What is known of all logs of a world."""

    def __init__(self, checker: Checker, ledger: Ledger) -> None:
        self.checker = checker
        self._ledger = ledger
        self.sent: dict[bytes, Sent] = {}
        self.of_log: dict[str, list[Sent]] = defaultdict(list)
        self._places: dict[tuple[str, int], Sent] = {}
        self.standing: set[str] = set()  # logs of which somebody heard that they are there
        self.bounds: dict[str, Bounds] = {}
        self.groups: dict[str, Group] = {}  # by the names of their queues
        self.judged = 0

    # -- publishing -----------------------------------------------------------------------------

    def intend(self, sent: Sent) -> None:
        """A client is about to publish."""
        assert sent.name not in self.sent, "names are unlike each other"
        self.sent[sent.name] = sent
        self.of_log[sent.log].append(sent)

    def stored(self, sent: Sent, id: Id, now_us: int) -> None:
        """The confirm came."""
        sent.outcome, sent.confirmed_us, sent.id = OK, now_us, id
        self.checker.confirmed += 1
        self._place(sent, id[1])

    def refused(self, sent: Sent) -> None:
        """The server said that it stored nothing."""
        sent.outcome = REFUSED
        if sent.offset >= 0:
            self._violation("I2", f"{sent.name!r} was refused, and stored all the same")

    def ends(self, log: str) -> None:
        """Somebody asks for the end of a log: its offsets begin anew."""
        for place in [place for place in self._places if place[0] == log]:
            del self._places[place]

    def _place(self, sent: Sent, offset: int) -> None:
        other = self._places.setdefault((sent.log, offset), sent)
        if other is not sent and not self._is_gone(other):
            text = f"offset {offset} of {sent.log} names {other.name!r} and {sent.name!r}"
            self._violation("O1", text)
        if sent.offset not in (-1, offset):
            self._violation("O1", f"{sent.name!r} has the offsets {sent.offset} and {offset}")
        sent.offset = offset

    def _is_gone(self, sent: Sent, asked_us: int | None = None) -> bool:
        """Whether it had ended for certain when somebody asked; None: by now."""
        bounds = self.bounds[sent.log]
        return any(
            removal.has(sent) and (asked_us is None or (removal.done_us or 0) < asked_us)
            for removal in bounds.removals
        )

    # -- reading --------------------------------------------------------------------------------

    def read(self, log: str, start: int, found: Found, asked_us: int) -> None:
        """A reader got these from an offset on."""
        before = start - 1
        for offset, name in found:
            if offset <= before:
                self._violation("O3", f"{log} was read from {start}: {offset} behind {before}")
            before = offset
            sent = self._seen(log, offset, name)
            if sent is not None and self._is_gone(sent, asked_us):
                self._violation("O4", f"offset {offset} of {log} had ended, and is read")

    def read_since(
        self,
        log: str,
        unix_ms: int,
        found: Found,
        asked_us: int,
        now_us: int,
        is_spoilt: Callable[[Sent], bool],
    ) -> None:
        """A reader got these, now, of what was published at or after a time, by a clock that never jumped.

        `is_spoilt` says of a message whether it may have been where a bit turned.
        """
        self.read(log, 0, found, asked_us)
        first = min((offset for offset, _ in found), default=-1)
        for sent in self.of_log[log]:
            is_there = sent.outcome == OK and 0 < sent.confirmed_us < asked_us
            is_skipped = is_there and sent.sent_unix_ms > unix_ms and sent.offset < first
            # A crash may have come between question and answer, and what it found gone, or spoilt, since then.
            is_owed = not (is_spoilt(sent) or self._may_be_gone(sent, now_us, jumped=False))
            if is_skipped and is_owed:
                text = f"{log} was read from {unix_ms} on: {first}, and {sent.offset} is younger"
                self._violation("O3", text)

    def _may_be_gone(self, sent: Sent, now_us: int, *, jumped: bool) -> bool:
        bounds, others = self.bounds[sent.log], self.of_log[sent.log]
        return bounds.may_be_gone(sent, others, now_us, jumped=jumped)

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

    def delivered(
        self, handed: Handed, id: Id, name: bytes, now_us: int
    ) -> tuple[Checker, History] | None:
        """A message came to somebody who works for a group."""
        group = self.groups[handed.queue.removesuffix(".dlq")]
        sent = self._seen(group.log, id[1] & MAX_OFFSET, name)
        if sent is None:
            return None
        return group.delivered(self.checker, self._ledger, handed, id, name, sent.client, now_us)

    # -- the end --------------------------------------------------------------------------------

    def judge(
        self,
        log: str,
        found: Found,
        places: dict[str, tuple[int, int]],
        suspects: set[Id],
        is_spoilt: Callable[[int], bool],
        now_us: int,
        *,
        jumped: bool,
    ) -> None:
        """Everything has come: `found` is all that a log has, `places` are number and generation of its groups.

        `is_spoilt` says of an offset whether it may have been in a file in which a bit turned.
        """
        bounds, all_sent = self.bounds[log], self.of_log[log]
        names = {name for _, name in found}
        for sent in all_sent:
            is_missing = sent.outcome == OK and sent.name not in names and sent.id not in suspects
            is_missing = is_missing and not is_spoilt(sent.offset)
            if is_missing and not self._may_be_gone(sent, now_us, jumped=jumped):
                self._violation("O2", f"{sent.id} of {log} was confirmed, and is lost")
        if not suspects and not any(is_spoilt(sent.offset) for sent in all_sent):
            offsets = {offset for offset, _ in found}
            bounds.judge(offsets, all_sent, lambda text: self._violation("O5", f"{log}: {text}"))
        for queue, place in places.items():
            whole = [each for each in found if not is_spoilt(each[0])]
            self.groups[queue].judge(self.checker, place, whole, self.sent, suspects)
        if not bounds.begins_anew:
            self._judge_order(log)

    def _judge_order(self, log: str) -> None:
        by_client: dict[str, list[Sent]] = defaultdict(list)
        for sent in self.of_log[log]:
            if sent.outcome == OK:
                by_client[sent.client].append(sent)
        # What was refused, unheard, is sent again after a crash, behind what was not.
        is_calm = not (self.checker.crashes or self.checker.troubles)
        for client, stored in by_client.items():
            for one, other in pairwise(stored):
                follows = is_calm or one.confirmed_us < other.sent_us
                if follows and one.offset > other.offset:
                    text = f"{client} published {one.offset} of {log} before {other.offset}"
                    self._violation("O1", text)

    def _violation(self, law: str, text: str) -> None:
        self.checker.violation(law, text)
