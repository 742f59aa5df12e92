"""What bindings take and policies say, found by trying everything; for routing_model.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

from minibroker.contract.settings import SETTINGS

PATTERNS = ("*", "a", "m*", "*e*", "*w", "b.dlq")
LEAST = {
    "lease_ms": 1_000,
    "max_attempts": 2,
    "max_bytes": 10**9,
}  # of what policies and limits say


def topic(pattern: list[str], words: list[str]) -> bool:
    """Whether a topic pattern takes these words, by trying everything."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic(pattern[1:], words[1:])


def words_of(text: str) -> list[str]:
    return text.split(".") if text else []


def fits_headers(pattern: str, headers: dict[str, str]) -> bool:
    mode, *pairs = pattern.split(" ")
    has = [
        pair in headers or pair in {f"{name}={headers[name]}" for name in headers} for pair in pairs
    ]
    return all(has) if mode == "all" else any(has)


@dataclass(frozen=True)
class Police:
    """One policy; or, `operator`, a limit."""

    pattern: str
    priority: int
    settings: dict[str, int]


def some_policy(rng: Random) -> tuple[tuple[int, str], Police]:
    """Return a policy or a limit to be set, by (1: a limit, name)."""
    operator = rng.randrange(2)
    names = ["max_bytes"] if operator else rng.sample(list(LEAST), rng.randint(1, 3))
    settings = {name: LEAST[name] + rng.randrange(9) for name in names}
    priority = 0 if operator else rng.randrange(3)
    return (operator, rng.choice("pq")), Police(rng.choice(PATTERNS), priority, settings)


def said(policies: Mapping[tuple[int, str], Police], queue: str, setting: str) -> int:
    """Return what a setting of a queue is that nobody chose there; no bound is very much."""
    fit = {
        key: each
        for key, each in policies.items()
        if setting in each.settings and fnmatchcase(queue, each.pattern)
    }
    chosen = [(-each.priority, key) for key, each in fit.items() if not key[0]]
    default = SETTINGS[setting].default
    assert isinstance(default, int)
    value = fit[min(chosen)[1]].settings[setting] if chosen else default
    return min([value or 2**53, *(each.settings[setting] for key, each in fit.items() if key[0])])
