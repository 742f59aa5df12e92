"""What a broker of a world handed out, and when: a client hears of it later by link and disk, or never."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from sim_handed import HandedBooks

from minibroker.contract.wire import DELIVERY_RUN
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import Effects
from minibrokerd.core.model.inputs import Command
from minibrokerd.core.model.state import COUNTER_BITS, Store

Id = tuple[int, int]


class Ledger:
    """Of every token, over all lives of the broker, the time of the step that gave it away."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.first: dict[
            Id, int
        ] = {}  # of each message the token under which it was handed out first
        self._tokens = [0]  # the newest one after a step; ascending
        self._times_us = [0]
        self._alone: set[tuple[int, int]] = (
            set()
        )  # queues of which one consumer had all that was handed out
        self.handed = HandedBooks()
        self.shared: list[str] = []  # what was seen of those whose messages two had, behind that

    def note(self, newest: int) -> None:
        """A step has ended, and this is the newest token by now."""
        if newest > self._tokens[-1]:
            self._tokens.append(newest)
            self._times_us.append(self._now_us())

    def handed_us(self, token: int) -> int:
        """Return when a token was given away."""
        return self._times_us[bisect_left(self._tokens, token)]

    def note_deliveries(self, effects: Effects) -> None:
        """A step has handed these out."""
        for out in effects.outgoing:
            if out.header["op"] == "deliver":
                columns = out.columns[: out.header["runs"] * DELIVERY_RUN.size]
                for origin, first, count, *_ in DELIVERY_RUN.iter_unpack(columns):
                    for sequence in range(first, first + count):
                        self.first.setdefault((origin, sequence), out.header["token"])

    def note_turns(self, store: Store) -> None:
        """A step has ended: look who has messages of queues with one active consumer."""
        for group in store.sums.singles:
            if not group.deliveries:
                continue
            # After a start only the session is known that has them.
            holders = {each.consumer or each.session for each in group.deliveries.values()}
            place = store.epoch, group.queue.number
            if len(holders) == 1:
                self._alone.add(place)
            elif place in self._alone:  # not what several had when the setting came
                self._alone.discard(place)
                self.shared.append(f"{len(holders)} consumers have messages of {group.queue.name}")


class WatchedCore(Core):
    """A core that has a ledger."""

    ledger: Ledger

    def apply(self, command: Command, now_ms: int, unix_ms: int) -> Effects:
        """Step."""
        self.ledger.handed.before(self.store, command)
        effects = super().apply(command, now_ms, unix_ms)
        self.ledger.handed.after(self.store, effects)
        self.ledger.note(self.store.epoch << COUNTER_BITS | self.store._counter)
        self.ledger.note_deliveries(effects)
        self.ledger.note_turns(self.store)
        return effects
