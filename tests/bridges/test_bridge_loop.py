"""The loop of a bridge between a source and a sink that a test moves: no server, no clock that matters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from minibrokerd.bridges import passing
from minibrokerd.bridges.passing import Bridge, Plan, Unplaced
from minibrokerd.bridges.seam import Away, Later, Outcome, Parcel, Sink, Source, Stored, Unfit

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(passing, "FIRST_PAUSE_S", 0.0)


class Numbers(Source):
    """Hands out numbers; each connection hands out again what was not done, as brokers do."""

    name = "numbers"

    def __init__(self, count: int, *, has_dead_letters: bool = False) -> None:
        self.waiting = list(range(count))
        self.taken: list[int] = []
        self.settled: list[int] = []
        self.given_back: list[int] = []
        self.rejected: list[int] = []
        self.done_fails = 0
        self.reject_fails = 0
        self._has_dead_letters = has_dead_letters

    async def open(self) -> None:
        self.waiting, self.taken = sorted(self.taken + self.waiting), []

    async def take(self, most: int, wait_s: float) -> list[Parcel]:
        await asyncio.sleep(0)
        found, self.waiting = self.waiting[:most], self.waiting[most:]
        self.taken += found
        return [Parcel(b"%d" % number, number, id=str(number), repeats=False) for number in found]

    async def is_empty(self) -> bool:
        return not self.waiting and not self.taken

    async def done(self, parcels: Sequence[Parcel]) -> int:
        if self.done_fails:
            self.done_fails -= 1
            raise Away("numbers are away")
        for parcel in parcels:
            self.taken.remove(parcel.handle)
            self.settled.append(parcel.handle)
        return 0

    async def give_back(self, parcels: Sequence[Parcel]) -> None:
        self.given_back += [each.handle for each in parcels]

    async def reject(self, parcel: Parcel, reason: str) -> bool:
        if self.reject_fails:
            self.reject_fails -= 1
            raise Away("numbers are away")
        if self._has_dead_letters:
            self.taken.remove(parcel.handle)
            self.rejected.append(parcel.handle)
        return self._has_dead_letters

    async def close(self) -> None:
        """Do nothing."""


class Shelf(Sink):
    """Keeps what it is given, once `may_answer` is set; `says` has outcomes that are none, by number, used up."""

    name = "shelf"

    def __init__(self, **says: list[Any]) -> None:
        self.kept: list[int] = []
        self.asked: list[list[int]] = []
        self.opened = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.says: dict[int, list[Any]] = {
            int(name.strip("_")): said for name, said in says.items()
        }

    async def open(self) -> None:
        self.opened += 1

    async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
        numbers = [each.handle for each in parcels]
        self.asked.append(numbers)
        await self.may_answer.wait()
        outcomes: list[Outcome] = []
        for number in numbers:
            said = self.says[number].pop(0) if self.says.get(number) else Stored.NEW
            if isinstance(said, Away):
                raise said
            if said is Stored.NEW:
                self.kept.append(number)
            outcomes.append(said)
        return outcomes

    async def close(self) -> None:
        """Do nothing."""


def made(source: Source, sink: Sink, **plan: Any) -> tuple[Bridge, list[str]]:
    """Return a bridge with small batches, and the names of the events that it tells."""
    told: list[str] = []
    plan = {"batch": 3, "until_empty": True, **plan}
    return Bridge(source, sink, Plan(**plan), lambda name, **_: told.append(name)), told


async def run(bridge: Bridge) -> None:
    """Run a bridge to its end."""
    async with asyncio.timeout(DEADLINE_S):
        await bridge.open()
        await bridge.run()


async def until(condition: Any) -> None:
    """Let the loop turn until a condition holds."""
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not come to that")


async def test_all_pass_in_order() -> None:
    source, sink = Numbers(10), Shelf()
    bridge, told = made(source, sink)
    await run(bridge)
    assert (sink.kept, source.settled) == (list(range(10)), list(range(10)))
    assert (bridge.counts.passed, told) == (10, [])


async def test_nothing_is_done_before_the_sink_has_it_and_no_more_is_taken() -> None:
    """One batch on its way, one ahead: that is all that a sink which stands still costs."""
    source, sink = Numbers(100), Shelf()
    sink.may_answer.clear()
    bridge, _ = made(source, sink)
    running = asyncio.create_task(run(bridge))
    await until(lambda: len(source.taken) == 6)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (source.settled, len(source.taken)) == ([], 6)
    sink.may_answer.set()
    await running
    assert source.settled == list(range(100))


async def test_a_sink_that_was_away_gets_the_same_batch_in_the_same_order() -> None:
    source, sink = Numbers(6), Shelf(_2=[Away("shelf is away")])
    bridge, told = made(source, sink)
    await run(bridge)
    assert sink.asked[:2] == [[0, 1, 2], [0, 1, 2]]
    assert (source.settled, sink.opened, told) == (list(range(6)), 2, ["waits", "goes_on"])


async def test_what_was_put_in_doubt_says_so() -> None:
    """A sink that knows ids can tell a duplicate from another message of that id only if it is told."""
    seen: list[bool] = []

    class Noting(Shelf):
        async def put(self, parcels: Sequence[Parcel]) -> list[Outcome]:
            seen.extend(each.repeats for each in parcels)
            return await super().put(parcels)

    bridge, _ = made(Numbers(1), Noting(_0=[Away("away")]))
    await run(bridge)
    assert seen == [False, True]


async def test_only_what_was_refused_for_now_is_put_again() -> None:
    source, sink = Numbers(3), Shelf(_1=[Later("full"), Later("full")])
    bridge, told = made(source, sink)
    await run(bridge)
    assert sink.asked == [[0, 1, 2], [1], [1]]
    assert (source.settled, told) == ([0, 1, 2], ["waits", "goes_on"])


async def test_a_source_that_went_away_hands_out_again_and_nothing_ahead_is_done_unseen() -> None:
    """What was taken ahead is given back before the source is opened anew, and comes with the rest."""
    source, sink = Numbers(6), Shelf()
    source.done_fails = 1
    bridge, _ = made(source, sink)
    await run(bridge)
    assert source.given_back == [3, 4, 5]
    assert source.settled == list(range(6))
    assert sink.kept == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert bridge.counts.unsure == 3


async def test_what_fits_nowhere_goes_to_the_dead_letters_and_is_not_done_as_well() -> None:
    source, sink = Numbers(6, has_dead_letters=True), Shelf(_1=[Unfit("too large")])
    bridge, told = made(source, sink)
    await run(bridge)
    assert (source.rejected, source.settled) == ([1], [0, 2, 3, 4, 5])
    assert (bridge.counts.aside, told) == (1, ["aside"])


async def test_what_could_not_be_moved_to_the_dead_letters_is_not_done_and_comes_again() -> None:
    """The others of its batch are done: they need not come again."""
    source, sink = Numbers(6, has_dead_letters=True), Shelf(_1=[Unfit("large")] * 3)
    source.reject_fails = 2
    bridge, told = made(source, sink)
    await run(bridge)
    assert (source.rejected, source.settled) == ([1], [0, 2, 3, 4, 5])
    assert sink.kept == [0, 2, 3, 4, 5]
    assert (bridge.counts.aside, bridge.counts.unsure) == (1, 0)
    assert (told.count("aside"), told.count("waits")) == (1, 2)


async def test_a_source_with_a_position_does_not_pass_what_could_not_be_moved() -> None:
    """A position that stood behind it would be its end: so what follows it comes again, and may be there twice."""

    class Places(Numbers):
        has_position = True

    source, sink = Places(3, has_dead_letters=True), Shelf(_1=[Unfit("large")] * 2)
    source.reject_fails = 1
    bridge, _ = made(source, sink)
    await run(bridge)
    assert (source.rejected, source.settled) == ([1], [0, 2])
    assert (sink.kept, source.given_back) == ([0, 2, 2], [1, 2])
    assert bridge.counts.unsure == 1


async def test_a_stop_gives_back_what_could_not_be_moved() -> None:
    source, sink = Numbers(2, has_dead_letters=True), Shelf(_0=[Unfit("large")])
    source.reject_fails = 1
    bridge, _ = made(source, sink)
    sink.may_answer.clear()
    running = asyncio.create_task(run(bridge))
    await until(lambda: sink.asked)
    bridge.stop()
    sink.may_answer.set()
    await running
    assert (source.rejected, source.settled, source.given_back) == ([], [1], [0])


async def test_what_fits_nowhere_and_has_no_place_ends_the_bridge_and_stays() -> None:
    """What stands before it is done; it, and what follows, is not."""
    source, sink = Numbers(6), Shelf(_1=[Unfit("too large")])
    bridge, _ = made(source, sink)
    with pytest.raises(Unplaced, match="message 1 of numbers: too large"):
        await run(bridge)
    assert (source.settled, source.given_back) == ([0], [1, 2, 3, 4, 5])


async def test_what_is_set_aside_is_done() -> None:
    aside: list[bytes] = []
    source, sink = Numbers(3), Shelf(_1=[Unfit("too large")])
    bridge, _ = made(source, sink, aside=lambda parcel, reason: aside.append(parcel.body))
    await run(bridge)
    assert (aside, source.settled) == ([b"1"], [0, 1, 2])


async def test_a_stop_finishes_what_is_on_its_way_and_gives_back_what_is_ahead() -> None:
    source, sink = Numbers(100), Shelf()
    sink.may_answer.clear()
    bridge, _ = made(source, sink)
    running = asyncio.create_task(run(bridge))
    await until(lambda: len(source.taken) == 6)
    bridge.stop()
    sink.may_answer.set()
    await running
    assert (source.settled, source.given_back) == ([0, 1, 2], [3, 4, 5])


async def test_a_bridge_that_may_wait_no_longer_gives_everything_back() -> None:
    source, sink = Numbers(100), Shelf()
    sink.may_answer.clear()
    bridge, _ = made(source, sink)
    running = asyncio.create_task(run(bridge))
    await until(lambda: len(source.taken) == 6)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (source.settled, sorted(source.given_back)) == ([], list(range(6)))


@pytest.mark.parametrize("count", [1, 3, 4, 6])
async def test_a_count_is_not_passed(count: int) -> None:
    source, sink = Numbers(10), Shelf()
    bridge, _ = made(source, sink, count=count, until_empty=False)
    await run(bridge)
    assert (source.settled, source.taken) == (list(range(count)), [])
