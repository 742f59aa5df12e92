"""Between the looks and the calls: how often is judged, and what a change of the webhook begins anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any

from minibrokerd.monitoring.alarm import MOST_REST_S, Alarm
from minibrokerd.monitoring.readings import Reading
from minibrokerd.monitoring.webhook import Webhook


class World:
    """A watch whose readings take `takes_s`, and an alarm that calls nobody."""

    def __init__(self, takes_s: float) -> None:
        self.now_s = 1_000.0
        self.takes_s = takes_s
        self.judged_s: list[float] = []
        self.told: list[str] = []
        self.after_look: Callable[[Mapping[str, int]], Awaitable[None]] | None = None
        loop: Any = SimpleNamespace(time=lambda: self.now_s)
        watch: Any = self
        self.alarm = Alarm(watch, loop, lambda: 0, Webhook("http://a/", bytes(32)))
        self.alarm.caller.put = lambda call: self.told.append(call.type)  # type: ignore[method-assign]

    async def readings(self) -> Any:
        """As a watch."""
        self.judged_s.append(self.now_s - 1_000)
        self.now_s += self.takes_s
        return SimpleNamespace(readings=[Reading("memory", 99)])

    async def look(self, seconds: int, dead: Mapping[str, int] = {}) -> None:
        """Look every two seconds for so long."""
        assert self.after_look is not None
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            before_s = self.now_s
            await self.after_look(dead)
            self.now_s = before_s + 2


async def test_judging_takes_a_hundredth_of_the_time_and_dead_letters_do_not_wait_for_it() -> None:
    world = World(0.07)
    await world.look(20)
    assert world.judged_s == [0, 8, 16]
    assert world.told == ["check.changed"]
    await world.look(2, {"a": 1})
    assert world.told[1:] == ["dead_letters.new"]
    assert world.judged_s == [0, 8, 16]


async def test_few_queues_are_judged_at_each_look_and_many_after_a_while() -> None:
    world = World(0.001)
    await world.look(10)
    assert world.judged_s == [0, 2, 4, 6, 8]
    world = World(1)
    await world.look(62)
    assert world.judged_s == [0, MOST_REST_S, 2 * MOST_REST_S]


async def test_another_address_is_told_all_trouble_at_once_and_nobody_costs_nothing() -> None:
    world = World(1)
    await world.look(2)
    world.alarm.set(Webhook("http://b/", bytes(32)))
    await world.look(2)
    assert (world.judged_s, world.told) == ([0, 2], 2 * ["check.changed"])
    world.alarm.set(None)
    await world.look(60, {"a": 1})
    assert (len(world.judged_s), len(world.told)) == (2, 2)
