"""What more a world asks of its broker than to keep messages and hand them out: by its seed, or as a test says.

A capability is a row: settings of the queues, terms of what is published, verbs of the administrator. What must
hold where it is used is judged in sim_laws.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from minibroker.contract.settings import OVERFLOWS, UNIQUE_MODES

Settings = dict[str, Any]


def _nothing(random: Random) -> Settings:
    return {}


def _limits(random: Random) -> Settings:
    name, most = random.choice((("max_messages", (3, 20, 100)), ("max_bytes", (3_000, 20_000))))
    return {name: random.choice(most), "overflow": random.choice(OVERFLOWS)}


def _rates(random: Random) -> Settings:
    of_queue: Settings = {"rate": random.choice((50, 200)), "rate_burst": random.choice((1, 10))}
    of_key = {"key_rate": random.choice((20, 50)), "key_rate_burst": random.choice((1, 5))}
    return random.choice((of_queue, of_key, of_queue | of_key))


def _circuit(random: Random) -> Settings:
    return {
        "circuit_failures_percent": random.choice((30, 60)),
        "circuit_attempts": random.choice((2, 5)),
        "circuit_window_ms": 1_000,
        "circuit_open_ms": random.choice((20, 200, 1_000)),
        "circuit_by": random.choice(("queue", "key")),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One row: the settings of each queue, and what the administrator does, each as often as it is named."""

    settings: Callable[[Random], Settings] = _nothing
    verbs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What one publish asks for beside its body; 0 and empty: nothing."""

    key: bytes = b""
    priority: int = 0
    ttl_ms: int = 0
    unique: bytes = b""
    unique_mode: str = ""
    dedupe: bytes = b""

    @property
    def terms(self) -> tuple[Any, ...]:
        """What it adds to a key of the outbox, as `TERMS` of that."""
        terms = (0, 0, self.priority, self.unique_mode, 0, self.ttl_ms)
        return terms if any(terms) else ()


KEYED: Final = {"order", "rate", "pause", "circuit"}  # with these many messages have a key
CAPABILITIES: Final[Mapping[str, Capability]] = {
    "order": Capability(
        settings=lambda random: {"key_concurrency": random.choice((1, 1, 2, 5))},
        verbs=("cancel_key", "cancel"),
    ),
    "priority": Capability(
        settings=lambda random: {"max_wait_ms": random.choice((0, 0, 50, 500))},
    ),
    "ttl": Capability(
        settings=lambda random: {
            "message_ttl_ms": random.choice((0, 0, 2_000)),
            "on_expired": random.choice(("drop", "dead-letter")),
        },
    ),
    "unique": Capability(),
    "dedupe": Capability(),
    "limit": Capability(settings=_limits),
    "step": Capability(),
    "chain": Capability(),
    "result": Capability(verbs=("result",) * 4),
    "pause": Capability(verbs=("pause", "pause", "pause_key", "unpause", "weigh_key", "rest")),
    "rate": Capability(settings=_rates),
    "circuit": Capability(settings=_circuit),
    "redrive": Capability(verbs=("redrive_start", "redrive_some", "error_groups")),
    "exchange": Capability(verbs=("bind", "bindings")),
    "policy": Capability(verbs=("policy_set", "policy_set", "policy_delete")),
    "single": Capability(settings=lambda random: {"active_consumers": "one"}, verbs=("rest",)),
    "log": Capability(),  # beside the queues: sim_logs.py
    # Begun as they are handed out, to handlers that wait; and often somebody is gone before they arrive.
    "handed": Capability(settings=lambda random: {"lease_ms": random.choice((1_000, 5_000))}),
}


def drawn(seed: int) -> list[str]:
    """Return the capabilities that a seed draws: none, some or most of them."""
    random = Random(f"capabilities of {seed}")
    share = random.choice((0.0, 0.25, 0.5, 0.8))
    return [name for name in CAPABILITIES if random.random() < share]


class Uses:
    """The capabilities of one world."""

    def __init__(self, seed: int, names: Collection[str]) -> None:
        self.names = frozenset(names)
        self._rows = {name: row for name, row in CAPABILITIES.items() if name in self.names}
        self._random = Random(f"uses of {seed}")
        self.unique_modes: dict[str, str] = {}  # one a queue

    def settle(self, settings: Mapping[str, Settings]) -> None:
        """Add to the settings of each queue."""
        for own in settings.values():
            for row in self._rows.values():
                own |= row.settings(self._random)
        self.unique_modes = {queue: self._random.choice(UNIQUE_MODES) for queue in settings}

    def verbs(self) -> list[str]:
        """Return what the administrator does for them."""
        return [verb for row in self._rows.values() for verb in row.verbs]

    def wish(self, random: Random, queue: str) -> Wish:
        """Draw what a publish to a queue asks for."""
        key, priority, ttl_ms = b"", 0, 0
        if self.names & KEYED and random.random() < 0.7:
            key = b"k%d" % random.randrange(3)
        if "priority" in self.names:
            priority = random.choice((0, 0, 3, 9))
        if "ttl" in self.names:
            ttl_ms = random.choice((0, 0, 30, 300, 3_000, 600_000))
        wish = Wish(key, priority, ttl_ms)
        if "unique" in self.names and random.random() < 0.5:
            mode = self.unique_modes[queue]
            wish = replace(wish, unique=b"u%d" % random.randrange(4), unique_mode=mode)
        if "dedupe" in self.names and random.random() < 0.5:
            wish = replace(wish, dedupe=b"d%d" % random.randrange(30))
        return wish
