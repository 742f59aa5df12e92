"""The loop of a bridge: take, put, and only when that is confirmed, say so to where it came from.

One batch is on its way at a time, and the next one is taken meanwhile. So the order stays, nothing is taken that
nobody can store (that is the back-pressure), and what a crash leaves in doubt is two batches. Whatever happens, a
message is done at its source only when the sink has confirmed it, or when it was set aside by name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final

from minibrokerd.bridges.seam import (
    Away,
    Later,
    Outcome,
    Parcel,
    Refused,
    Sink,
    Source,
    Stored,
    Unfit,
)

TAKE_S: Final = 0.5  # for so long one look at a quiet source lasts
KEEP_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 15.0
LEAVE_S: Final = 5.0  # for a farewell to a broker that does not answer

Tell = Callable[..., None]  # the name of an event, and its fields
Aside = Callable[[Parcel, str], None]


class Unplaced(Exception):
    """A message fits nowhere, and there is no place for such; it is still where it came from."""


@dataclass(slots=True)
class Counts:
    """What a bridge has done since its start."""

    passed: int = 0  # handed over, whether new or known
    known: int = 0  # of those: the sink had them already
    unsure: int = 0  # of those: they may be there twice
    aside: int = 0


@dataclass(slots=True)
class Plan:
    """What is asked of a bridge. `count` None: without end."""

    batch: int = 500
    count: int | None = None
    until_empty: bool = False
    aside: Aside | None = None


class _Pause:
    """Pauses between attempts, each twice as long as the last; shaken, since many may wait for one broker."""

    def __init__(self) -> None:
        self._s = FIRST_PAUSE_S

    def next_s(self) -> float:
        pause, self._s = self._s, min(self._s * 2, LONGEST_PAUSE_S)
        return pause * random.uniform(0.5, 1.0)


@dataclass(slots=True)
class Bridge:
    """One bridge; `run` returns when its plan is done or `stop` was called."""

    source: Source
    sink: Sink
    plan: Plan
    tell: Tell
    counts: Counts = field(default_factory=Counts)
    waits_for: str = ""  # why nothing moves, empty while it does
    _stops: asyncio.Event = field(default_factory=asyncio.Event)
    _in_hand: list[Parcel] = field(default_factory=list)  # taken, and not settled at the source
    _stuck: list[Parcel] = field(default_factory=list)  # of those: what could not be moved
    _trouble: Exception = field(default_factory=Exception)
    _pause: _Pause = field(default_factory=_Pause)  # grows while batches have something stuck

    def stop(self) -> None:
        """Take nothing more, finish what is on its way, and leave."""
        self._stops.set()

    async def open(self) -> None:
        """Connect to both sides, once; raises `Away` and `Refused`."""
        await self.source.open()
        await self.sink.open()

    async def run(self) -> None:
        """Hand over until the plan is done; both ends are open and closed afterwards.

        Raises:
            Unplaced: a message fits nowhere.
            asyncio.CancelledError: somebody would wait no longer; what was not confirmed is still at its source.
        """
        keeper = asyncio.create_task(self._keep())
        ahead: asyncio.Task[list[Parcel]] | None = None
        try:
            while not self._is_done():
                parcels = await self._taken(ahead)
                ahead = None
                if not parcels:
                    if self.plan.until_empty and await self._is_empty():
                        break
                    continue
                self._in_hand = parcels
                if not self._stops.is_set() and self._room(len(parcels)):
                    ahead = asyncio.create_task(self._take(len(parcels)))
                await self._hand_over(parcels)
                if not await self._said_done():
                    await self._drop(ahead)
                    ahead = None
        finally:
            keeper.cancel()
            await self._leave(ahead)

    # ---- taking ----

    def _is_done(self) -> bool:
        return self._stops.is_set() or not self._room()

    def _room(self, taken: int = 0) -> int:
        """Return how many messages may be taken beyond `taken`, which are on their way."""
        if self.plan.count is None:
            return self.plan.batch
        return max(0, min(self.plan.batch, self.plan.count - self.counts.passed - taken))

    async def _take(self, on_their_way: int = 0) -> list[Parcel]:
        return await self.source.take(self._room(on_their_way), TAKE_S)

    async def _taken(self, ahead: asyncio.Task[list[Parcel]] | None) -> list[Parcel]:
        try:
            return await (ahead if ahead is not None else self._take())
        except Away as error:
            await self._open_again(self.source, error)
            return []

    async def _is_empty(self) -> bool:
        try:
            return await self.source.is_empty()
        except Away as error:
            await self._open_again(self.source, error)
            return False

    async def _drop(self, ahead: asyncio.Task[list[Parcel]] | None) -> None:
        """Open the source anew, without what was taken ahead: the new connection hands that out again."""
        if ahead is not None and (rest := await _ended(ahead)):
            await _quietly(self.source.give_back(rest))
        await self._open_again(self.source, self._trouble, self._pause)

    # ---- handing over ----

    async def _hand_over(self, parcels: Sequence[Parcel]) -> None:
        """Put messages until each is stored or set aside."""
        left, pause = list(parcels), _Pause()
        while left:
            try:
                outcomes = await self.sink.put(left)
            except Away as error:
                _mark(left)
                await self._open_again(self.sink, error)
                continue
            pairs = list(zip(left, outcomes, strict=True))
            later = [each for each, said in pairs if isinstance(said, Later)]
            for at, (parcel, said) in enumerate(pairs):
                try:
                    await self._count(parcel, said)
                except Unplaced:
                    await self._keep_before(parcels, [*later, *self._stuck, *left[at:]])
                    raise
            if later:
                _mark(later)
                if len(later) < len(left):
                    pause = _Pause()
                reason = next(said.reason for said in outcomes if isinstance(said, Later))
                await self._wait(pause, self.sink, reason)
            left = later
        self._goes_on()

    async def _said_done(self) -> bool:
        """Tell the source what is done; return whether its connection goes on."""
        parcels, self._in_hand = self._in_hand, []
        stuck, self._stuck = self._stuck, []
        if not stuck:
            self._pause = _Pause()
        parcels, again = _parted(parcels, stuck, has_position=self.source.has_position)
        self.counts.unsure += len(again) - len(stuck)
        if parcels:
            try:
                self.counts.unsure += await self.source.done(parcels)
            except Away as error:
                self.counts.unsure += len(parcels)
                self._trouble = error
                return False
        if again:
            await _quietly(self.source.give_back(again))
        return not again

    async def _keep_before(self, parcels: Sequence[Parcel], open_ones: Sequence[Parcel]) -> None:
        """Say that all are done that stand before the first which is not: the bridge ends in the middle."""
        there = set(map(id, open_ones))
        before = list(takewhile(lambda parcel: id(parcel) not in there, parcels))
        self._in_hand = list(parcels[len(before) :])
        if before:
            await _quietly(self.source.done(before))

    async def _count(self, parcel: Parcel, said: Outcome) -> None:
        if isinstance(said, Unfit):
            await self._set_aside(parcel, said.reason)
        elif isinstance(said, Stored):
            self.counts.passed += 1
            self.counts.known += said is Stored.KNOWN
            self.counts.unsure += said is Stored.UNSURE

    async def _set_aside(self, parcel: Parcel, reason: str) -> None:
        if self.plan.aside is not None:
            self.plan.aside(parcel, reason)
        else:
            try:
                has_place = await self.source.reject(parcel, reason)
            except Away as error:
                self._stuck.append(parcel)
                self._trouble = error
                return  # it comes again, and meets the same
            if not has_place:
                raise Unplaced(
                    f"message {parcel.id or '(without an id)'} of {self.source.name}: {reason}"
                )
            self._in_hand = [each for each in self._in_hand if each is not parcel]
        self.counts.aside += 1
        self.tell("aside", id=parcel.id, bytes=len(parcel.body), reason=reason)

    # ---- when something is away ----

    async def _open_again(
        self, end: Source | Sink, error: Exception, pause: _Pause | None = None
    ) -> None:
        """Return when the end is open again, however long that takes."""
        pause = pause or _Pause()
        reason = str(error)
        while True:
            await self._wait(pause, end, reason)
            await _quietly(end.close())
            try:
                await end.open()
            except (Away, Refused) as again:
                reason = str(again)
                if self._stops.is_set() and end is self.source:
                    return  # there is nothing to be drained from it
            else:
                self._goes_on()
                return

    async def _wait(self, pause: _Pause, end: Source | Sink, reason: str) -> None:
        reason = reason.removeprefix(f"{end.name}: ")
        if self.waits_for != reason:
            self.waits_for = reason
            self.tell("waits", end=end.name, reason=reason)
        pause_s = pause.next_s()
        if end is self.sink:  # a stop, too, waits until it has what is on its way
            await asyncio.sleep(pause_s)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stops.wait()

    def _goes_on(self) -> None:
        if self.waits_for:
            self.waits_for = ""
            self.tell("goes_on")

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            if self._in_hand:
                try:
                    await self.source.keep(self._in_hand)
                except Away:
                    continue  # whoever asks it next is told, too

    async def _leave(self, ahead: asyncio.Task[list[Parcel]] | None) -> None:
        """Give back what was not handed over and close both ends, each within a bound."""
        rest = list(self._in_hand)
        if ahead is not None:
            rest += await _ended(ahead)
        if rest:
            await _quietly(self.source.give_back(rest))
        await _quietly(self.source.close())
        await _quietly(self.sink.close())


def _parted(
    parcels: Sequence[Parcel], stuck: Sequence[Parcel], *, has_position: bool
) -> tuple[list[Parcel], list[Parcel]]:
    """Return which of these may be said to be done, and which come again."""
    there = set(map(id, stuck))
    if has_position:
        done = list(takewhile(lambda parcel: id(parcel) not in there, parcels))
        return done, list(parcels[len(done) :])
    return [each for each in parcels if id(each) not in there], list(stuck)


def _mark(parcels: Sequence[Parcel]) -> None:
    """Note that these may be there already: whoever knows them then is right."""
    for parcel in parcels:
        parcel.repeats = True


async def _ended(task: asyncio.Task[list[Parcel]]) -> list[Parcel]:
    """Return what a look had taken when nobody wants it any more."""
    try:
        async with asyncio.timeout(2 * TAKE_S):
            return await task
    except (Away, TimeoutError):
        return []


async def _quietly(call: Awaitable[Any]) -> None:
    """Await a farewell, which may fail and may not last."""
    try:
        async with asyncio.timeout(LEAVE_S):
            await call
    except (Away, Refused, TimeoutError):
        pass
