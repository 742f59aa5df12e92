"""Bugs of what is asked and done by the id of a message: explain, retime, cancel."""

from __future__ import annotations

from typing import Final

from mutant import CLIENT, Mutant

EXPLAIN_MUTANTS: Final = (
    Mutant(
        "explain counts those who may take no more",
        "core/model/explaining.py",
        "    hungry = [consumer for consumer in at if consumer.credit() > 0]\n",
        "    hungry = list(at)\n",
        ("core/test_explained_worlds.py",),
        "explain: what is said to be next is not handed out",
    ),
    Mutant(
        "explain takes a hold after a start for none",
        "core/model/explaining.py",
        "    if not store.hands_out(queue.group):\n",
        "    if store.paused:\n",
        ("core/test_explained_worlds.py",),
        "explain: what waits for the workers of before is said to be next, or to have no one with credit",
    ),
    Mutant(
        "explain says of a lease how long it is",
        "core/model/explaining.py",
        "    until = store.unix_ms_at(item.timer.tick * TICK_MS) if",
        "    until = store.unix_ms + item.lease_ms + 0 * TICK_MS if",
        ("core/test_explained_worlds.py",),
        "explain: the end of a lease moves away while nobody renews it",
    ),
    Mutant(
        "explain tells of queues of others",
        "core/verbs/explaining.py",
        "        return self._scope is None or self._scope.covers(name)\n",
        "        return bool(name)\n",
        ("access/test_rights_walk.py::test_explain_tells_only_of_its_own_queues",),
        "rights: a token sees where messages of other queues are, and who has them",
    ),
)

RETIME_MUTANTS: Final = (
    Mutant(
        "a retime without a record",
        "core/verbs/retiming.py",
        "        store.write_return(queue, [message], message.ready_at_ms - store.now_ms, None)\n",
        "",
        ("core/test_core_retiming.py", "model"),
        "I1: after a restart a message is ready at its old time",
    ),
    Mutant(
        "a retime of what is dead",
        "core/verbs/retiming.py",
        "        if is_dead(queue.group.later.find(origin, sequence)):\n",
        "        if not queue.number and is_dead(queue.group.later.find(origin, sequence)):\n",
        ("core/test_core_retiming.py", "model"),
        "I4: what used all its attempts is handed out again",
    ),
    Mutant(
        "what is due at one time is on one page only",
        "core/verbs/due.py",
        "                    found += (each for each in _places(item) if each > behind)\n",
        "                    found += (\n"
        "                        each for each in _places(item) if each.ready_at_ms > behind.ready_at_ms\n"
        "                    )\n",
        ("core/test_core_retiming.py",),
        "peek: a page passes over what is due at the time at which the one before ended",
    ),
    Mutant(
        "a listing passes over what stands in the middle of what left memory",
        "core/verbs/listing.py",
        "                return item.first\n        return 2**64\n",
        "                return 2**64\n        return 2**64\n",
        ("core/test_core_retiming.py",),
        "peek: a message that waits all the time is shown in no page",
    ),
)

