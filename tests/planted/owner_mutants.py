"""Bugs of exclusive queues, of names that the server gives, of one active consumer, and of replies in memory."""

from __future__ import annotations

from typing import Final

from mutant import Mutant

_OWNING: Final = ("core/test_core_owning.py",)
_SINGLE: Final = ("core/test_core_single.py",)

OWNER_MUTANTS: Final = (
    Mutant(
        "an exclusive queue outlives its session",
        "core/verbs/farewells.py",
        "    if session.is_worth_keeping or session.id in store.owners:\n",
        "    if session.is_worth_keeping:\n",
        _OWNING,
        "5.19: a session that has nothing else is forgotten at once, and its queues are there for ever",
    ),
    Mutant(
        "a goodbye ends no exclusive queue",
        "core/verbs/farewells.py",
        "    _forget_outcomes(store, session, silent=False)\n    end_queues_of(store, session)\n",
        "    _forget_outcomes(store, session, silent=False)\n",
        _OWNING,
        "5.19: who has left on purpose keeps his queues for a minute",
    ),
    Mutant(
        "a start knows nothing of owners that have nothing else",
        "core/returning.py",
        "        if id not in store.sessions:",
        "        if id in store.sessions:",
        _OWNING,
        "5.19: an exclusive queue whose owner died with the server never ends",
    ),
    Mutant(
        "a start forgets whose a queue is",
        "core/replay.py",
        "        store.owners.opened(store)\n",
        "",
        _OWNING,
        "5.19: after a restart everybody takes from the queue of one session",
    ),
    Mutant(
        "a session that comes back while its queues end takes from them",
        "core/model/owners.py",
        "        self.session_of.update(dict.fromkeys(numbers, NOBODY))\n",
        "",
        _OWNING,
        "5.19: of a queue whose end is decided something is handed out",
    ),
    Mutant(
        "the dead letters of an exclusive queue are for everybody",
        "core/model/owners.py",
        "        queue = store.queues.get(name.removesuffix(DLQ_SUFFIX))\n",
        "        queue = store.queues.get(name)\n",
        _OWNING,
        "5.19: others consume the dead-letter queue",
    ),
    Mutant(
        "the next name can be worked out",
        "core/model/owners.py",
        "blake2b(number, key=self.secret, digest_size=NAME_BYTES)",
        "blake2b(number, digest_size=NAME_BYTES)",
        _OWNING,
        "5.19: a name that protects a queue is guessed",
    ),
    Mutant(
        "a publish makes a queue of a given name anew",
        "core/model/refusals.py",
        "    if name.startswith(limits.GIVEN_NAMES):\n",
        '    if name.startswith("\\0"):\n',
        _OWNING,
        "5.19: a reply to who has gone makes a queue that nobody reads",
    ),
    Mutant(
        "the turn passes while a message is at work",
        "core/verbs/turns.py",
        "    if group.deliveries:\n        return False\n",
        "",
        _SINGLE,
        "5.17: two consumers have messages at once",
    ),
    Mutant(
        "one that comes back goes on beside the next one",
        "core/verbs/turns.py",
        "    if single.holder is not None and single.holder.active:\n        return False\n",
        "",
        _SINGLE,
        "5.17: two consumers have messages at once after a lost connection",
    ),
    Mutant(
        "one that comes back goes on beside a receive",
        "core/verbs/turns.py",
        "each.session != session.id",
        "each.session < 0",
        _SINGLE,
        "5.17: two consumers have messages at once after a lost connection",
    ),
    Mutant(
        "the next one works on while the end of what was before is not safe",
        "core/verbs/turns.py",
        "        consumer.batch = max(consumer.batch, group.queue.last_batch)\n",
        "        pass\n",
        _SINGLE,
        "5.17: a crash gives a message back to the one before, and two work on the queue",
    ),
    Mutant(
        "nobody looks for the next one when the last message has ended",
        "core/model/state.py",
        "            self.touch(group)  # the turn may pass\n",
        "            pass\n",
        _SINGLE,
        "5.17: a queue stands still though somebody waits for his turn",
    ),
    Mutant(
        "one that stands still is not asked for what it holds",
        "core/verbs/turns.py",
        "    runs = newest_held(deliveries, MOST_ASKED)\n",
        "    runs = newest_held(deliveries, 0)\n",
        _SINGLE,
        "5.17: the next one waits until a paused client has worked off what it was sent in advance",
    ),
    Mutant(
        "a client that is paused keeps its turn",
        "core/verbs/pausing.py",
        "        if group in store.sums.singles:\n            store.touch(group)\n",
        "        assert group.queue is not None\n",
        _SINGLE,
        "5.17: the next one waits for a client that gets nothing",
    ),
    Mutant(
        "a reply in memory is told before its ack is safe",
        "core/verbs/results.py",
        "            rests_on = home.last_batch",
        "            rests_on = home.record_batch",
        ("core/test_core_replies.py",),
        "somebody acts on a reply, a crash undoes it, and the request comes to another one",
    ),
    Mutant(
        "a reply that is to be in memory is written",
        "core/model/noting.py",
        '        in_log = logged and queue.settings["results_in"] == "log"\n',
        "        in_log = logged\n",
        ("core/test_core_replies.py",),
        "7: results_in=memory writes as much as ever",
    ),
    Mutant(
        "one that goes on is not looked at on the bench",
        "core/verbs/dispatching.py",
        "        if consumer.waiting and queue.group in store.sums.singles:\n",
        "        if False:\n",
        _SINGLE,
        "5.17: nobody has the turn, and the queue stands still",
    ),
)
