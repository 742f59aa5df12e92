"""Policies over both clients, on a server and on a broker in process."""

from __future__ import annotations

from typing import Any

import pytest

import minibroker


async def test_a_policy_is_set_shown_and_deleted(broker: Any, queue: Any) -> None:
    name = queue.name
    made = await broker.policies.set(name, f"{name}*", priority=3, max_attempts=9, lease_ms=700)
    expected = minibroker.Policy(
        name, f"{name}*", {"max_attempts": 9, "lease_ms": 700}, 3, operator=False
    )
    assert made == expected
    assert expected in await broker.policies.list()
    await queue.set(max_attempts=4)
    settings = await queue.settings()
    assert (settings["max_attempts"], settings["lease_ms"]) == (4, 700)
    assert await queue.origins() == {"max_attempts": "chosen", "lease_ms": f"policy {name}"}
    assert (await queue.set(unset=["max_attempts"]))["max_attempts"] == 9
    assert await broker.policies.delete(name)
    assert not await broker.policies.delete(name)
    assert (await queue.settings())["lease_ms"] == 30_000
    assert await queue.origins() == {}


async def test_what_a_program_declares_is_within_the_limits(broker: Any, queue: Any) -> None:
    """It is told so, as of anything that differs."""
    name = queue.name
    await broker.policies.set(name, name, operator=True, max_messages=10)
    try:
        declared = broker.queue(name, max_messages=1_000)
        with pytest.raises(minibroker.SettingsDiffer):
            await declared.declared()
        assert dict(declared.differs) == {"max_messages": (1_000, 10)}
        assert (await declared.origins())["max_messages"] == f"limit {name}"
        (limit,) = [each for each in await broker.policies.list() if each.name == name]
        assert limit.operator
    finally:
        assert await broker.policies.delete(name, operator=True)
    assert (await declared.settings())["max_messages"] == 1_000


async def test_what_makes_no_sense_is_refused(broker: Any, queue: Any) -> None:
    for error, arguments, more in (
        (minibroker.BadValue, ("p", "*"), {"nonsense": 1}),
        (minibroker.BadValue, ("p", "*"), {"max_attempts": 0}),
        (minibroker.BadValue, ("p", ""), {"max_attempts": 1}),
        (minibroker.BadValue, ("p", "*"), {}),
        (minibroker.BadValue, ("p", "*"), {"max_attempts": 1, "operator": True}),
        (minibroker.BadValue, ("p", "*"), {"max_attempts": 1, "priority": -1}),
        (minibroker.BadName, ("", "*"), {"max_attempts": 1}),
        (minibroker.BadName, ("a b", "*"), {"max_attempts": 1}),
        (TypeError, (5, "*"), {"max_attempts": 1}),
        (TypeError, ("p", 5), {"max_attempts": 1}),
    ):
        with pytest.raises(error):
            await broker.policies.set(*arguments, **more)
    with pytest.raises(minibroker.BadValue):
        await queue.set(unset=["nonsense"])
    assert not [each for each in await broker.policies.list() if each.name == "p"]
