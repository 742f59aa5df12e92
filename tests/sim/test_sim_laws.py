"""The laws of what a world may use more of its broker: each catches a broker that breaks it on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sim_capabilities import CAPABILITIES, drawn
from sim_ledger import Id, Ledger
from sim_world import World

from minibroker.contract.wire import pack_header
from minibroker.session.subscription import Subscription
from minibrokerd.core.model import exchanges, keys, noting, priorities
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.deliveries import Consumer, Run
from minibrokerd.core.model.deliveries import Delivery as ServerDelivery
from minibrokerd.core.model.keys import Keys
from minibrokerd.core.model.messages import Block, Message
from minibrokerd.core.model.policies import Policies
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.rates import Rate
from minibrokerd.core.model.single import Single
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.unique_keys import UniqueKeys
from minibrokerd.core.verbs import (
    attempts,
    cancelling,
    dispatching,
    logins,
    overflowing,
    parts,
    pausing,
    publishing,
    routing,
    settling,
)
from minibrokerd.core.verbs.chaining import After
from minibrokerd.core.verbs.uniqueness import Plan

SEED: Final = 40_000
WORLDS: Final = 60  # in which a bug is to show


@dataclass(frozen=True, slots=True)
class Bug:
    """One that is planted: `there.name` is `instead`; the law that it breaks, and where it shows."""

    law: str
    capability: str
    there: Any
    name: str
    instead: Any


_drop = overflowing._drop
_begin = publishing.begin
_value_of = noting.value_of
_not_begun = settling.not_begun
_begin_handed = dispatching.begin_handed


def drop_silently(store: Store, queue: Queue, leaving: list[Id]) -> None:
    """End messages, and count none."""
    _drop(store, queue, leaving)
    queue.group.counters["overflow_dropped"] -= len(leaving)


def say_another(kept: Any) -> dict[str, Any]:
    """Return of a message what another one came to."""
    said = _value_of(kept)
    return said | {"result": pack_header("0-0")} if said.get("result") else said


def begin_alone(
    store: Store, after: After, part: Any, block: Block, published: Iterable[Run]
) -> None:
    """Wait for what is named, and not for what stands before it in its step."""
    _begin(store, after, part, block, list(published)[:1])


def admit_all(self: Single, consumer: Consumer) -> bool:
    """Let whoever comes stand in line beside the one that has the turn."""
    self.holder = self.holder or consumer
    return True


def some_queues_of(*arguments: Any) -> list[Queue]:
    """Leave one of the queues out."""
    found = exchanges.queues_of(*arguments)
    return [] if found is None else found[1:]


def charge_all(store: Store, queue: Queue, message: Message, delay_ms: int = 0) -> None:
    """Charge what comes back unseen."""
    by_failure, expired, worker_lost = message.attempts
    message.attempts = by_failure, expired, worker_lost + 1
    _not_begun(store, queue, message, delay_ms)


def begin_next_too(store: Store, queue: Queue, delivery: ServerDelivery, count: int) -> bool:
    """Begin the next one for the same word."""
    assert delivery.connection is not None
    store.connections[delivery.connection].waits = delivery.consumer
    return _begin_handed(store, queue, delivery, count)


BUGS: Final = (
    Bug("K1", "order", Keys, "turn_of", lambda self, name, wanted, alone: (None, wanted)),
    Bug("K2", "order", keys, "is_back", lambda item: False),
    Bug("P1", "priority", priorities, "insort", lambda order, value: order.append(value)),
    Bug("T1", "ttl", dispatching, "alive", lambda store, group, items, token: items),
    Bug("U1", "unique", UniqueKeys, "hold", lambda self, block, first, stop: None),
    Bug("U2", "unique", UniqueKeys, "let_go", lambda self, block, first, stop: None),
    Bug("D1", "dedupe", Plan, "_of_dedupe", lambda self, queue, id: None),
    Bug("Z1", "pause", pausing, "_set_flags", lambda store, key: None),
    Bug("V1", "rate", Rate, "take", lambda self, name, count, now_ms: now_ms),
    Bug("R1", "result", noting, "value_of", say_another),
    Bug("A1", "step", parts, "Claims", lambda is_step: Claims(is_step=False)),
    Bug("F1", "chain", publishing, "begin", begin_alone),
    Bug("L1", "limit", overflowing, "_has_room", lambda queue, asked: True),
    Bug("L2", "limit", overflowing, "_drop", drop_silently),
    Bug("C1", "order", cancelling, "end_runs", lambda *arguments: None),
    Bug("X1", "exchange", routing, "queues_of", some_queues_of),
    Bug("P1", "policy", Policies, "opened", lambda self, store: None),
    Bug("S1", "single", Single, "admits", admit_all),
    Bug("I1", "exchange", routing, "_write", lambda *arguments: None),
    Bug("H1", "handed", logins, "_give_back_unseen", lambda *arguments: None),
    Bug("H1", "handed", settling, "not_begun", charge_all),
    Bug("H2", "handed", attempts, "_cause", lambda store, delivery: "broker_lost"),
    Bug("H3", "handed", dispatching, "begin_handed", begin_next_too),
    Bug("H4", "handed", Subscription, "give_back_handed", lambda self: False),
)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.law} {bug.name}")
def test_a_broken_law_is_noticed(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    """In few worlds, under its own name."""
    monkeypatch.setattr(bug.there, bug.name, bug.instead)
    for seed in range(SEED, SEED + WORLDS):
        world = World(seed, borders=True, capabilities=(bug.capability,)).run()
        if any(text.startswith(f"{bug.law}:") for text in world.checker.violations):
            return
    pytest.fail(f"{bug.law} was not broken in {WORLDS} worlds")


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_capability_is_used_and_breaks_nothing(name: str) -> None:
    """By itself; together they are in the worlds of test_sim.py."""
    worlds = [
        World(seed, borders=True, capabilities=(name,)).run() for seed in range(SEED, SEED + 3)
    ]
    assert [text for world in worlds for text in world.checker.violations] == []
    assert sum(world.laws.judged for world in worlds)


def test_seeds_draw_none_some_and_most_capabilities() -> None:
    counts = [len(drawn(seed)) for seed in range(100)]
    assert counts.count(0) >= 20
    assert {name for seed in range(100) for name in drawn(seed)} == set(CAPABILITIES)


def test_the_time_of_a_token_is_that_of_the_step_that_gave_it_away() -> None:
    times_us = iter((5, 7))  # asked for where there is a new one
    ledger = Ledger(lambda: next(times_us))
    for newest in (1, 1, 4):
        ledger.note(newest)
    assert [ledger.handed_us(token) for token in (1, 2, 3, 4)] == [5, 7, 7, 7]
