"""Bugs of the order of priorities and of circuits."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

ORDER_MUTANTS: Final = (
    Mutant(
        "an aged priority gives all that it has",
        "core/model/priorities.py",
        "            if not load.add(lanes, lanes.next_count):\n",
        "            if not load.add(lanes, load.most):\n",
        ("core/test_core_ageing.py", "model"),
        "what is not old goes before higher priorities, beside what is",
    ),
    Mutant(
        "the lowest aged priority goes first",
        "core/model/priorities.py",
        "                found, upto_ms = lanes, since_ms - 1\n",
        "                found = lanes\n",
        ("core/test_core_ageing.py", "model"),
        "of two that waited for too long the newer one goes first",
    ),
    Mutant(
        "the age of a closed key counts",
        "core/model/ages.py",
        "            since_ms = lane.oldest_ms if lane in self._turn else None\n",
        "            since_ms = lane.oldest_ms\n",
        ("core/test_core_ageing.py", "model"),
        "a priority goes first for a message that may not go",
    ),
    Mutant(
        "a key that is opened again has no age",
        "core/model/lanes.py",
        "        self._turn.append(lane)\n        if self.ages is not None:\n"
        "            self._came(lane)\n        return True\n",
        "        self._turn.append(lane)\n        return True\n",
        ("core/test_core_ageing.py", "model"),
        "a message whose key was closed waits for ever behind higher priorities",
    ),
    Mutant(
        "what comes back to a key has no age",
        "core/model/lanes.py",
        "            self.keys.waits(item)\n        if self.ages is not None:\n            self._came(lane)\n",
        "            self.keys.waits(item)\n",
        ("core/test_core_ageing.py", "model"),
        "a message that was given back waits for ever behind higher priorities",
    ),
    Mutant(
        "a reject is a failure of what is called",
        "core/verbs/attempts.py",
        '    tells = cause in CAUSES and cause != "rejected"\n',
        "    tells = cause in CAUSES\n",
        ("core/test_core_circuits.py",),
        "bad messages open a circuit, and bad ones that are tried keep it open",
    ),
    Mutant(
        "a circuit is closed by any ack",
        "core/model/circuits.py",
        "    elif circuit.state == PROBING and token >= circuit.token:\n",
        "    elif circuit.state == PROBING:\n",
        ("core/test_core_circuits.py",),
        "a message that was begun before it opened decides that it closes",
    ),
)
