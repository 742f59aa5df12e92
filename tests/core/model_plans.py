"""What a publish comes to in the model: unique keys, and a queue at its limit (protocol.md, 5.9 and 5.11)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core_client import Run
from model_kept import Known
from modelled import Id, Logged, Modelled

from model import Model

DUPLICATE, REPLACES = 0, 1


@dataclass(slots=True)
class Plan:
    """A publish as it would be done now: refused with a code, or what of it is stored, and what ends for it.

    Messages of the publish itself are named by their index.
    """

    code: str = ""
    gone: set[int] = field(default_factory=set)  # not stored, or replaced by another one of it
    replaced: list[Id] = field(default_factory=list)
    times_ms: dict[int, int] = field(default_factory=dict)  # when those are ready that keep a time
    known: list[tuple[int, int, Id | int]] = field(default_factory=list)  # index, how, the other
    leaving: list[Id] = field(default_factory=list)  # what gives way
    dedupes: dict[str, Id | int] = field(default_factory=dict)  # ids that are new, and what stands

    def known_runs(self, first: Id) -> list[Run]:
        """Return what the confirm says, if the first message has this id."""
        origin, sequence = first
        return [
            (how << 32 | index, *((origin, sequence + of) if isinstance(of, int) else of), 1)
            for index, how, of in self.known
        ]


def plan_of(model: Model, arguments: dict[str, Any], most: int = 0) -> Plan:
    """Return what a publish to `q` comes to; `most` (not 0): so many must have room, whatever is dropped."""
    plan = Plan()
    if not most:
        _look_at_names(model, arguments, plan)
    more = arguments["count"] - len(plan.gone) - len(plan.replaced)
    _look_at_room(model, most or more, plan)
    return plan


def _waits(message: Modelled) -> bool:
    return message.state in ("READY", "DELAYED", "ENTERING") and not message.dead


def _look_at_names(model: Model, arguments: dict[str, Any], plan: Plan) -> None:
    """Look at the dedupe id of each, and where that is new, or none, at its unique key."""
    latest: dict[str, int] = {}
    count = arguments["count"]
    dedupes = arguments.get("dedupes", [""] * count)
    for index, (name, key) in enumerate(
        zip(dedupes[:count], arguments["uniques"][:count], strict=True)
    ):
        stands = plan.dedupes.get(name)
        if stands is None and name in model.kept.dedupes:
            stands = model.kept.dedupes[name].id
        is_new = stands is None
        if is_new and key:
            stands = _of_unique(model, arguments, plan, latest, index)
        if is_new and name:
            plan.dedupes[name] = index if stands is None else stands
        if stands is not None:
            plan.gone.add(index)
            plan.known.append((index, DUPLICATE, stands))


def _of_unique(
    model: Model, arguments: dict[str, Any], plan: Plan, latest: dict[str, int], index: int
) -> Id | int | None:
    """Return what holds its key and stands, if it is dropped for that; else note what it replaces."""
    key = arguments["uniques"][index]
    holders = sorted((m for m in model.of("q") if m.unique == key), key=lambda m: m.id)
    others: list[tuple[Id | int, int]] = []  # what it replaces, and when that would be ready
    before = latest.get(key)
    stands = holders[-1].id if before is None and holders else before
    if arguments["mode"] == "drop" and stands is not None:
        return stands
    if before is not None:
        plan.gone.add(before)
        own_ms = model.now_ms + arguments["delays"][before]
        others = [(before, plan.times_ms.get(before, own_ms))]
    else:
        others = [(m.id, m.ready_at_ms) for m in reversed(holders) if _waits(m)]
        plan.replaced += [id for id, _ in others if not isinstance(id, int)]
    plan.known += [(index, REPLACES, other) for other, _ in others]
    if arguments["mode"] == "keep-latest" and others:
        plan.times_ms[index] = min(ready_at_ms for _, ready_at_ms in others)
    latest[key] = index
    return None


def _look_at_room(model: Model, more: int, plan: Plan) -> None:
    limit, overflow = model.setting("q", "max_messages"), model.settings["q"]["overflow"]
    lacks = len(model.of("q")) + more - limit
    if not limit or more <= 0 or lacks <= 0:
        return
    if more > limit:
        plan.code = "too_large"
        return
    waiting = [m.id for m in model.of("q") if _waits(m) and m.state != "ENTERING"]
    plan.leaving = sorted(set(waiting) - set(plan.replaced))[:lacks]
    most = model.setting("q.dlq", "max_messages") if overflow == "dead-letter" else 0
    full = most and len(model.of("q.dlq")) + lacks > most
    keeps = overflow in ("block", "reject") or "q" in model.awaits
    if keeps or len(plan.leaving) < lacks or full:
        plan.code = "queue_full" if overflow == "reject" else "busy"


def publish(model: Model, first: Id, arguments: dict[str, Any], plan: Plan) -> list[Id]:
    """Messages enter, or wait for their batch; what they replace, or what gives way, ends. Return their ids."""
    for id in plan.replaced:
        del model.messages[id]
        model.counters["replaced"] += 1
    for id in plan.leaving:
        if model.settings["q"]["overflow"] == "dead-letter":
            model.move(model.messages[id], "q.dlq")
        else:
            del model.messages[id]
            model.counters["dropped"] += 1
    until = model.unix_ms + (arguments.get("window_ms") or model.setting("q", "dedupe_window_ms"))
    in_log = model.settings["q"]["durability"] != "memory"
    for name, of in plan.dedupes.items():
        id = (first[0], first[1] + of) if isinstance(of, int) else of
        model.kept.put(name, Known(id, until, in_log))
    stored = [index for index in range(arguments["count"]) if index not in plan.gone]
    return [_enter(model, (first[0], first[1] + index), index, arguments, plan) for index in stored]


def _enter(model: Model, id: Id, index: int, arguments: dict[str, Any], plan: Plan) -> Id:
    assert id not in model.messages, "an id came twice"
    durability = str(model.settings["q"]["durability"])
    own_ms = model.now_ms + arguments["delays"][index]
    ready_at_ms = plan.times_ms.get(index, own_ms)
    message = model.messages[id] = Modelled(
        id, "q", arguments["keys"][index], arguments["bodies"][index], durability, model.epoch,
        "ENTERING", ready_at_ms,
    )  # fmt: skip
    terms = arguments["terms"]
    message.own_max_attempts, message.own_lease_ms, message.priority, message.ttl_ms = terms
    message.unique = arguments["uniques"][index]
    message.published_unix_ms = model.unix_ms
    message.expires_ms = model.now_ms + message.ttl_ms
    if durability != "memory":
        wait_ms = max(ready_at_ms - model.now_ms, 0)
        message.logged = Logged("q", False, ready_at_ms, wait_ms, model.unix_ms)
    if durability != "sync":
        model.wait(message)
    model.counters["published"] += 1
    return id
