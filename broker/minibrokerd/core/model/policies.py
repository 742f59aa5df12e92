"""Policies: settings that queues have by their names, and limits that nobody lifts (decision 65).

What a queue has is found setting by setting: what somebody chose, else what the policy of the highest priority
says that has this setting, else the default; and of that and of all limits that fit, the smallest. Nothing of it
is recorded for a queue. Queues that nobody chose anything for share one map for each combination of policies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from minibroker.contract.limits import DLQ_SUFFIX, GROUP_MARK
from minibroker.contract.settings import LIMITABLE, LOG, SETTINGS, Settings, check_settings
from minibrokerd.core.model.kept import POLICY, Entry
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.retained import OF_WORK

if TYPE_CHECKING:
    from minibrokerd.core.model.state import Store

PATTERN: Final = re.compile(r"[A-Za-z0-9._*@-]{1,128}")
OF_SOURCES: Final = (
    "key_",
    "delete_unused_ms",
    "kind",
    "retention_",
    "compaction_",
    "tombstone_",
)  # settings that no dead-letter queue has
OF_GROUPS: Final = frozenset({"delete_unused_ms"})  # settings of a group that must be chosen
LOOKS: Final = 20  # of `in_steps`, for a queue that changes; a match is one
CHOSEN: Final = "chosen"  # where a setting comes from that somebody set or declared
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[str, int | str]).decode


class Decided(dict[str, int | str]):
    """Settings that policies have a part in: `origins` of these, and `limits` by setting. Never changed."""

    __slots__ = ("limits", "origins")

    def __init__(self, settings: Settings, origins: dict[str, str], limits: dict[str, int]) -> None:
        super().__init__(settings)
        self.origins = origins
        self.limits = limits


class Policy:
    """One policy; or, `operator`, a limit."""

    __slots__ = (
        "_inner",
        "_last",
        "first",
        "name",
        "of_dead",
        "operator",
        "pattern",
        "priority",
        "set_aside",
        "settings",
    )

    def __init__(
        self,
        name: str,
        pattern: str,
        settings: Settings,
        priority: int,
        *,
        operator: bool,
        set_aside: str = "",
    ) -> None:
        self.name = name
        self.pattern = pattern
        self.settings = settings
        self.priority = priority
        self.operator = operator
        self.set_aside = set_aside  # why it holds for no queue: it was taken once and is none now
        self.of_dead = pattern.endswith(DLQ_SUFFIX)
        self.first, *inner = pattern.split("*")  # what a name must begin with
        self._last = inner.pop() if inner else None  # and end; None: it is this name
        self._inner = [each for each in inner if each]

    def takes(self, name: str) -> bool:
        """Whether a name fits that begins as it must; what is between stars is looked for once, left to right."""
        last, at = self._last, len(self.first)
        if last is None:
            return len(name) == at
        stop = len(name) - len(last)
        for each in self._inner:
            at = name.find(each, at, stop) + len(each)
            if at < len(each):
                return False
        return at <= stop and name.endswith(last)

    @property
    def key(self) -> tuple[int, str]:
        """Under which it is kept."""
        return int(self.operator), self.name

    def value(self) -> tuple[int, bytes, bytes]:
        """Return what its entry has."""
        return self.priority, self.pattern.encode(), _pack(self.settings)


def check_policy(pattern: str, settings: dict[str, Any], priority: int, *, operator: bool) -> None:
    """Check what a policy says.

    Raises:
        ValueError: says what is wrong with it.
    """
    if not PATTERN.fullmatch(pattern):
        raise ValueError(
            f"{pattern!r:.200} is no pattern of queue names; one has 1 to 128 of A-Z a-z 0-9 . _ - @, and * for "
            "any characters"
        )
    if not settings:
        raise ValueError("it says no setting")
    check_settings(settings)
    of_dead = pattern.endswith(DLQ_SUFFIX)
    for name, value in settings.items():
        if name == "durability":
            raise ValueError(
                "durability is what a confirm promises to a program; set it at the queue, or declare it"
            )
        if name == "kind":
            raise ValueError("what kind a queue is is chosen once, for each; declare it")
        if of_dead and name.startswith(OF_SOURCES):
            raise ValueError(f"a dead-letter queue has no {name}; say it for its source")
        if operator and not SETTINGS[name].may_limit:
            raise ValueError(
                f"{name} has no limit; those that may have one are {', '.join(LIMITABLE)}"
            )
        if operator and not value:
            raise ValueError(f"a limit of 0 for {name} limits nothing; leave it out")
    if operator and priority:
        raise ValueError("limits have no priority: the smallest one holds")


class Policies:
    """All policies and limits."""

    __slots__ = ("_decided", "_limits", "_policies", "by_key", "carry_out", "done", "last_batch")

    def __init__(self) -> None:
        self.by_key: dict[tuple[int, str], Policy] = {}
        self.last_batch = 0  # has the newest record of any
        # Where those that all queues are brought up to date with have come, by their numbers; None: they are.
        self.done: int | None = None
        self.carry_out: Callable[[Store, Queue], None] = _nothing  # of verbs/policing.py
        self._policies: list[Policy] = []  # the first one that has a setting says it
        self._limits: list[Policy] = []
        self._decided: dict[tuple[str | None, ...], Decided] = {}

    def __bool__(self) -> bool:
        return bool(self.by_key)

    def opened(self, store: Store) -> None:
        """Take up what stands after a replay; what is no policy any more is set aside, and its entry stays."""
        for entry in store.kept.of(POLICY):
            policy = _stored(entry)
            self.by_key[policy.key] = policy
            if policy.set_aside:
                store.jobs.append(partial(_tell, store, policy))
        if self.by_key:
            self._arrange()
            for queue in store.queues.values():
                queue.take(self.decide(queue))

    def put(self, store: Store, policy: Policy) -> None:
        """Let a policy hold, also over a restart."""
        self.by_key[policy.key] = policy
        store.kept.put(store, POLICY, policy.key, policy.value())
        self.last_batch = store.open_batch
        self._arrange()

    def end(self, store: Store, policy: Policy) -> None:
        """Let a policy hold no more."""
        del self.by_key[policy.key]
        store.kept.end(store, POLICY, policy.key)
        self.last_batch = store.open_batch
        self._arrange()

    def _arrange(self) -> None:
        by_name = [
            self.by_key[key] for key in sorted(self.by_key) if not self.by_key[key].set_aside
        ]
        self._limits = [each for each in by_name if each.operator]
        policies = [each for each in by_name if not each.operator]
        self._policies = sorted(policies, key=lambda each: -each.priority)
        self._decided.clear()

    def decide(self, queue: Queue) -> Settings:
        """Return what a queue has by now."""
        own = queue.own()
        fit, limits = _fit(self._policies, queue), _fit(self._limits, queue)
        if not fit and not limits:
            return DEFAULTS | own if own else DEFAULTS
        others = _not_for(queue, own)
        if own:
            return _decide(own, fit, limits, others)
        names = (*(each.name for each in fit), None, *(each.name for each in limits))
        key = (*names, None, *others)
        if key not in self._decided:
            self._decided[key] = _decide(own, fit, limits, others)
        return self._decided[key]


def _stored(entry: Entry) -> Policy:
    (operator, name), (priority, pattern, packed) = entry.key, entry.value
    assert isinstance(priority, int)
    assert isinstance(pattern, bytes)
    assert isinstance(packed, bytes)
    settings: Settings = {}
    why = ""
    try:
        settings = _unpack(packed)
        check_policy(pattern.decode(), settings, priority, operator=bool(operator))
    except (ValueError, msgspec.MsgspecError) as error:
        why = str(error)
    text = pattern.decode(errors="replace")
    return Policy(str(name), text, settings, priority, operator=bool(operator), set_aside=why)


def _tell(store: Store, policy: Policy) -> bool:
    """Say to the operator that a policy holds no more; a job of the first tick, as a start has nobody to tell."""
    kind = "limit" if policy.operator else "policy"
    store.effects.warn("policy_set_aside", kind=kind, name=policy.name, text=policy.set_aside)
    return True


def _fit(policies: list[Policy], queue: Queue) -> list[Policy]:
    name, is_dlq, begins = queue.name, queue.is_dlq, queue.name.startswith
    return [
        each
        for each in policies
        if begins(each.first) and each.of_dead == is_dlq and each.takes(name)
    ]


def _not_for(queue: Queue, own: Settings) -> frozenset[str]:
    """Return what policies and limits do not say for a queue: a log, or a group, whose position would be lost."""
    if own.get("kind") == LOG:
        return OF_WORK
    is_group = GROUP_MARK in queue.name
    return OF_GROUPS if is_group and not own.get("delete_unused_ms") else frozenset()


def _decide(
    own: Settings, policies: list[Policy], limits: list[Policy], others: frozenset[str]
) -> Decided:
    settings: Settings = {}
    origins: dict[str, str] = {}
    for policy in policies:
        for name in policy.settings.keys() - settings.keys() - own.keys() - others:
            settings[name] = policy.settings[name]
            origins[name] = f"policy {policy.name}"
    settings = DEFAULTS | settings | own
    most: dict[str, int] = {}
    for limit in limits:
        for name, value in limit.settings.items():
            assert isinstance(value, int)
            if name in others:
                continue
            most[name] = min(most.get(name, value), value)
            if not settings[name] or int(settings[name]) > value:
                settings[name] = value
                origins[name] = f"limit {limit.name}"
    return Decided(settings, origins, most)


def origins_of(queue: Queue) -> dict[str, str]:
    """Return where the settings of a queue come from that are not the defaults."""
    origins = dict.fromkeys(queue.chosen or (), CHOSEN)
    return origins | queue.settings.origins if isinstance(queue.settings, Decided) else origins


def lifetime_of(queue: Queue, asked_ms: int) -> int:
    """Return the time to live of a message that asks for `asked_ms`; 0: for none, which is that of its queue."""
    settings = queue.settings
    if not asked_ms:
        return queue.setting("message_ttl_ms")
    if isinstance(settings, Decided):
        return min(asked_ms, settings.limits.get("message_ttl_ms", asked_ms))
    return asked_ms


def behind(store: Store, queue: Queue) -> bool:
    """Whether the policies were changed, and a queue does not know it yet."""
    done = store.policies.done
    return done is not None and queue.number > done


def all_queues(store: Store) -> Iterator[int]:
    """Bring all queues up to date, yielding how much was looked at; all of them again where `done` is set back."""
    policies = store.policies
    while policies.done is not None:
        numbers = store.numbers_after(policies.done, 1)
        policies.done = numbers[0] if numbers else None
        for number in numbers:
            policies.carry_out(store, store.by_number[number])
            yield LOOKS + len(policies.by_key)


def _nothing(store: Store, queue: Queue) -> None:
    """Stand in for what carries a decision out."""
