"""Bugs of sheaves: the delayed messages of one publish, as one object."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

SHEAVES: Final = ("core/test_core_sheaves.py",)
SHEAF_MUTANTS: Final = (
    Mutant(
        "one that was taken out of a sheaf by its id is still in it",
        "core/model/sheaf.py",
        "        self._there[low:high] = bytes(high - low)\n",
        '        self._there[low:high] = b"\\1" * (high - low)\n',
        SHEAVES,
        "I4: what was cancelled runs when its time comes, and what was retimed runs twice",
    ),
    Mutant(
        "a sheaf does not count who is taken out",
        "core/model/sheaf.py",
        "        self.left -= sum(self._there[low:high])\n",
        "        self.left -= 1 if high > low + 1 else 0\n",
        SHEAVES,
        "I11: a sheaf of which all were cancelled waits for the last of them",
    ),
    Mutant(
        "the first of those that are ready takes the others of a sheaf along",
        "core/model/sheaf.py",
        "            if self._since_ms + self._delays[at] > upto_ms:\n                break\n",
        "            if self._since_ms > upto_ms:\n                break\n",
        SHEAVES,
        "a message runs before its time",
    ),
    Mutant(
        "the last of a sheaf stays",
        "core/model/sheaf.py",
        "        while self.left and len(found) < most:\n",
        "        while self.left > 1 and len(found) < most:\n",
        SHEAVES,
        "I2: one message of each publish is never handed out",
    ),
    Mutant(
        "a sheaf that a start makes has lost its gaps",
        "core/model/sheaf.py",
        "        sheaf._there, sheaf.left, sheaf.batch = there, sum(there), first.batch\n",
        "        sheaf.batch = first.batch\n",
        SHEAVES,
        "I4: what was cancelled is there again after a restart",
    ),
    Mutant(
        "a sheaf that a start makes has the time of its first message for all",
        "core/model/sheaf.py",
        '            delays[low:high] = array("Q", (span.ready_at_ms - since_ms,)) * (high - low)\n',
        '            delays[low:high] = array("Q", (first.ready_at_ms - since_ms,)) * (high - low)\n',
        SHEAVES,
        "after a restart messages run too early, or too late",
    ),
    Mutant(
        "what leaves a sheaf has the key of its first message",
        "core/model/sheaf.py",
        "        key = self._keys if isinstance(self._keys, str) else self._keys[at]\n",
        "        key = self._keys if isinstance(self._keys, str) else self._keys[0]\n",
        SHEAVES,
        "5.1: messages of one key overtake each other",
    ),
    Mutant(
        "neighbours of a sheaf with other keys leave as one",
        "core/model/sheaf.py",
        "        return isinstance(self._keys, str) or self._keys[at] == self._keys[other]\n",
        "        return isinstance(self._keys, str) or self._keys[at] is not None\n",
        SHEAVES,
        "5.1: messages of one key overtake each other",
    ),
    Mutant(
        "a look-up does not look into sheaves",
        "core/model/later.py",
        "        if item is not None or not self._sheaves:\n",
        "        if item is not None or self._sheaves is None or self._sheaves:\n",
        SHEAVES,
        "a delayed message cannot be cancelled, retimed or explained",
    ),
    Mutant(
        "who comes behind an id begins a sheaf anew",
        "core/model/later.py",
        "                spans = sheaf.spans(sequence if sheaf.block.origin == origin else 0)\n",
        "                spans = sheaf.spans(sequence * 0 if sheaf.block.origin == origin else 0)\n",
        ("core/test_core_listing.py",),
        "a listing of pages shows the messages of a sheaf again and again",
    ),
    Mutant(
        "a time to live finds the first of a sheaf alone",
        "core/model/later.py",
        "                found += sheaf.spans()\n",
        "                found += list(sheaf.spans())[:1]\n",
        SHEAVES,
        "5.13: what has expired runs when its delay is over",
    ),
    Mutant(
        "a sheaf takes no memory for its messages",
        "core/model/sheaf.py",
        "        self.memory_bytes = SHEAF_OBJECT_BYTES + each * self.left\n",
        "        self.memory_bytes = SHEAF_OBJECT_BYTES + each\n",
        ("core/test_core_footprint.py",),
        "I11: the limit of memory does not see what is delayed",
    ),
    Mutant(
        "what is delayed by itself is charged as if it had no timer, when it goes",
        "core/model/index.py",
        "        standing.item_bytes -= item.memory_bytes + self.more_bytes\n",
        "        standing.item_bytes -= item.memory_bytes\n",
        ("core/test_core_cancelling.py",),
        "I11: the estimate of memory grows with all that ever was delayed",
    ),
)
