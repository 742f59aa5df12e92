"""Bugs of unique keys, dedupe ids and limits of queues."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

UNIQUE: Final = ("core/test_core_unique.py",)
OVERFLOW: Final = ("core/test_core_overflow.py",)
LIMIT_MUTANTS: Final = (
    Mutant(
        "a unique key outlives its message",
        "core/model/queues.py",
        "        if block.uniques is not None and self.unique is not None:\n"
        "            self.unique.let_go(block, first, stop)\n",
        "        if block.uniques is not None and self.unique is not None and stop > first + 1:\n"
        "            self.unique.let_go(block, first, stop)\n",
        UNIQUE,
        "5.9: a lock is left behind, and nobody can publish that job again",
    ),
    Mutant(
        "a copy forgets unique keys",
        "core/durable/forwarding.py",
        '        unique_key=block.uniques[message.sequence - block.first] if block.uniques else "",\n',
        '        unique_key="",\n',
        UNIQUE,
        "5.9: after some segments a job runs twice at a time",
    ),
    Mutant(
        "what a worker has is replaced",
        "core/verbs/uniqueness.py",
        "            if item is not None:\n                self._replaced.append((id, index))\n",
        "            self._replaced.append((id, index))\n            if item is not None:\n",
        UNIQUE,
        "5.9: a job in work is taken from its worker, or the broker falls",
    ),
    Mutant(
        "keep-latest waits anew",
        "core/verbs/uniqueness.py",
        "        if self._part.unique_mode == KEEP_LATEST:\n",
        "        if self._part.unique_mode is None:\n",
        UNIQUE,
        "5.9: a job that is published all the time never runs",
    ),
    Mutant(
        "a replaced message comes back after a crash",
        "core/verbs/uniqueness.py",
        '        write_ended(store, queue, ended)\n        queue.group.counters["replaced"]',
        '        queue.group.counters["replaced"]',
        UNIQUE,
        "5.9: what was replaced runs after a restart",
    ),
    Mutant(
        "a repeat keeps its dedupe id alive",
        "core/verbs/uniqueness.py",
        "            if is_new and dedupe:\n",
        "            if dedupe:\n",
        UNIQUE,
        "5.10: the window never ends while somebody repeats",
    ),
    Mutant(
        "dedupe ids are not kept over a restart",
        "core/verbs/uniqueness.py",
        "            in_log = durability != MEMORY\n",
        "            in_log = durability != MEMORY and window_ms < 0\n",
        UNIQUE,
        "5.10: an outbox publishes twice what the broker had before its crash",
    ),
    Mutant(
        "a duplicate is confirmed before what stands is safe",
        "core/verbs/publishing.py",
        "    return result, runs, max(rests_on, queue.last_batch if block is None else 0)\n",
        "    return result, runs, rests_on if block is not None else 0\n",
        UNIQUE,
        "I1, 5.9: a crash takes the message that a confirm named",
    ),
    Mutant(
        "a limit does not count what is not synced or in work",
        "core/verbs/overflowing.py",
        "    return queue.count() + asked.messages <= queue.max_messages\n",
        "    ready = queue.group.lanes.ready + queue.group.entering\n"
        "    return ready + asked.messages <= queue.max_messages\n",
        OVERFLOW,
        "5.11: a queue with busy workers grows beyond its limit",
    ),
    Mutant(
        "a limit of what dies does not count what is in work",
        "core/model/queues.py",
        "        return not self.max_messages or self.count() + count <= self.max_messages\n",
        "        ready = self.group.lanes.ready + self.group.entering\n"
        "        return not self.max_messages or ready + count <= self.max_messages\n",
        ("core/test_core_full_dlq.py",),
        "5.11: a dead-letter queue that somebody works on grows beyond its limit",
    ),
    Mutant(
        "the newest gives way",
        "core/verbs/overflowing.py",
        "    for id, freed_bytes in _waiting(queue):\n",
        "    for id, freed_bytes in reversed([*_waiting(queue)]):\n",
        OVERFLOW,
        "5.11: a full queue keeps what nobody needs any more",
    ),
    Mutant(
        "what gave way comes back after a crash",
        "core/verbs/overflowing.py",
        "        if item is None or item.block.durability != MEMORY:\n",
        "        if item is None:\n",
        OVERFLOW,
        "5.11: dropped messages run after a restart",
    ),
)
