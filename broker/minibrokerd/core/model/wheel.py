"""A hierarchical timer wheel: deadlines of any length, O(1) to set and to cancel.

It has no clock: `advance` is told the time. A deadline is rounded up to a tick, so nothing fires early and
everything fires at most one tick late. A level holds 256 slots; a timer stands at the level of the highest
byte in which its tick differs from the present one, and moves down as that byte comes up (the scheme of
Varghese and Lauck). Slots are dicts, because a dict keeps insertion order (runs are repeatable) and removes
in O(1).
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

TICK_MS: Final = 8
CASCADE_TIMERS: Final = 8_000  # that one `advance` moves to a lower level, about 5 ms
_BITS: Final = 8
_MASK: Final = (1 << _BITS) - 1


class Timer:
    """A deadline that carries what it is for; `item` is for the owner, the wheel never looks at it."""

    __slots__ = ("_slot", "item", "tick")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.tick = 0
        self._slot: dict[Timer, None] | None = None

    @property
    def armed(self) -> bool:
        """Whether the timer waits in a wheel."""
        return self._slot is not None

    def twin(self, item: Any) -> Timer:
        """Return a timer for something else that is due when this one is; it is armed if this one is."""
        other, slot = Timer(item), self._slot
        other.tick = self.tick
        if slot is not None:
            slot[other] = None
            other._slot = slot
        return other

    def withdraw(self) -> None:
        """Disarm it, as `Wheel.cancel` does."""
        slot = self._slot
        if slot is not None:
            del slot[self]
            self._slot = None


class Wheel:
    """Timers by deadline, all times in ms of the same clock as `now_ms`."""

    def __init__(self, now_ms: int) -> None:
        self._next_tick = now_ms // TICK_MS  # every earlier tick has fired
        self._levels: list[dict[int, dict[Timer, None]]] = [{} for _ in range(8)]
        self._occupied = [0] * 8  # one bit for each slot, to find the next one without a search
        # What was found last, and the slot itself: the first one still, unless something earlier is placed, the
        # slot is empty, or time goes on. After each apply somebody asks when to call next.
        self._found: tuple[int, int, int] | None = None
        self._found_slot: dict[Timer, None] = {}

    def schedule(self, timer: Timer, deadline_ms: int) -> None:
        """Arm `timer` for `deadline_ms`, moving it if it is armed already."""
        slot = timer._slot
        if slot is not None:
            del slot[timer]
        tick, next_tick = -(-deadline_ms // TICK_MS), self._next_tick
        timer.tick = tick if tick > next_tick else next_tick
        self._place(timer)

    # No static method: the interpreter takes a fifth more instructions to call one through an object.
    def cancel(self, timer: Timer) -> None:
        """Disarm `timer`; nothing happens if it is not armed."""
        slot = timer._slot
        if slot is not None:
            # An emptied slot stays until its turn comes: clearing the bit here would need its level.
            del slot[timer]
            timer._slot = None

    def next_deadline_ms(self) -> int | None:
        """Return when to call `advance` next (not later than the first deadline), or None."""
        found = self._found
        if found is None or not self._found_slot:
            if not any(
                self._occupied
            ):  # as where nothing is begun: a walk through the levels takes 100 steps
                return None
            found = self._found = self._first_slot()
            if found is None:
                return None
            self._found_slot = self._levels[found[1]][found[2]]
        return found[0] * TICK_MS

    def advance(self, now_ms: int, most: int) -> list[Timer]:
        """Disarm and return up to `most` timers whose deadline has come, in order of their ticks.

        If there are more, or some of a crowded slot are not sorted yet, `next_deadline_ms` stays at or below
        `now_ms`.
        """
        self._found = None
        target = now_ms // TICK_MS
        due: list[Timer] = []
        moves_left = CASCADE_TIMERS
        while (found := self._first_slot()) is not None and found[0] <= target:
            tick, level, index = found
            if level:
                self._next_tick = max(self._next_tick, tick)
                moves_left -= self._move_down(level, index, moves_left)
                if moves_left <= 0:
                    return due
                continue
            slot = self._levels[0][index]
            if len(due) + len(slot) > most:
                self._next_tick = tick
                self._take_some(slot, most - len(due), due)
                return due
            due.extend(self._take(level, index))
            self._next_tick = tick + 1
        self._next_tick = max(self._next_tick, target + 1)
        return due

    def _take(self, level: int, index: int) -> dict[Timer, None]:
        # All out of the wheel first: a timer may be set again into the very slot that fires.
        slot = self._levels[level].pop(index)
        self._occupied[level] &= ~(1 << index)
        for timer in slot:
            timer._slot = None
        return slot

    def _move_down(self, level: int, index: int, most: int) -> int:
        """Move up to `most` timers of a slot to lower levels; return how many.

        What is left keeps its slot: that is the first one until it is empty, and nothing fires before it.
        """
        slot = self._levels[level][index]
        if len(slot) <= most:
            slot = self._take(level, index)
            for timer in slot:
                self._place(timer)
            return len(slot)
        for timer in list(islice(slot, most)):
            del slot[timer]
            self._place(timer)
        return most

    @staticmethod
    def _take_some(slot: dict[Timer, None], count: int, due: list[Timer]) -> None:
        for timer in list(islice(slot, count)):
            del slot[timer]
            timer._slot = None
            due.append(timer)

    def _place(self, timer: Timer) -> None:
        tick = timer.tick
        differing = tick ^ self._next_tick
        level = (differing.bit_length() - 1) // _BITS if differing else 0
        index = (tick >> level * _BITS) & _MASK
        slots = self._levels[level]
        if index in slots:
            slot = slots[index]
        else:
            slot = slots[index] = {}
            self._occupied[level] |= 1 << index
        slot[timer] = None
        timer._slot = slot
        found = self._found
        if found is not None and tick <= found[0]:
            self._found = None

    def _first_slot(self) -> tuple[int, int, int] | None:
        """Return (first tick, level, index) of the earliest slot that holds a timer.

        Of two that start at the same tick the higher level comes first: it may hold earlier timers.
        """
        best: tuple[int, int, int] | None = None
        for level, occupied in enumerate(self._occupied):
            shift = level * _BITS
            while occupied:
                index = (occupied & -occupied).bit_length() - 1
                if self._levels[level][index]:
                    above = self._next_tick >> (shift + _BITS) << (shift + _BITS)
                    tick = max(above | index << shift, self._next_tick)
                    if best is None or tick <= best[0]:
                        best = (tick, level, index)
                    break
                del self._levels[level][index]
                occupied &= ~(1 << index)
                self._occupied[level] = occupied
        return best
