"""Bugs of keys: their order, limits, rates, pauses and weights."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

KEY_MUTANTS: Final = (
    Mutant(
        "a retry holds no place",
        "core/model/key.py",
        "    return isinstance(item, Message) and bool(item.charged or item.releases) and not item.dead\n",
        "    return isinstance(item, Message) and bool(item.releases) and not item.dead\n",
        ("core/test_core_keys.py", "model"),
        "the next message of a key runs before the one that failed",
    ),
    Mutant(
        "an end of work opens nothing",
        "core/model/keys.py",
        "            if key.work < most:\n",
        "            if key.work < 0:\n",
        ("core/test_core_keys.py", "model"),
        "a key that was busy once never goes on",
    ),
    Mutant(
        "a lane of another priority stays in turn",
        "core/model/keys.py",
        "            for others in self._group.lanes.levels:\n",
        "            for others in self._group.lanes.levels[:1]:\n",
        ("model",),
        "two priorities of one key are worked on at once",
    ),
    Mutant(
        "tokens are taken without a record",
        "core/model/keys.py",
        "        if known is None or int(known.value[0]) < until_unix_ms:\n",
        "        if known is None and until_unix_ms < 0:\n",
        ("core/test_core_rates.py",),
        "a restart gives the tokens of a rate again",
    ),
    Mutant(
        "a weight begins anew with each delivery",
        "core/model/keys.py",
        "        key.left = max((key.left or key.weight) - count, 0)\n",
        "        key.left = max(key.weight - count, 0)\n",
        ("core/test_core_key_settings.py",),
        "a weight of three is one of any number where the prefetch is small",
    ),
    Mutant(
        "a back-off ends a longer pause",
        "core/verbs/keying.py",
        "    if name and until > now.paused_until_unix_ms:\n",
        "    if name:\n",
        ("core/test_core_key_settings.py",),
        "a nack lets a key go on that somebody paused",
    ),
)