CANCEL_MUTANTS: Final = (
    Mutant(
        "a run is looked for by where it began",
        "core/model/lane.py",
        "    return each.first if isinstance(each, Span) else each.start\n",
        "    return each.first\n",
        ("core/test_core_cold.py", "model"),
        "a message that left memory, and was written again, is not found by its id",
    ),
    Mutant(
        "a cancel of what is worked on without a record",
        "core/verbs/cancelling.py",
        "            if item.block.durability != MEMORY:\n                self._logged.append(run)\n",
        "            if item.block.durability != MEMORY and state is None:\n"
        "                self._logged.append(run)\n",
        ("core/test_core_cancelling.py", "model"),
        "I1: a restart hands out again what was cancelled",
    ),
    Mutant(
        "a worker that is away is not told of a cancel",
        "core/verbs/cancelling.py",
        "            if state is State.BEGUN:\n",
        "            if state is State.HELD:\n",
        ("core/test_core_cancelling.py",),
        "what a worker says of a message when it comes back is refused by another code than before",
    ),
    Mutant(
        "a cancel keeps the credit of its worker",
        "core/verbs/cancelling.py",
        "            change(store, queue.group, (item,), state, None, delivery)\n",
        "            change(store, queue.group, (item,), state, None)\n",
        ("core/test_core_cancelling.py", "model"),
        "I5: a worker gets less and less, and nothing at the end",
    ),
    Mutant(
        "a worker is not told of a cancel",
        "core/verbs/cancelling.py",
        "            tell(store, number, queue, taken, self._by)\n",
        "            tell(store, -number, queue, taken, self._by)\n",
        ("core/test_core_cancelling.py",),
        "a handler goes on with what nobody wants any more",
    ),
    Mutant(
        "a worker is told of a cancel that a crash may take back",
        "core/verbs/cancelling.py",
        "    store.send(known.connection, queue.last_batch, header, pack_runs(runs))\n",
        "    store.send(known.connection, 0, header, pack_runs(runs))\n",
        ("core/test_core_cancelling.py",),
        "I1: a worker drops what is handed out again after a crash, charged for a dead lease",
    ),
    Mutant(
        "what was cancelled in a buffer begins",
        "session/revoked.py",
        "        consumer.take_out(unseen)\n",
        "        consumer.take_out(())\n",
        ("client/test_cancel.py::test_what_was_taken_in_advance_never_begins",),
        "a handler gets a message that was cancelled before it began",
        CLIENT,
    ),
)

END_MUTANTS: Final = (
    Mutant(
        "who waits for what was dropped is told nothing",
        "core/model/noting.py",
        "    if not (kept_ms or store.results.waiting or store.chains.ids):\n        return\n    value",
        "    if not (kept_ms or store.chains.ids):\n        return\n    value",
        ("core/test_core_ends.py",),
        "a caller waits until its deadline for what is gone",
    ),
    Mutant(
        "a purge tells of what had left the queue",
        "core/verbs/moving.py",
        "            origin, intervals = item.block.origin, iter([(item.first, item.stop)])\n",
        "            first = item.block.first\n"
        "            origin, intervals = item.block.origin, iter([(first, first + item.block.count)])\n",
        ("core/test_core_ends.py",),
        "a caller is told that its message was purged, and it runs",
    ),
)

CHAIN_MUTANTS: Final = (
    Mutant(
        "each end counts twice",
        "core/model/chains.py",
        "    chain.outcomes[at] = outcome + 1\n    chain.left -= 1\n",
        "    chain.outcomes[at] = outcome + 1\n    chain.left -= 2\n",
        ("core/test_core_chains.py", "core/test_chained_worlds.py"),
        "a callback runs while jobs of its batch are at work",
    ),
    Mutant(
        "what a predecessor came to is not written",
        "core/model/chains.py",
        "            _put(store, chain, part, _chunk(chain, part))\n    chains.noted",
        "            pass\n    chains.noted",
        ("core/test_core_chains.py", "core/test_chained_worlds.py"),
        "after a restart what was done counts as lost",
    ),
    Mutant(
        "a start does not look for what is lost",
        "core/verbs/chaining.py",
        "    if lost:\n        store.jobs.append(step)\n",
        "    if not known:\n        store.jobs.append(step)\n",
        ("core/test_core_chains.py", "core/test_chained_worlds.py"),
        "a message waits for ever for what is nowhere",
    ),
    Mutant(
        "what is told in steps is not in the log",
        "core/model/chains.py",
        "        store.kept.put(store, AFTER, key, (bytes((outcome,)) + runs,))\n",
        "        store.kept.put(store, AFTER, key, (bytes((outcome,)) + runs,), logged=False)\n",
        ("core/test_core_chain_budgets.py",),
        "after a crash between two steps what was done counts as lost",
    ),
    Mutant(
        "a start looks for what was moved nowhere",
        "core/verbs/chaining.py",
        "        for origin in foreign_origins(queue) & by_origin.keys():\n",
        "        for origin in foreign_origins(queue) & {queue.number}:\n",
        ("core/test_core_chains.py",),
        "what waits for messages that were moved dies after a start",
    ),
)

MESSAGE_MUTANTS: Final = (
    END_MUTANTS + CHAIN_MUTANTS + EXPLAIN_MUTANTS + RETIME_MUTANTS + CANCEL_MUTANTS
)
