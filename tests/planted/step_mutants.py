"""Bugs of steps whose follow-ups have unique keys or dedupe ids."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

STEPS: Final = ("core/test_core_steps.py",)
IN_BOTH: Final = ("conformance/test_unique_in_both.py",)
_NAMED: Final = (
    '            self._named = Counter(getattr(part, "queue", None) for part in parts)\n'
    "        return self._named[queue] == 1 and not self._named[None]"
)
_SOME_NAMED: Final = (
    "            self._named = Counter(\n"
    '                getattr(part, "queue", None) for part in parts if {}hasattr(part, "count")\n'
    "            )\n"
    "        return {} and not self._named[None]"
)
STEP_MUTANTS: Final = (
    Mutant(
        "a part of a step does not see what those before it publish",
        "core/model/claims.py",
        _NAMED,
        _SOME_NAMED.format("not ", "not self._named[queue]"),
        STEPS,
        "5.9: two follow-ups of one step hold the same key, and both run",
    ),
    Mutant(
        "the message that a step acks still holds its key",
        "core/model/claims.py",
        _NAMED,
        _SOME_NAMED.format("", "self._named[queue] == 1"),
        (*STEPS, "model"),
        "5.9: a job that publishes the next one of its own key ends, and nothing follows",
    ),
    Mutant(
        "a follow-up that is dropped takes memory",
        "core/verbs/uniqueness.py",
        "            queue.count_out(block, block.first + index, block.first + index + 1)\n",
        "",
        STEPS,
        "I11: what nobody can receive is kept, and counts in the limit of its queue",
    ),
    Mutant(
        "a follow-up that is dropped is there after a crash",
        "core/verbs/uniqueness.py",
        "        if block.durability != MEMORY:\n            write_ended(store, queue, ended)\n",
        "        if block.durability != MEMORY and len(ended) > 1:\n"
        "            write_ended(store, queue, ended)\n",
        STEPS,
        "5.9: a replay comes to something else than the first apply",
    ),
    Mutant(
        "a start forgets which follow-ups were duplicates",
        "core/core.py",
        "        store.emit(session.record_of(sequence, store.unix_ms), lost)\n",
        '        kept = b"" if frame.is_step else lost\n'
        "        store.emit(session.record_of(sequence, store.unix_ms), kept)\n",
        (*STEPS, "model"),
        "4.4: the answer to a frame that comes again after a crash names another message",
    ),
    Mutant(
        "what a step ends takes the room of what its follow-ups note",
        "core/verbs/parts.py",
        "        claims.add_bytes(_check_ends(store, frame, settlements))\n",
        "        _check_ends(store, frame, settlements)\n",
        STEPS,
        "section 3: a step that fills a batch is two, and a crash between them takes a half of it",
    ),
    Mutant(
        "a step says of its last queue what was known of its first",
        "session/step_frame.py",
        "            some = known[at : at + count]\n",
        "            some = known[:count]\n",
        IN_BOTH,
        "5.9: a caller takes the message of another queue for its own",
        CLIENT,
    ),
    Mutant(
        "a call of a step hears of the calls before it in its frame",
        "contract/confirms.py",
        "            at - first: self.known[at] for at in range(first, first + count) if at in self.known\n",
        "            at: self.known[at] for at in range(first, first + count) if at in self.known\n",
        IN_BOTH,
        "5.9: a duplicate is confirmed as stored, and what was stored as a duplicate",
        CLIENT,
    ),
)
