"""Requests about policies, and what a queue does when another one decides about it."""

from __future__ import annotations

from typing import Any

from minibroker.contract import limits
from minibrokerd.core.model.arranging import arrange
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.keys import in_steps
from minibrokerd.core.model.policies import Policy, all_queues, behind, check_policy
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import QUEUE_NAME, Refused, check_space
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.dooming import wake_doomed
from minibrokerd.core.verbs.unused import watch


def policy_set(store: Store, frame: Frame, part: Any) -> None:
    """Let a policy, or a limit, hold from now on."""
    if not QUEUE_NAME.fullmatch(part.name):
        raise Refused(
            "bad_name",
            f"{part.name!r:.200} is no name of a policy; use 1 to {limits.MAX_QUEUE_NAME_CHARS} of "
            "A-Z a-z 0-9 . _ -",
        )
    operator = bool(part.operator)
    try:
        check_policy(part.pattern, part.settings, part.priority, operator=operator)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error
    known = store.policies
    policy = Policy(part.name, part.pattern, part.settings, part.priority, operator=operator)
    older = known.by_key.get(policy.key)
    if older is None and len(known.by_key) >= limits.MAX_POLICIES:
        raise Refused(
            "limit_reached",
            f"this server has {limits.MAX_POLICIES} policies and limits, as many as it can; one pattern may do "
            "for several queues",
        )
    if older is None or older.set_aside or older.value() != policy.value():
        check_space(short=store.short)
        known.put(store, policy)
        said = ", ".join(f"{name}={value}" for name, value in policy.settings.items())
        _note(store, frame, "policy_set", policy, pattern=policy.pattern, settings=said)
        _begin(store)
    _reply(store, frame, _told(policy) | {"created": int(older is None)})


def policies(store: Store, frame: Frame, part: Any) -> None:
    """Show all policies and limits, by their names."""
    known = store.policies
    _reply(store, frame, {"policies": [_told(known.by_key[key]) for key in sorted(known.by_key)]})


def policy_delete(store: Store, frame: Frame, part: Any) -> None:
    """Let a policy, or a limit, hold no more."""
    policy = store.policies.by_key.get((part.operator, part.name))
    if policy is not None:
        store.policies.end(store, policy)
        _note(store, frame, "policy_deleted", policy)
        _begin(store)
    _reply(store, frame, {"deleted": int(policy is not None)})


def _begin(store: Store) -> None:
    """Bring all queues up to date from the first one on; if that is under way, it goes on there."""
    is_under_way, store.policies.done = store.policies.done is not None, 0
    if not is_under_way:
        in_steps(store, all_queues(store))


def carry_out(store: Store, queue: Queue) -> None:
    """Have a queue do what is decided about it by now: what was chosen, or a policy, is another one."""
    before, after = queue.settings, store.policies.decide(queue)
    queue.take(after)
    if after == before:
        return
    arrange(store, queue)
    if after["delete_unused_ms"] != before["delete_unused_ms"]:
        watch(store, queue)
    if queue.is_dlq:
        wake_doomed(store, queue)  # there may be more room


def catch_up(store: Store, frame: Frame) -> None:
    """Bring the queues up to date that a frame names: the policies were changed, and not all know it yet."""
    for part in frame.parts:
        for field in ("queue", "target"):
            queue = store.queues.get(getattr(part, field, ""))
            if queue is not None:
                catch_up_queue(store, queue)


def catch_up_queue(store: Store, queue: Queue) -> None:
    """Bring one queue up to date, and the DLQ or the source of it."""
    of_it = queue.name + limits.DLQ_SUFFIX, queue.name.removesuffix(limits.DLQ_SUFFIX)
    for each in (queue, *map(store.queues.get, of_it)):
        if each is not None and behind(store, each):
            carry_out(store, each)


def _told(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "pattern": policy.pattern,
        "settings": policy.settings,
        "priority": policy.priority,
        "operator": int(policy.operator),
        "set_aside": policy.set_aside,
    }


def _note(store: Store, frame: Frame, event: str, policy: Policy, **more: str) -> None:
    client = store.connections[frame.connection].session.client
    kind = "limit" if policy.operator else "policy"
    store.effects.note(
        event, client=client, connection=frame.connection, kind=kind, name=policy.name, **more
    )


def _reply(store: Store, frame: Frame, value: dict[str, Any]) -> None:
    """Answer when what is said of policies is safe."""
    store.reply(frame.connection, frame.request, store.policies.last_batch, value)
